//! The annotations without a meaning here: each known one with its reason, and what is unknown.
//!
//! Guarantees:
//! - What restricts callers refuses the Ingress, unless it is off.
//! - A snippet refuses the Ingress, unless all its directives are known to restrict nobody.
//!
//! Leaves to others: annotations with a meaning.

use super::annotation_reader::{AnnotationReader, FindingVerdict, NginxFinding, PREFIX};
use super::values::parse_switch;

/// What becomes of an annotation without a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FixedVerdict {
    Differs,
    Lost,
    /// Lost, and the Ingress is refused.
    Refused,
}

use FixedVerdict::{Differs, Lost, Refused};

/// The known annotations that are in no other file, with the reason.
const KNOWN: &[(&str, FixedVerdict, &str)] = &[
    ("auth-always-set-cookie", Lost, "there is no external authentication"),
    ("auth-cache-duration", Lost, "there is no external authentication"),
    ("auth-cache-key", Lost, "there is no external authentication"),
    ("auth-method", Lost, "there is no external authentication"),
    ("auth-proxy-set-headers", Lost, "there is no external authentication"),
    ("auth-realm", Lost, "there is no authentication by password"),
    ("auth-response-headers", Lost, "there is no external authentication"),
    ("auth-secret", Refused, "there is no authentication by password"),
    ("auth-secret-type", Lost, "there is no authentication by password"),
    ("auth-signin", Refused, "there is no external authentication"),
    ("auth-signin-redirect-param", Lost, "there is no external authentication"),
    ("auth-type", Refused, "there is no authentication by password"),
    ("auth-url", Refused, "there is no external authentication"),
    ("backend-protocol-version", Lost, "backend-protocol decides"),
    ("client-body-buffer-size", Differs, "request bodies are passed on as they arrive, in bounded memory"),
    ("connection-proxy-header", Lost, "connections to servers are kept by the gateway"),
    ("custom-http-errors", Lost, "responses with errors are passed on as they are"),
    ("default-backend", Lost, "a Service without endpoints is answered with 503"),
    ("disable-proxy-intercept-errors", Differs, "responses with errors are always passed on as they are"),
    ("enable-access-log", Differs, "there is no log of each request; usage is in metrics and reports"),
    ("enable-global-auth", Lost, "there is no external authentication; see global-auth-url of the ConfigMap"),
    ("enable-modsecurity", Refused, "there is no web application firewall"),
    ("enable-opentelemetry", Lost, "there are no traces"),
    ("enable-opentracing", Lost, "there are no traces"),
    ("enable-owasp-core-rules", Refused, "there is no web application firewall"),
    ("enable-rewrite-log", Lost, "tallygate explain shows what becomes of a request"),
    ("from-to-www-redirect", Lost, "add a rule for the other host with permanent-redirect"),
    ("http2-push-preload", Differs, "there is no server push; browsers do not support it any more"),
    ("influxdb-server", Lost, "metrics are scraped"),
    ("mirror-host", Lost, "requests are not copied; an HTTPRoute can (RequestMirror)"),
    ("mirror-request-body", Lost, "requests are not copied; an HTTPRoute can (RequestMirror)"),
    ("mirror-target", Lost, "requests are not copied; an HTTPRoute can (RequestMirror)"),
    ("modsecurity-snippet", Refused, "there is no web application firewall"),
    ("modsecurity-transaction-id", Lost, "there is no web application firewall"),
    ("opentelemetry-operation-name", Lost, "there are no traces"),
    ("opentelemetry-trust-incoming-span", Lost, "there are no traces"),
    ("preserve-trailing-slash", Lost, "redirects keep the path as it is"),
    ("proxy-buffer-size", Differs, "heads of responses may have the size that the gateway allows"),
    ("proxy-buffering", Differs, "responses are passed on as they arrive, in bounded memory"),
    ("proxy-buffers-number", Differs, "responses are passed on as they arrive, in bounded memory"),
    ("proxy-busy-buffers-size", Differs, "responses are passed on as they arrive, in bounded memory"),
    ("proxy-cookie-domain", Lost, "cookies are passed on as they are"),
    ("proxy-cookie-path", Lost, "cookies are passed on as they are"),
    ("proxy-http-version", Differs, "HTTP/1.1, or HTTP/2 for gRPC"),
    ("proxy-max-temp-file-size", Differs, "nothing is written to a disk"),
    (
        "proxy-next-upstream",
        Differs,
        "a request of which nothing was sent goes to another server; nothing else is sent twice",
    ),
    ("proxy-next-upstream-timeout", Differs, "connections have a timeout of their own"),
    ("proxy-next-upstream-tries", Differs, "at most 3 servers are tried"),
    ("proxy-redirect-from", Lost, "Location of responses is passed on as it is"),
    ("proxy-redirect-to", Lost, "Location of responses is passed on as it is"),
    ("proxy-request-buffering", Differs, "request bodies are passed on as they arrive, so servers see slow uploads"),
    ("relative-redirects", Lost, "redirects have whole URLs"),
    ("satisfy", Lost, "there is one way of authentication"),
    ("server-snippet", Refused, "snippets of nginx have no meaning"),
    ("service-upstream", Differs, "the endpoints are called instead of the address of the Service"),
    ("ssl-ciphers", Differs, "the ciphers of the gateway are used: TLS 1.2 and 1.3 without weak ones"),
    ("ssl-passthrough", Refused, "TLS ends at the gateway, so servers would not see client certificates"),
    ("ssl-prefer-server-ciphers", Differs, "the gateway chooses the cipher"),
    ("stream-snippet", Lost, "snippets of nginx have no meaning"),
    ("upstream-hash-by-subset", Lost, "hashing chooses among all servers"),
    ("upstream-hash-by-subset-size", Lost, "hashing chooses among all servers"),
    ("use-port-in-redirects", Lost, "redirects have the port at which callers reach the gateway"),
    ("x-forwarded-prefix", Lost, "only the gateway writes X-Forwarded-*"),
];

/// Directives that restrict nobody and hide nothing from servers.
const HARMLESS_DIRECTIVES: [&str; 14] = [
    "access_log",
    "add_header",
    "error_log",
    "gzip",
    "gzip_types",
    "keepalive_timeout",
    "more_set_headers",
    "proxy_buffer_size",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_busy_buffers_size",
    "proxy_connect_timeout",
    "proxy_read_timeout",
    "proxy_send_timeout",
];
/// Parts of names of annotations that restrict callers.
const RESTRICTING: [&str; 7] = ["auth", "allowlist", "denylist", "whitelist", "blacklist", "modsecurity", "jwt"];

/// Judges the annotations that no other file has judged.
pub(super) fn judge_others(reader: &mut AnnotationReader<'_>) {
    let judged: Vec<String> = reader.findings.iter().map(|finding| finding.annotation.clone()).collect();
    let names: Vec<(String, String)> = reader
        .annotations
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value.trim().to_owned())))
        .filter(|(name, _)| !judged.contains(name))
        .collect();
    for (name, value) in names {
        judge(reader, &name, &value);
    }
}

fn judge(reader: &mut AnnotationReader<'_>, name: &str, value: &str) {
    if name.ends_with("-snippet") && name != "stream-snippet" && name != "modsecurity-snippet" {
        return judge_snippet(reader, name, value);
    }
    let known = KNOWN.iter().find(|(known, ..)| *known == name);
    if known.is_some() && (value.is_empty() || parse_switch(value) == Some(false)) {
        return reader.taken(name, "off");
    }
    match known {
        Some((_, Differs, sentence)) => reader.differs(name, sentence),
        Some((_, Lost, sentence)) => reader.lost(name, sentence),
        Some((_, Refused, sentence)) => reader.refused(name, sentence),
        None if RESTRICTING.iter().any(|part| name.contains(part)) => {
            reader.refused(name, "this annotation is unknown, and it seems to restrict callers");
        }
        None => reader.lost(name, "this annotation is unknown"),
    }
}

fn judge_snippet(reader: &mut AnnotationReader<'_>, name: &str, value: &str) {
    let lines = value.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let statements: Vec<&str> = lines.flat_map(|line| line.split_terminator(';')).collect();
    let is_harmless = |statement: &&str| {
        let directive = statement.split_whitespace().next().unwrap_or_default();
        directive.is_empty() || (HARMLESS_DIRECTIVES.contains(&directive) && !statement.contains(['{', '}']))
    };
    if name == "auth-snippet" || !statements.iter().all(is_harmless) {
        return reader.refused(name, "snippets of nginx have no meaning, and this one may restrict callers");
    }
    reader.lost(name, "snippets of nginx have no meaning; custom-headers sets fields of responses");
}

/// Values of the ConfigMap of ingress-nginx that hold for all its Ingresses, with what to do instead.
const GLOBAL: &[(&str, FixedVerdict, &str)] = &[
    ("allow-snippet-annotations", Differs, "snippets have no meaning"),
    ("annotations-risk-level", Differs, "each annotation is judged by itself"),
    ("block-cidrs", Refused, "write the annotation denylist-source-range at each Ingress"),
    ("block-referers", Refused, "requests cannot be restricted by their Referer"),
    ("block-user-agents", Refused, "requests cannot be restricted by their User-Agent"),
    ("denylist-source-range", Refused, "write the annotation denylist-source-range at each Ingress"),
    ("enable-modsecurity", Refused, "there is no web application firewall"),
    ("force-ssl-redirect", Lost, "write the annotation force-ssl-redirect at each Ingress"),
    ("global-auth-url", Refused, "there is no external authentication"),
    ("http-snippet", Refused, "snippets of nginx have no meaning"),
    ("location-snippet", Refused, "snippets of nginx have no meaning"),
    ("main-snippet", Lost, "snippets of nginx have no meaning"),
    ("proxy-body-size", Lost, "write the annotation proxy-body-size; without it bodies may have 1 GiB"),
    ("proxy-connect-timeout", Lost, "write the annotation proxy-connect-timeout; without it 2 s"),
    ("proxy-read-timeout", Lost, "write the annotation proxy-read-timeout; without it 60 s"),
    ("proxy-send-timeout", Differs, "there is no timeout between two writes to a server"),
    ("server-snippet", Refused, "snippets of nginx have no meaning"),
    ("ssl-redirect", Lost, "write the annotation ssl-redirect at each Ingress"),
    ("use-forwarded-headers", Differs, "listeners[].forwardedFor names the proxies whose X-Forwarded-For is kept"),
    ("use-proxy-protocol", Differs, "the value proxyProtocol of the chart names the balancers"),
    ("whitelist-source-range", Refused, "write the annotation whitelist-source-range at each Ingress"),
];

/// What becomes of the values of the ConfigMap of ingress-nginx: none of them is read.
pub fn global_findings<'a>(data: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<NginxFinding> {
    let finding = |(name, value): (&str, &str)| {
        let known = GLOBAL.iter().find(|(known, ..)| *known == name);
        let (verdict, refuses, sentence) = match known {
            _ if value.is_empty() || parse_switch(value) == Some(false) => (FindingVerdict::Differs, false, "off"),
            Some((_, Differs, sentence)) => (FindingVerdict::Differs, false, *sentence),
            Some((_, verdict, sentence)) => (FindingVerdict::Lost, *verdict == Refused, *sentence),
            None => (FindingVerdict::Lost, false, "this global value is not read"),
        };
        let sentence =
            if refuses { format!("{sentence}: do not move before that is solved") } else { sentence.to_owned() };
        NginxFinding { annotation: name.to_owned(), value: value.to_owned(), verdict, refuses, sentence }
    };
    data.map(finding).collect()
}
