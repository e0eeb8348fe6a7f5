//! Annotations as tables: a value in, a verdict and keys out.

use serde_json::{Value, json};

use super::*;
use crate::kube::objects::parse_object;

/// An Ingress with TLS for `a.example`, and a path for each text.
fn ingress(paths: &[&str]) -> Ingress {
    let backend = json!({ "service": { "name": "web", "port": { "number": 80 } } });
    let path = |path: &&str| json!({ "path": path, "pathType": "ImplementationSpecific", "backend": backend });
    let rule = json!({ "host": "a.example", "http": { "paths": paths.iter().map(path).collect::<Vec<_>>() } });
    let spec = json!({ "tls": [{ "hosts": ["a.example"], "secretName": "tls" }], "rules": [rule] });
    parse_object(json!({ "spec": spec })).expect("an Ingress")
}

fn plan(paths: &[&str], annotations: &[(&str, &str)]) -> NginxPlan {
    let annotations =
        annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}").into(), Box::from(*value))).collect();
    read_annotations("shop", &ingress(paths), &annotations)
}

/// The verdict on the first annotation: `taken`, `differs`, `lost`, or `refused`.
fn verdict(annotations: &[(&str, &str)]) -> &'static str {
    let plan = plan(&["/"], annotations);
    assert_eq!(plan.findings.len(), annotations.len(), "{annotations:?}: {:?}", plan.findings);
    let finding = plan.findings.iter().find(|finding| finding.annotation == annotations[0].0).expect("a finding");
    assert_eq!(finding.value, annotations[0].1);
    assert!(!finding.sentence.is_empty() && !finding.sentence.ends_with('.'), "{finding:?}");
    if finding.refuses { "refused" } else { finding.verdict.word() }
}

const HTTPS: (&str, &str) = ("backend-protocol", "HTTPS");
const AUTH: (&str, &str) = ("auth-tls-secret", "shop/ca");
const CORS: (&str, &str) = ("enable-cors", "true");
const SESSION: (&str, &str) = ("affinity", "cookie");
const CANARY: (&str, &str) = ("canary", "true");
const BUFFERED: (&str, &str) = ("proxy-buffering", "on");
const BY_HEADER: (&str, &str) = ("canary-by-header", "x-canary");

#[test]
fn single_annotations_have_their_verdict() {
    for (name, value, expected) in [
        ("ssl-redirect", "true", "taken"),
        ("ssl-redirect", "false", "taken"),
        ("ssl-redirect", "yes", "lost"),
        ("force-ssl-redirect", "true", "differs"),
        ("force-ssl-redirect", "false", "taken"),
        ("app-root", "/console", "taken"),
        ("app-root", "console", "lost"),
        ("app-root", "/", "lost"),
        ("app-root", "/a?b=c", "lost"),
        ("permanent-redirect", "https://new.example", "differs"),
        ("permanent-redirect", "https://new.example$request_uri", "taken"),
        ("permanent-redirect", "$scheme://new.example:8443$request_uri", "taken"),
        ("permanent-redirect", "https://$host$request_uri", "taken"),
        ("permanent-redirect", "https://new.example/a?b=c", "refused"),
        ("permanent-redirect", "https://new.example/$1", "refused"),
        ("permanent-redirect", "ftp://new.example", "refused"),
        ("permanent-redirect", "/elsewhere", "differs"),
        ("temporal-redirect", "https://new.example/a", "differs"),
        ("temporal-redirect", "nowhere", "refused"),
        ("permanent-redirect-code", "308", "taken"),
        ("permanent-redirect-code", "300", "differs"),
        ("proxy-body-size", "8m", "taken"),
        ("proxy-body-size", "8M", "taken"),
        ("proxy-body-size", "512k", "taken"),
        ("proxy-body-size", "1g", "taken"),
        ("proxy-body-size", "1024", "taken"),
        ("proxy-body-size", "0", "differs"),
        ("proxy-body-size", "8mb", "lost"),
        ("proxy-body-size", "", "lost"),
        ("proxy-connect-timeout", "5", "taken"),
        ("proxy-connect-timeout", "5s", "taken"),
        ("proxy-connect-timeout", "0", "lost"),
        ("proxy-connect-timeout", "soon", "lost"),
        ("proxy-read-timeout", "3600", "taken"),
        ("proxy-read-timeout", "-1", "lost"),
        ("proxy-send-timeout", "60", "differs"),
        ("backend-protocol", "HTTP", "taken"),
        ("backend-protocol", "http", "taken"),
        ("backend-protocol", "GRPC", "taken"),
        ("backend-protocol", "HTTPS", "differs"),
        ("backend-protocol", "GRPCS", "differs"),
        ("backend-protocol", "AUTO_HTTP", "differs"),
        ("backend-protocol", "FCGI", "refused"),
        ("proxy-ssl-secret", "other/ca", "taken"),
        ("limit-rps", "10", "taken"),
        ("limit-rps", "0", "taken"),
        ("limit-rps", "many", "lost"),
        ("limit-rpm", "10", "taken"),
        ("limit-connections", "10", "taken"),
        ("limit-connections", "0", "taken"),
        ("limit-burst-multiplier", "3", "taken"),
        ("limit-burst-multiplier", "0", "lost"),
        ("limit-whitelist", "10.0.0.0/8", "taken"),
        ("limit-whitelist", "10.0.0.0/8, here", "lost"),
        ("limit-rate", "10", "differs"),
        ("limit-rate", "0", "taken"),
        ("limit-rate", "-1", "lost"),
        ("limit-rate", "10k", "lost"),
        ("limit-rate", "9007199254740992", "lost"),
        ("limit-rate-after", "10", "taken"),
        ("whitelist-source-range", "10.0.0.0/8", "taken"),
        ("whitelist-source-range", "10.0.0.0/8, here", "refused"),
        ("allowlist-source-range", "2001:db8::1", "taken"),
        ("denylist-source-range", "10.0.0.0/8", "taken"),
        ("denylist-source-range", "10", "refused"),
        ("whitelist-source-range", "", "taken"),
        ("enable-cors", "true", "taken"),
        ("enable-cors", "false", "taken"),
        ("cors-allow-origin", "https://a.example", "taken"),
        ("canary", "true", "differs"),
        ("canary", "false", "taken"),
        ("canary-weight", "10", "taken"),
        ("upstream-vhost", "in.example", "taken"),
        ("upstream-vhost", "in.example:80", "lost"),
        ("upstream-vhost", "$host", "lost"),
        ("custom-headers", "shop/fields", "differs"),
        ("custom-headers", "other/fields", "lost"),
        ("server-alias", "b.example, *.c.example", "taken"),
        ("server-alias", "~^www\\d+\\.example$", "lost"),
        ("affinity", "cookie", "taken"),
        ("affinity", "none", "taken"),
        ("session-cookie-name", "route", "taken"),
        ("session-cookie-change-on-failure", "true", "taken"),
        ("default-backend", "fallback", "lost"),
        ("custom-http-errors", "404,503", "lost"),
        ("service-upstream", "true", "differs"),
        ("service-upstream", "false", "taken"),
        ("ssl-passthrough", "true", "refused"),
        ("ssl-passthrough", "false", "taken"),
        ("upstream-hash-by", "$http_x_user", "taken"),
        ("upstream-hash-by", "$remote_addr", "lost"),
        ("load-balance", "round_robin", "taken"),
        ("load-balance", "ewma", "differs"),
        ("use-regex", "true", "differs"),
        ("use-regex", "false", "taken"),
        ("proxy-buffering", "on", "differs"),
        ("proxy-buffering", "off", "taken"),
        ("proxy-request-buffering", "on", "differs"),
        ("auth-url", "https://auth.example", "refused"),
        ("auth-url", "", "taken"),
        ("auth-signin", "https://auth.example", "refused"),
        ("auth-type", "basic", "refused"),
        ("auth-secret", "users", "refused"),
        ("auth-realm", "shop", "lost"),
        ("auth-snippet", "proxy_set_header A b;", "refused"),
        ("auth-odd", "x", "refused"),
        ("jwt-key", "x", "refused"),
        ("configuration-snippet", "more_set_headers \"A: b\";", "lost"),
        ("configuration-snippet", "# nothing\nmore_set_headers \"A: b\"; gzip on;\n", "lost"),
        ("configuration-snippet", "deny all;", "refused"),
        ("configuration-snippet", "more_set_headers \"A: b\"; deny all;", "refused"),
        ("configuration-snippet", "if ($a) { return 403; }", "refused"),
        ("configuration-snippet", "proxy_set_header X-User \"\";", "refused"),
        ("server-snippet", "allow 10.0.0.0/8;\ndeny all;", "refused"),
        ("server-snippet", "access_log off;", "lost"),
        ("stream-snippet", "x;", "lost"),
        ("enable-modsecurity", "true", "refused"),
        ("enable-modsecurity", "false", "taken"),
        ("modsecurity-snippet", "SecRuleEngine On", "refused"),
        ("mirror-target", "https://copy.example", "lost"),
        ("from-to-www-redirect", "true", "lost"),
        ("enable-access-log", "false", "taken"),
        ("something-new", "1", "lost"),
    ] {
        assert_eq!(verdict(&[(name, value)]), expected, "{name}: {value}");
    }
}

#[test]
fn annotations_with_others_have_their_verdict() {
    for (annotations, expected) in [
        (&[("proxy-ssl-secret", "shop/ca"), HTTPS][..], "taken"),
        (&[("proxy-ssl-secret", "ca"), HTTPS], "taken"),
        (&[("proxy-ssl-secret", "other/ca"), HTTPS], "refused"),
        (&[("proxy-ssl-verify", "on"), HTTPS], "taken"),
        (&[("proxy-ssl-verify", "off"), HTTPS], "differs"),
        (&[("proxy-ssl-name", "in.example"), HTTPS], "taken"),
        (&[("proxy-ssl-name", "$host"), HTTPS], "lost"),
        (&[("proxy-ssl-server-name", "on"), HTTPS], "taken"),
        (&[("proxy-ssl-server-name", "off"), HTTPS], "differs"),
        (&[("proxy-ssl-verify-depth", "2"), HTTPS], "differs"),
        (&[AUTH], "taken"),
        (&[AUTH, ("ssl-redirect", "true")], "taken"),
        (&[AUTH, ("ssl-redirect", "false")], "differs"),
        (&[("auth-tls-secret", "other/ca")], "refused"),
        (&[("auth-tls-secret", "")], "refused"),
        (&[("auth-tls-verify-client", "on"), AUTH], "taken"),
        (&[("auth-tls-verify-client", "off"), AUTH], "taken"),
        (&[("auth-tls-verify-client", "optional"), AUTH], "taken"),
        (&[("auth-tls-verify-client", "optional_no_ca"), AUTH], "taken"),
        (&[("auth-tls-verify-client", "perhaps"), AUTH], "refused"),
        (&[("auth-tls-verify-client", "perhaps")], "taken"),
        (&[("auth-tls-verify-depth", "1"), AUTH], "taken"),
        (&[("auth-tls-verify-depth", "deep"), AUTH], "taken"),
        (&[("auth-tls-pass-certificate-to-upstream", "true"), AUTH], "taken"),
        (&[("auth-tls-pass-certificate-to-upstream", "false"), AUTH], "taken"),
        (&[("auth-tls-error-page", "https://a.example/e"), AUTH], "taken"),
        (&[("auth-tls-error-page", "https://a.example/$request_uri"), AUTH], "lost"),
        (&[("auth-tls-error-page", "/e"), AUTH], "lost"),
        (&[("auth-tls-match-cn", "CN=police"), AUTH], "taken"),
        (&[("auth-tls-match-cn", "CN=(?!police)"), AUTH], "refused"),
        (&[("auth-tls-match-cn", "CN=police"), AUTH, ("auth-tls-verify-client", "optional_no_ca")], "differs"),
        (&[("auth-tls-match-cn", "CN=police")], "taken"),
        (&[("allowlist-source-range", "10.0.0.0/8"), ("whitelist-source-range", "10.0.0.0/9")], "refused"),
        (&[("limit-rps", "1"), ("limit-rpm", "10")], "taken"),
        (&[("limit-rate", "10"), BUFFERED], "taken"),
        (&[("limit-rate", "9007199254740991"), BUFFERED], "taken"),
        (&[("limit-rate", "10"), ("proxy-buffering", "off")], "differs"),
        (&[("limit-rate", "10"), ("backend-protocol", "grpcs")], "taken"),
        (&[("limit-rate-after", "10"), ("limit-rate", "10")], "taken"),
        (&[("limit-rate-after", "much"), ("limit-rate", "10")], "lost"),
        (&[("cors-allow-origin", "*"), CORS], "taken"),
        (&[("cors-allow-origin", "https://*.a.example"), CORS], "differs"),
        (&[("cors-allow-origin", "https://a.example, none"), CORS], "lost"),
        (&[("cors-allow-origin", "none"), CORS], "lost"),
        (&[("cors-allow-methods", "get, POST"), CORS], "taken"),
        (&[("cors-allow-methods", "GET; POST"), CORS], "lost"),
        (&[("cors-max-age", "600"), CORS], "taken"),
        (&[("cors-max-age", "long"), CORS], "lost"),
        (&[("cors-allow-credentials", "maybe"), CORS], "lost"),
        (&[("affinity-mode", "balanced"), SESSION], "taken"),
        (&[("affinity-mode", "persistent"), SESSION], "taken"),
        (&[("affinity-canary-behavior", "legacy"), SESSION], "taken"),
        (&[("affinity-canary-behavior", "sticky"), SESSION], "differs"),
        (&[("session-cookie-name", "a;b"), SESSION], "lost"),
        (&[("session-cookie-path", "/a"), SESSION], "taken"),
        (&[("session-cookie-path", "a; Secure"), SESSION], "lost"),
        (&[("session-cookie-max-age", "-1"), SESSION], "lost"),
        (&[("session-cookie-samesite", "Most"), SESSION], "lost"),
        (&[("session-cookie-change-on-failure", "true"), SESSION], "taken"),
        (&[("session-cookie-change-on-failure", "maybe"), SESSION], "lost"),
        (&[("session-cookie-change-on-failure", "false"), SESSION], "taken"),
        (&[("upstream-hash-by", "$remote_addr"), SESSION], "taken"),
        (&[BY_HEADER, CANARY], "taken"),
        (&[("canary-by-header", "x_canary"), CANARY], "lost"),
        (&[("canary-by-header", "x-forwarded-for"), CANARY], "lost"),
        (&[("canary-by-header-value", "yes"), CANARY, BY_HEADER], "taken"),
        (&[("canary-by-header-value", "yes"), CANARY], "taken"),
        (&[("canary-by-header-pattern", "^yes"), CANARY, BY_HEADER], "taken"),
        (&[("canary-by-header-pattern", "("), CANARY, BY_HEADER], "lost"),
        (&[("canary-by-cookie", "canary"), CANARY], "taken"),
        (&[("canary-weight", "many"), CANARY], "lost"),
        (&[("canary-weight-total", "0"), CANARY], "lost"),
        (&[("permanent-redirect", "odd"), ("temporal-redirect", "https://a.example$request_uri")], "taken"),
    ] {
        assert_eq!(verdict(annotations), expected, "{annotations:?}");
    }
}

#[test]
fn other_annotations_have_no_finding() {
    let annotations = [("kubernetes.io/ingress.class", "nginx"), ("nginx.org/rewrites", "x")];
    let annotations = annotations.iter().map(|(name, value)| (Box::from(*name), Box::from(*value))).collect();
    let plan = read_annotations("shop", &ingress(&["/"]), &annotations);
    assert_eq!(plan.findings, []);
    assert_eq!(plan.command.len() + plan.upstream.keys.len(), 0);
}

/// The match and the rewrite of a path, or `refused`.
fn rewritten(path: &str, annotations: &[(&str, &str)]) -> Value {
    let plan = plan(&[path], annotations);
    if plan.refuses() {
        return json!("refused");
    }
    let path = &plan.paths[0][0];
    match &path.rewrite {
        Some((key, value)) => json!([path.matched, { *key: value }]),
        None => json!([path.matched]),
    }
}

#[test]
fn rewrites_are_those_of_nginx_or_refused() {
    let prefix = |prefix: &str, new: &str| json!([{ "pathPrefix": prefix }, { "replacePrefixMatch": new }]);
    for (path, target, expected) in [
        ("/app(/|$)(.*)", "/$2", prefix("/app", "/")),
        ("/app(/|$)(.*)", "/v2/$2", prefix("/app", "/v2")),
        ("/app(?:/|$)(.*)", "/$1", prefix("/app", "/")),
        ("/app/(.*)", "/$1", prefix("/app", "/")),
        ("/a/b/(.*)", "/c/d/$1", prefix("/a/b", "/c/d")),
        ("/app/?(.*)", "/$1", prefix("/app", "/")),
        ("/app(/.*)?", "/v2$1", prefix("/app", "/v2")),
        ("/app(/.*|$)", "$1", prefix("/app", "/")),
        ("/app(.*)", "/v2$1", prefix("/app", "/v2")),
        ("/(.*)", "/$1", json!([{ "pathPrefix": "/" }])),
        ("/(.*)", "/v2/$1", prefix("/", "/v2")),
        ("/app/(.*)", "/app/$1", json!([{ "pathPrefix": "/app" }])),
        ("/app", "/", json!([{ "pathPrefix": "/app" }, { "path": "/" }])),
        ("/app", "/v2/x", json!([{ "pathPrefix": "/app" }, { "path": "/v2/x" }])),
        ("/", "/$2", json!([{ "pathPrefix": "/" }, { "path": "/" }])),
        ("/v[0-9]+", "/v", json!([{ "pathRegex": "(?i)(?:/v[0-9]+).*" }, { "path": "/v" }])),
        ("/(a|b)/(.*)", "/$2", json!("refused")),
        ("/(a|b)/(.*)", "/$1/$2", json!("refused")),
        ("/app(/|$)(.*)", "/$1$2", json!("refused")),
        ("/app(/|$)(.*)", "/$2/x", json!("refused")),
        ("/app/(.*)", "/x?y=$1", json!("refused")),
        ("/app", "/x?y=1", json!("refused")),
        ("/app", "https://a.example/x", json!("refused")),
        ("/app", "/$request_uri", json!("refused")),
        ("/a[", "/b", json!("refused")),
    ] {
        assert_eq!(rewritten(path, &[("rewrite-target", target), ("use-regex", "true")]), expected, "{path} {target}");
        assert_eq!(rewritten(path, &[("rewrite-target", target)]), expected, "{path} {target}, without use-regex");
    }
    // A target that is the path itself is no rewrite.
    for path in ["/app", "/"] {
        assert_eq!(rewritten(path, &[("rewrite-target", path)]), json!([{ "pathPrefix": path }]));
    }
}

#[test]
fn expressions_are_those_of_nginx_or_refused() {
    for (path, expected) in [
        ("/v[0-9]+/x", json!([{ "pathRegex": "(?i)(?:/v[0-9]+/x).*" }])),
        ("/plain", json!([{ "pathPrefix": "/plain" }])),
        ("/a|/b", json!([{ "pathRegex": "(?i)(?:/a|/b).*" }])),
        ("/(?!admin).*", json!("refused")),
        ("/(a)\\1", json!("refused")),
        ("/(", json!("refused")),
    ] {
        assert_eq!(rewritten(path, &[("use-regex", "true")]), expected, "{path}");
    }
    assert_eq!(rewritten("/v[0-9]+", &[("use-regex", "false")]), json!([{ "pathPrefix": "/v[0-9]+" }]));
}

#[test]
fn redirects_are_keys_of_the_command() {
    for (name, value, expected) in [
        ("permanent-redirect", "https://b.example/x", json!({ "location": "https://b.example/x", "status": 301 })),
        ("temporal-redirect", "https://b.example", json!({ "location": "https://b.example", "status": 302 })),
        (
            "permanent-redirect",
            "https://b.example:8443$request_uri",
            json!({ "scheme": "https", "host": "b.example", "port": 8443, "status": 301 }),
        ),
        ("temporal-redirect", "$scheme://b.example$request_uri", json!({ "host": "b.example", "status": 302 })),
    ] {
        assert_eq!(plan(&["/"], &[(name, value)]).redirects.whole, Some(expected), "{name}: {value}");
    }
    let both = [("permanent-redirect", "https://b.example/x"), ("permanent-redirect-code", "307")];
    assert_eq!(plan(&["/"], &both).redirects.whole.expect("a redirect")["status"], 307);
}

#[test]
fn keys_of_commands_follow_the_annotations() {
    for (annotations, key, expected) in [
        (
            &[("limit-rps", "10")][..],
            "addressLimits",
            json!({ "rates": [{ "rate": "10/s", "burst": 51 }], "status": 503 }),
        ),
        (
            &[("limit-rps", "1"), ("limit-rpm", "30"), ("limit-burst-multiplier", "2")],
            "addressLimits",
            json!({ "rates": [{ "rate": "1/s", "burst": 3 }, { "rate": "30/m", "burst": 61 }], "status": 503 }),
        ),
        (
            &[("limit-connections", "7"), ("limit-whitelist", "10.1.2.3/8,::1")],
            "addressLimits",
            json!({ "concurrent": 7, "except": ["10.0.0.0/8", "::1/128"], "status": 503 }),
        ),
        (&[("limit-rps", "0"), ("limit-whitelist", "10.0.0.0/8")], "addressLimits", Value::Null),
        (&[("limit-rate", "10")], "bandwidthLimit", json!({ "rate": "10KiB" })),
        (
            &[("limit-rate", "10"), ("limit-rate-after", "512"), BUFFERED],
            "bandwidthLimit",
            json!({ "rate": "10KiB", "after": "512KiB" }),
        ),
        (&[("limit-rate", "10"), ("limit-rate-after", "much")], "bandwidthLimit", json!({ "rate": "10KiB" })),
        (&[("limit-rate", "0"), ("limit-rate-after", "512")], "bandwidthLimit", Value::Null),
        (&[("limit-rate-after", "512")], "bandwidthLimit", Value::Null),
        (&[("limit-rate", "10"), ("backend-protocol", "GRPC")], "bandwidthLimit", Value::Null),
        (
            &[("whitelist-source-range", "10.0.0.0/8, 192.0.2.1"), ("denylist-source-range", "10.1.0.0/16")],
            "sources",
            json!({ "allow": ["10.0.0.0/8", "192.0.2.1/32"], "deny": ["10.1.0.0/16"] }),
        ),
        (&[("whitelist-source-range", "")], "sources", Value::Null),
        (&[("proxy-body-size", "8m")], "body", json!({ "max": "8388608B" })),
        (&[("proxy-body-size", "0")], "body", json!({ "max": "1024GiB" })),
        (&[("cors-allow-origin", "https://a.example")], "cors", Value::Null),
    ] {
        let plan = plan(&["/"], annotations);
        assert_eq!(plan.command.get(key).cloned().unwrap_or_default(), expected, "{annotations:?}");
    }
}

#[test]
fn cors_has_the_defaults_of_nginx() {
    let any = plan(&["/"], &[CORS]).command["cors"].clone();
    assert_eq!(
        (&any["origins"], &any["credentials"], &any["maxAge"]),
        (&json!(["*"]), &json!(false), &json!("1728000s"))
    );
    assert_eq!(any["methods"], json!(["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"]));
    assert_eq!(any["headers"].as_array().map(Vec::len), Some(9));
    let named = [CORS, ("cors-allow-origin", "HTTPS://A.example:443, http://*.b.example:8080")];
    let named = plan(&["/"], &named).command["cors"].clone();
    assert_eq!(named["origins"], json!(["https://a.example", "http://*.b.example:8080"]));
    assert_eq!(named["credentials"], true);
    let none = [CORS, ("cors-allow-origin", "none"), ("cors-allow-methods", "GET")];
    assert_eq!(plan(&["/"], &none).command.get("cors"), None);
}

#[test]
fn servers_are_called_as_the_annotations_say() {
    for (annotations, expected) in [
        (&[("proxy-connect-timeout", "3")][..], json!({ "timeouts": { "connect": "3s", "response": "60s" } })),
        (&[("proxy-read-timeout", "90")], json!({ "timeouts": { "response": "90s", "idle": "90s" } })),
        (&[("upstream-hash-by", "$http_x_user_id")], json!({ "balance": { "hash": { "header": "x-user-id" } } })),
        (&[("load-balance", "round_robin")], json!({ "balance": "roundRobin" })),
        (&[SESSION], json!({ "balance": { "cookie": { "name": "INGRESSCOOKIE" } } })),
        (
            &[
                SESSION,
                ("session-cookie-name", "route"),
                ("session-cookie-path", "/a"),
                ("session-cookie-domain", "a.example"),
                ("session-cookie-expires", "60"),
                ("session-cookie-max-age", "3600"),
                ("session-cookie-secure", "true"),
                ("session-cookie-samesite", "none"),
            ],
            json!({ "balance": { "cookie": {
                "name": "route", "path": "/a", "domain": "a.example", "maxAge": "3600s", "secure": true, "sameSite": "None",
            } } }),
        ),
        (
            &[SESSION, ("affinity-mode", "persistent"), ("session-cookie-change-on-failure", "true")],
            json!({ "balance": { "cookie": {
                "name": "INGRESSCOOKIE", "mode": "persistent", "changeOnFailure": true,
            } } }),
        ),
        (
            &[SESSION, ("affinity-mode", "balanced"), ("session-cookie-change-on-failure", "false")],
            json!({ "balance": { "cookie": { "name": "INGRESSCOOKIE" } } }),
        ),
        (&[("affinity-mode", "persistent"), ("session-cookie-change-on-failure", "true")], json!({})),
        (&[("proxy-send-timeout", "90")], json!({})),
    ] {
        assert_eq!(Value::Object(plan(&["/"], annotations).upstream.keys), expected, "{annotations:?}");
    }
    let plan = plan(&["/"], &[("backend-protocol", "GRPCS"), ("proxy-ssl-name", "in.example")]);
    let UpstreamPlan { is_http2, is_tls, secret, server_name, .. } = plan.upstream;
    assert_eq!((is_http2, is_tls, secret), (Some(true), true, None));
    assert_eq!(server_name.as_deref(), Some("in.example"));
}

#[test]
fn canaries_are_rules_before_weights() {
    let is = |name: &str, value: &str, to| (json!({ "name": name, "value": value }), to);
    for (annotations, rules, weight) in [
        (&[("canary-weight", "20")][..], vec![], (20, 100)),
        (&[("canary-weight", "20"), ("canary-weight-total", "50")], vec![], (20, 50)),
        (&[("canary-weight", "200")], vec![], (100, 100)),
        (&[BY_HEADER], vec![is("x-canary", "always", true), is("x-canary", "never", false)], (0, 100)),
        (&[BY_HEADER, ("canary-by-header-value", "eu")], vec![is("x-canary", "eu", true)], (0, 100)),
        (
            &[BY_HEADER, ("canary-by-header-pattern", "eu|us")],
            vec![(json!({ "name": "x-canary", "regex": ".*(?:eu|us).*" }), true)],
            (0, 100),
        ),
    ] {
        let annotations: Vec<(&str, &str)> = annotations.iter().copied().chain([CANARY]).collect();
        let canary = plan(&["/"], &annotations).canary.expect("a canary");
        let found: Vec<(Value, bool)> = canary.rules.into_iter().map(|rule| (rule.condition, rule.to_canary)).collect();
        assert_eq!((found, (canary.weight, canary.total)), (rules, weight), "{annotations:?}");
    }
    let cookie = plan(&["/"], &[CANARY, ("canary-by-cookie", "c")]).canary.expect("a canary");
    let regex = regex::Regex::new(&format!("^(?:{})$", cookie.rules[0].condition["regex"].as_str().expect("a regex")));
    let regex = regex.expect("a regular expression");
    for (field, fits) in [
        ("c=always", true),
        ("a=1; c=always", true),
        ("c=always; d=2", true),
        ("cc=always", false),
        ("c=alwaysx", false),
    ] {
        assert_eq!(regex.is_match(field), fits, "{field}");
    }
}

#[test]
fn client_authentication_follows_the_annotations() {
    for (annotations, expected) in [
        (&[][..], json!({})),
        (&[("auth-tls-verify-client", "optional")], json!({ "mode": "optional" })),
        (&[("auth-tls-verify-client", "optional_no_ca")], json!({ "mode": "anyAuthority" })),
        (&[("auth-tls-verify-depth", "3")], json!({ "maxDepth": 3 })),
        (&[("auth-tls-verify-depth", "0")], json!({ "maxDepth": 1 })),
        (&[("auth-tls-verify-depth", "1000")], json!({ "maxDepth": 100 })),
        (&[("auth-tls-pass-certificate-to-upstream", "true")], json!({ "forward": "certificate" })),
        (&[("auth-tls-error-page", "https://b.example/e")], json!({ "errorPage": "https://b.example/e" })),
        (&[("auth-tls-match-cn", "CN=a")], json!({ "subject": "CN=a" })),
    ] {
        let mut whole = json!({ "mode": "required", "refusal": "response", "maxDepth": 1, "forward": "names" });
        whole.as_object_mut().expect("a mapping").extend(expected.as_object().cloned().unwrap_or_default());
        let annotations: Vec<(&str, &str)> = annotations.iter().copied().chain([AUTH]).collect();
        let auth = plan(&["/"], &annotations).client_auth.expect("client authentication");
        assert_eq!((auth.secret.as_str(), auth.settings), ("ca", whole), "{annotations:?}");
    }
    assert_eq!(plan(&["/"], &[AUTH, ("auth-tls-verify-client", "off")]).client_auth, None);
}

#[test]
fn client_certificates_need_a_host_of_their_own() {
    for (spec, is_refused) in [
        (json!({ "rules": [{ "host": "a.example" }] }), false),
        (json!({ "rules": [{ "host": "*.example" }] }), true),
        (json!({ "rules": [{}] }), true),
        (json!({}), true),
        (json!({ "rules": [{ "host": "a.example" }], "defaultBackend": { "service": { "name": "web" } } }), true),
    ] {
        let ingress: Ingress = parse_object(json!({ "spec": spec })).expect("an Ingress");
        let annotations = [(format!("{PREFIX}auth-tls-secret").into(), "shop/ca".into())].into();
        let plan = read_annotations("shop", &ingress, &annotations);
        assert_eq!(plan.refuses(), is_refused, "{spec}");
    }
}

#[test]
fn global_values_are_judged() {
    for (name, value, expected) in [
        ("proxy-body-size", "8m", (FindingVerdict::Lost, false)),
        ("ssl-redirect", "false", (FindingVerdict::Differs, false)),
        ("whitelist-source-range", "10.0.0.0/8", (FindingVerdict::Lost, true)),
        ("use-proxy-protocol", "true", (FindingVerdict::Differs, false)),
        ("something-new", "x", (FindingVerdict::Lost, false)),
    ] {
        let findings = global_findings([(name, value)].into_iter());
        assert_eq!((findings[0].verdict, findings[0].refuses), expected, "{name}");
    }
}
