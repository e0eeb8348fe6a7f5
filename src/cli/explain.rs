//! `tallygate explain`: shows what the gateway would do with a request, and why.
//!
//! Guarantees:
//! - Each step is the gateway's own check (handshake, head, department, route, grant), in the gateway's order.
//! - Only checks that depend on the moment (limits, quota, health) are left out. The output lists them.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use http::{HeaderName, HeaderValue, Method, Request, Uri};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde::Serialize;

use crate::clock::Clock;
use crate::config::{self, Configuration, ListenerSettings};
use crate::identity::{
    CertificateFault, CertificateRefusal, ShownCertificate, describe_tls_error, identities_of_der, read_certificates,
};
use crate::model::{
    CallerId, CommandKey, Name, NameInterner, Quota, QuotaAction, RateLimit, RateUnit, Refused, TrafficLimits,
};
use crate::policy::{
    Backend, BackendShare, CallerOrigin, CallerUnclaimed, Command, CommandBackends, CommandMatch, CommandTimeouts,
    ConnectionMatch, DepartmentPolicy, DownstreamProtocol, GrantOrigin, MirrorTarget, PolicySnapshot, RedirectTarget,
    RequestUrl, RouteMatch, RouteRequest, ShareTarget, Subsystem, UpstreamServer, UsagePage,
};
use crate::proxy::RequestHead;
use crate::telemetry::HandshakeFailure;

use super::check::problems_text;
use super::{BadUsage, NOT_SO, OutputFormat, print_message};

/// The pseudo-outcome of a request whose TLS handshake would fail.
const HANDSHAKE_OUTCOME: &str = "handshake";
/// The ports of URLs without a port.
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// The decision of the gateway, step by step.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestExplanation {
    /// The identities in the certificate.
    caller: Vec<String>,
    /// The department that claims them.
    department: Option<String>,
    subsystem: Option<String>,
    command: Option<String>,
    /// The conditions of the match that was taken. After a rejection: those of the matches at this path, each with
    /// whether it holds.
    conditions: Vec<String>,
    /// The grant that allows the command.
    grant: Option<String>,
    /// The limits that could still reject the request, narrowest first.
    limits: Vec<String>,
    upstreams: Vec<String>,
    /// The request timeout and the attempt timeout of the command, if it has any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timeouts: Vec<String>,
    /// The path that the subsystem receives.
    forwarded_path: Option<String>,
    /// The host that the subsystem receives, if it is not the one of the request.
    forwarded_host: Option<String>,
    /// The subsystems that get copies, each with its fraction of the requests.
    mirrors: Vec<String>,
    /// The outcome of a rejection. It is `handshake` if the connection would fail, in which case nothing would be
    /// counted.
    refused: Option<&'static str>,
    /// The decision in one sentence.
    why: String,
}

/// A client certificate as a caller would present it. Empty if the caller presents none.
#[derive(Default)]
struct CallerCertificate {
    /// The chain, with the caller's own certificate first.
    chain: Vec<CertificateDer<'static>>,
    identities: Vec<CallerId>,
}

/// Arguments of `tallygate explain`: the caller and its request.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The caller's certificate; without it, a caller that presents none
    #[arg(long, value_name = "PEM")]
    cert: Option<PathBuf>,
    /// A method and a URL, such as 'POST https://host/path'
    #[arg(long, value_name = "REQUEST")]
    request: String,
    /// A field of the request, such as 'Version: two'; may be repeated
    #[arg(long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
}

/// Explains a request of a caller. The exit code is:
/// - 0 if the request would be admitted;
/// - 1 if it would be rejected or the configuration has problems;
/// - 2 if the certificate or the request cannot be read.
pub fn explain(args: &ExplainArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let configuration = match config::load_configuration(&args.config, &NameInterner::default(), clock) {
        Ok(configuration) => configuration,
        Err(problems) => {
            match args.format {
                OutputFormat::Json => writeln!(out, "{:#}", serde_json::json!({ "problems": problems.0 }))?,
                OutputFormat::Table => print_message(&problems_text(&args.config, &problems)),
            }
            return Ok(ExitCode::from(NOT_SO));
        }
    };
    let (shown, request) = read_inputs(args).map_err(BadUsage)?;
    let explanation = match find_listener(&configuration, &shown, &request, clock.wall()) {
        Err(why) => RequestExplanation { refused: Some(HANDSHAKE_OUTCOME), why, ..new_explanation(&shown.identities) },
        Ok((_, HandshakeVerdict::Refused(refusal))) => refused_certificate(&shown.identities, &refusal),
        Ok((origin, HandshakeVerdict::Accepted)) => decide(&configuration, (&shown.identities, origin), &request),
        Ok((origin, HandshakeVerdict::Unaccepted(reason))) => {
            let decided = decide(&configuration, (&[], origin), &request);
            let why = format!(
                "{}; its certificate is not accepted ({reason}), so it counts as a caller without one",
                decided.why
            );
            RequestExplanation { why, ..decided }
        }
    };
    match args.format {
        OutputFormat::Json => writeln!(out, "{:#}", serde_json::json!(explanation))?,
        OutputFormat::Table => writeln!(out, "{}", explanation_text(&explanation))?,
    }
    Ok(if explanation.refused.is_some() { ExitCode::from(NOT_SO) } else { ExitCode::SUCCESS })
}

fn read_inputs(args: &ExplainArgs) -> Result<(CallerCertificate, Request<()>), String> {
    let request = read_request(&args.request, &args.headers)?;
    let Some(cert) = &args.cert else { return Ok((CallerCertificate::default(), request)) };
    let chain = read_certificates(cert, "the caller's certificate").map_err(|problem| problem.to_string())?;
    let own = chain.first().ok_or_else(|| format!("{}: contains no certificate", cert.display()))?;
    let identities = identities_of_der(own).map_err(|error| format!("{}: {error}", cert.display()))?;
    Ok((CallerCertificate { chain, identities }, request))
}

/// The listener that accepts the caller, among those with the scheme and the port of the request. Among all with the
/// scheme, if none has the port, which a load balancer may have changed. An error has the reason of each listener why
/// the connection would fail.
fn find_listener<'a>(
    configuration: &'a Configuration,
    shown: &CallerCertificate,
    request: &Request<()>,
    now: Timestamp,
) -> Result<(CallerOrigin<'a>, HandshakeVerdict), String> {
    let is_https = request.uri().scheme_str() != Some("http");
    let port = request.uri().port_u16().unwrap_or(if is_https { HTTPS_PORT } else { HTTP_PORT });
    let is_alike = |listener: &&ListenerSettings| (listener.protocol != DownstreamProtocol::Http) == is_https;
    let alike: Vec<_> = configuration.settings.listeners.iter().filter(is_alike).collect();
    let named: Vec<_> = alike.iter().copied().filter(|listener| listener.address.port() == port).collect();
    let candidates = if named.is_empty() { alike } else { named };
    let mut against = Vec::new();
    for listener in candidates {
        match check_listener((&listener.name, configuration), shown, request.uri().host().unwrap_or_default(), now) {
            Ok(accepted) => return Ok(accepted),
            Err(why) => against.push(why),
        }
    }
    if against.is_empty() {
        against.push(format!("no listener uses {}", if is_https { "https" } else { "http" }));
    }
    Err(against.join("; "))
}

/// The verdict of a handshake that succeeds.
enum HandshakeVerdict {
    /// On the caller's certificate, or on its absence.
    Accepted,
    /// The certificate is not accepted, for this reason, but the caller is (`allowInsecureFallback`, `anyAuthority`).
    Unaccepted(String),
    /// Every request is refused because of the certificate, or of its absence.
    Refused(CertificateRefusal),
}

/// The refusal of a request because of the caller's certificate.
fn refused_certificate(identities: &[CallerId], refusal: &CertificateRefusal) -> RequestExplanation {
    let (refused, fault) = match refusal.fault {
        CertificateFault::Missing => (Refused::Unauthenticated, "the listener requires a client certificate"),
        CertificateFault::NotAccepted => (Refused::Unauthenticated, "the client certificate is not accepted"),
        CertificateFault::OtherSubject => (Refused::Forbidden, "the client certificate has another subject"),
    };
    let why = match &refusal.error_page {
        Some(page) => format!("{fault}; the request is redirected to {page}"),
        None => format!("{fault}; the request is refused after the handshake"),
    };
    RequestExplanation { refused: Some(refused.name()), why, ..new_explanation(identities) }
}

fn check_listener<'a>(
    (listener, configuration): (&'a Name, &'a Configuration),
    shown: &CallerCertificate,
    host: &str,
    now: Timestamp,
) -> Result<(CallerOrigin<'a>, HandshakeVerdict), String> {
    // A caller sends the host as its server name (SNI), unless the host is an IP address (RFC 6066 section 3).
    let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    let server_name = (!is_address).then_some(host);
    let found = configuration.snapshot.find_connection(listener, server_name);
    if let ConnectionMatch::Command { subsystem, .. } = found {
        return Err(format!("listener {listener} forwards TLS connections for {host:?} to {}: no HTTP", subsystem.id));
    }
    let Some((_, tls)) = configuration.tls.listeners.iter().find(|(name, _)| name == listener) else {
        return match found {
            ConnectionMatch::None => Err(format!("listener {listener} takes no HTTP (protocol: tls)")),
            _ => Ok((CallerOrigin::listener(listener), HandshakeVerdict::Accepted)), // plain HTTP
        };
    };
    let served = tls.hosts.hosts_for_sni(server_name).is_some_and(|served| served.covers(host));
    let Some(trust) = tls.trust_for_sni(server_name).filter(|_| served) else {
        return Err(format!("listener {listener} serves {} and not {host:?}", tls.hosts));
    };
    let origin = CallerOrigin { listener, realm: trust.realm(), refuses_unclaimed: trust.refuses_unclaimed() };
    if shown.chain.is_empty() {
        let refused = format!("listener {listener} requires a client certificate, and --cert names none");
        if trust.requires_certificates() {
            return Err(refused);
        }
        let refusal = trust.refuse_requests(ShownCertificate::None);
        return Ok((origin, refusal.map_or(HandshakeVerdict::Accepted, HandshakeVerdict::Refused)));
    }
    let Err(fault) = trust.verify_chain(&shown.chain, now) else {
        let refusal = shown.chain.first().and_then(|leaf| trust.refuse_requests(ShownCertificate::Verified(leaf)));
        return Ok((origin, refusal.map_or(HandshakeVerdict::Accepted, HandshakeVerdict::Refused)));
    };
    let reason = describe_tls_error(&fault);
    if let Some(certificate) = trust.tolerated(&shown.chain, &fault) {
        let refusal = trust.refuse_requests(ShownCertificate::Unaccepted(&certificate));
        return Ok((origin, refusal.map_or(HandshakeVerdict::Unaccepted(reason), HandshakeVerdict::Refused)));
    }
    let name = HandshakeFailure::from_tls_error(&fault).name();
    Err(format!("listener {listener} rejects this certificate in the handshake: {name} ({reason})"))
}

fn read_request(text: &str, headers: &[String]) -> Result<Request<()>, String> {
    let bad = || format!("{text:?} is not a request; write a method and a URL, such as 'POST https://host/path'");
    let (method, url) = text.split_once(' ').ok_or_else(bad)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad())?;
    let uri: Uri = url.trim().parse().map_err(|_| bad())?;
    uri.authority().ok_or_else(bad)?;
    let mut request = Request::builder().method(method).uri(uri).body(()).map_err(|_| bad())?;
    for text in headers {
        let (name, value) = read_field(text)?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

fn read_field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let field = text.split_once(':').and_then(|(name, value)| {
        let value = HeaderValue::from_str(value.trim_matches([' ', '\t'])).ok()?;
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    });
    field.ok_or_else(|| format!("{text:?} is not a field; write a name and a value, such as 'Version: two'"))
}

fn new_explanation(identities: &[CallerId]) -> RequestExplanation {
    RequestExplanation { caller: identities.iter().map(ToString::to_string).collect(), ..Default::default() }
}

/// The department of the caller. An error is the reason why no department claims it.
fn find_department<'a>(
    snapshot: &'a PolicySnapshot,
    identities: &[CallerId],
    origin: CallerOrigin<'_>,
) -> Result<&'a DepartmentPolicy, String> {
    let listener = origin.listener;
    let claimed = match identities {
        [] => snapshot.anonymous_department(listener),
        _ => snapshot.certified_department(origin, identities),
    };
    claimed.map(|department| &**department).map_err(|unclaimed| match unclaimed {
        CallerUnclaimed::NoDepartment if identities.is_empty() => {
            format!("no department has callers without a certificate on the listener {listener}")
        }
        unclaimed => unclaimed_text(&unclaimed),
    })
}

/// The steps of the gateway in their order, up to the first rejection.
fn decide(
    configuration: &Configuration,
    (identities, origin): (&[CallerId], CallerOrigin<'_>),
    request: &Request<()>,
) -> RequestExplanation {
    let snapshot = &configuration.snapshot;
    let mut explanation = new_explanation(identities);
    let head = match RequestHead::parse(request) {
        Ok(head) => head,
        Err(malformed) => return refused_explanation(explanation, Refused::Malformed, malformed.detail.to_owned()),
    };
    let department = match find_department(snapshot, identities, origin) {
        Ok(department) => department,
        Err(why) => return refused_explanation(explanation, Refused::Unauthenticated, why),
    };
    explanation.department = Some(format!("{} ({})", department.department.id, department.department.name));
    if let Some(page) = snapshot.usage_page.as_ref().filter(|_| UsagePage::is_at(head.path)) {
        let has_certificate = snapshot.claimed_identity(identities, origin.realm).is_some();
        return explain_usage_page(explanation, page, (head.method, has_certificate));
    }
    let wanted = head.route_request(origin.listener);
    let (subsystem, command) = match snapshot.find_route(&wanted) {
        RouteMatch::Command { subsystem, command, matched } => {
            explanation.command = Some(command_text(command, matched));
            explanation.conditions = conditions_of_match(command, matched, &wanted);
            (subsystem, command)
        }
        RouteMatch::NoCommand { subsystem } => {
            explanation.subsystem = Some(subsystem.id.to_string());
            explanation.conditions = conditions_at_path(snapshot, &wanted);
            let why =
                format!("no command of {} matches this method and path, and otherCommands is refuse", subsystem.id);
            return refused_explanation(explanation, Refused::UnknownCommand, why);
        }
        RouteMatch::NoSubsystem => {
            explanation.conditions = conditions_at_path(snapshot, &wanted);
            let why = "no subsystem matches this host and path".to_owned();
            return refused_explanation(explanation, Refused::UnknownCommand, why);
        }
    };
    explanation.subsystem = Some(subsystem.id.to_string());
    let Some(grant) = snapshot.find_grant(department, command) else {
        let why = format!("no grant allows {} to run {}", department.department.id, command.key.command);
        return refused_explanation(explanation, Refused::Forbidden, why);
    };
    explanation.grant = snapshot.grant_origin(&grant).map(|GrantOrigin { index, pattern }| {
        let written = configuration.sources.path_in_file(&format!("grants[{index}]"));
        format!("{written}, pattern {pattern:?}")
    });
    explanation.limits = limit_texts(snapshot, department, command);
    admitted_explanation(
        explanation,
        snapshot,
        (subsystem, command),
        (head, request.uri(), snapshot.public_port(origin.listener)),
    )
}

/// The response to a command that every check admits: a redirect, or that of its subsystem.
/// The page on which a department reads its own usage: no route and no grant leads to it.
fn explain_usage_page(
    mut explanation: RequestExplanation,
    page: &UsagePage,
    (method, has_certificate): (&Method, bool),
) -> RequestExplanation {
    explanation.subsystem = Some(page.subsystem.id.to_string());
    explanation.command = Some(page.command.key.command.to_string());
    if !UsagePage::has_method(method) {
        let why = format!("the usage page has the methods {}", UsagePage::METHODS);
        return refused_explanation(explanation, Refused::UnknownCommand, why);
    }
    if !has_certificate {
        let why = "only callers with a certificate of a department can read its usage".to_owned();
        return refused_explanation(explanation, Refused::Forbidden, why);
    }
    explanation.limits = texts_of_limits("department, of this page", page.command.limits);
    explanation.why = "the gateway would answer it with the usage of the department (usagePage)".to_owned();
    explanation
}

fn admitted_explanation(
    mut explanation: RequestExplanation,
    snapshot: &PolicySnapshot,
    (subsystem, command): (&Subsystem, &Command),
    (head, uri, public_port): (RequestHead<'_>, &Uri, Option<u16>),
) -> RequestExplanation {
    match command.redirect() {
        Some(redirect) => {
            let location = redirect_location(redirect, subsystem, (head, uri), public_port);
            let status = redirect.status.as_u16();
            explanation.why = format!("it would be admitted, counted and redirected to {location} with {status}");
        }
        None => {
            explanation.upstreams = upstream_texts(snapshot, subsystem, command);
            explanation.timeouts = timeout_texts(command.timeouts);
            explanation.forwarded_path = Some(forwarded_path(subsystem, command, head.path));
            explanation.forwarded_host = command.forwarded_host().map(field_text);
            explanation.mirrors = mirror_texts(snapshot, command);
            explanation.why =
                "it would be admitted, counted and forwarded, unless a limit refuses it at that moment".to_owned();
        }
    }
    explanation
}

/// The location of a redirect. The query is left out, as it is of the other paths.
fn redirect_location(
    redirect: &RedirectTarget,
    subsystem: &Subsystem,
    (head, uri): (RequestHead<'_>, &Uri),
    public_port: Option<u16>,
) -> String {
    let authority = field_text(&head.host_header());
    let location = redirect.location(RequestUrl {
        scheme: uri.scheme_str().unwrap_or("https"),
        authority: &authority,
        public_port,
        target: head.path,
        below: subsystem.path_below(head.path),
    });
    location.as_ref().map(field_text).unwrap_or_default()
}

fn field_text(value: &HeaderValue) -> String {
    value.to_str().unwrap_or_default().to_owned()
}

/// The upstream servers. Those of other backends than the subsystem's own follow the id of their backend, with its
/// weight if there are several backends.
fn upstream_texts(snapshot: &PolicySnapshot, subsystem: &Subsystem, command: &Command) -> Vec<String> {
    let servers_of = |number: u32| snapshot.backend(number).map(|backend| (backend, server_texts(backend)));
    match &command.backends {
        CommandBackends::None => Vec::new(),
        CommandBackends::One(number) => match servers_of(*number) {
            Some((backend, servers)) if backend.id == subsystem.id => servers,
            Some((backend, servers)) => vec![format!("{}: {}", backend.id, servers_text(&servers))],
            None => Vec::new(),
        },
        CommandBackends::Weighted(weighted) => {
            let text = |share: &BackendShare| match share.target {
                ShareTarget::Backend(number) => servers_of(number).map(|(backend, servers)| {
                    format!("{} (weight {}): {}", backend.id, share.weight, servers_text(&servers))
                }),
                ShareTarget::Status(status) => Some(format!("status {} (weight {})", status.as_u16(), share.weight)),
            };
            weighted.shares.iter().filter_map(text).collect()
        }
    }
}

fn servers_text(servers: &[String]) -> String {
    if servers.is_empty() { "no servers".to_owned() } else { servers.join(" ") }
}

/// The servers of a backend, with their weights if the weights differ.
fn server_texts(backend: &Backend) -> Vec<String> {
    let servers = &backend.upstreams;
    let are_alike = servers.windows(2).all(|two| two[0].weight == two[1].weight);
    let shown = |upstream: &UpstreamServer| match are_alike {
        true => upstream.authority.clone(),
        false => format!("{} (weight {})", upstream.authority, upstream.weight),
    };
    servers.iter().map(shown).collect()
}

fn mirror_texts(snapshot: &PolicySnapshot, command: &Command) -> Vec<String> {
    let text = |target: &MirrorTarget| {
        let backend = snapshot.backend(target.backend)?;
        Some(format!("{} ({})", backend.id, target.fraction))
    };
    command.mirrors().iter().filter_map(text).collect()
}

fn timeout_texts(timeouts: CommandTimeouts) -> Vec<String> {
    let named = [("request", timeouts.request), ("attempt", timeouts.attempt)];
    named.into_iter().filter_map(|(name, timeout)| Some(format!("{name}: {:?}", timeout?))).collect()
}

fn refused_explanation(explanation: RequestExplanation, refused: Refused, why: String) -> RequestExplanation {
    RequestExplanation { refused: Some(refused.name()), why, ..explanation }
}

fn unclaimed_text(unclaimed: &CallerUnclaimed) -> String {
    match unclaimed {
        CallerUnclaimed::NoDepartment => "no department claims any identity of this certificate".to_owned(),
        CallerUnclaimed::Several(one, other) => format!("both {one} and {other} claim identities of this certificate"),
        CallerUnclaimed::Disabled(department) => format!("the department {department} is disabled"),
    }
}

fn command_text(command: &Command, matched: Option<usize>) -> String {
    let id = &command.key.command;
    match matched.and_then(|position| command.matches.get(position)) {
        Some(matched) => {
            format!("{id} ({}; {} units, body up to {} bytes)", match_text(matched), command.units, command.body_max)
        }
        None => format!("{id} (otherCommands: allow; {} units)", command.units),
    }
}

fn match_text(matched: &CommandMatch) -> String {
    let method = matched.method.as_ref().map_or("any method", |method| method.as_str());
    format!("{method} {}", matched.path)
}

/// The conditions beside method and path of the match that was taken.
fn conditions_of_match(command: &Command, matched: Option<usize>, request: &RouteRequest<'_>) -> Vec<String> {
    let matched = matched.and_then(|position| command.matches.get(position));
    let conditions = matched.into_iter().flat_map(|matched| {
        let method = usize::from(matched.method.is_some());
        matched.condition_results(request).into_iter().skip(method)
    });
    conditions.map(|(condition, _)| condition).collect()
}

/// The conditions of all matches at the path of a request that no command accepts, each with whether it holds.
fn conditions_at_path(snapshot: &PolicySnapshot, request: &RouteRequest<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    for subsystem in snapshot.subsystems_at(request) {
        let below = Some(subsystem.path_below(request.path)).filter(|below| !below.is_empty()).unwrap_or("/");
        let matches = subsystem.commands.iter().flat_map(|command| command.matches.iter().map(move |m| (command, m)));
        for (command, matched) in matches.filter(|(_, matched)| matched.path.fits(below)) {
            let results = matched.condition_results(request).into_iter();
            let results: Vec<_> = results
                .map(|(text, holds)| format!("{text} {}", if holds { "holds" } else { "does not hold" }))
                .collect();
            let CommandKey { subsystem, command, .. } = &command.key;
            texts.push(format!("{subsystem}/{command} ({}): {}", matched.path, results.join(", ")));
        }
    }
    texts
}

fn forwarded_path(subsystem: &Subsystem, command: &Command, path: &str) -> String {
    let target = subsystem.forwarded_target(command, path);
    if target.is_empty() { "/".to_owned() } else { target.into_owned() }
}

fn limit_texts(snapshot: &PolicySnapshot, department: &DepartmentPolicy, command: &Command) -> Vec<String> {
    let mut texts = texts_of_limits("department and command", snapshot.limits_on(department, command));
    texts.extend(texts_of_limits("department", department.limits));
    texts.extend(texts_of_limits("whole gateway", TrafficLimits { rate: snapshot.total_rate, concurrent: None }));
    texts.extend(department.quotas.iter().map(quota_text));
    texts
}

fn texts_of_limits(whose: &str, limits: TrafficLimits) -> Vec<String> {
    let concurrent = limits.concurrent.map(|count| format!("{whose}: {count} concurrent"));
    let rate = limits.rate.map(|rate| format!("{whose}: {}", rate_text(rate)));
    concurrent.into_iter().chain(rate).collect()
}

fn rate_text(rate: RateLimit) -> String {
    let unit = match rate.unit {
        RateUnit::Second => "s",
        RateUnit::Minute => "m",
        RateUnit::Hour => "h",
    };
    format!("{}/{unit}, burst {}", rate.count, rate.burst)
}

fn quota_text(quota: &Quota) -> String {
    let beyond = match quota.exceeded {
        QuotaAction::Refuse => "refused beyond",
        QuotaAction::Allow => "allowed beyond",
    };
    format!("quota: {} {} a {}, {beyond}", quota.amount, quota.kind.measure.name(), quota.kind.per.name())
}

fn explanation_text(explanation: &RequestExplanation) -> String {
    let verdict = explanation.refused.map_or("admitted".to_owned(), |refused| format!("refused: {refused}"));
    let rows = [
        ("caller", Some(caller_text(&explanation.caller))),
        ("department", explanation.department.clone()),
        ("subsystem", explanation.subsystem.clone()),
        ("command", explanation.command.clone()),
        ("conditions", (!explanation.conditions.is_empty()).then(|| list_text(&explanation.conditions))),
        ("grant", explanation.grant.clone()),
        ("limits", explanation.refused.is_none().then(|| list_text(&explanation.limits))),
        ("upstream", explanation.refused.is_none().then(|| list_text(&explanation.upstreams))),
        ("timeouts", (!explanation.timeouts.is_empty()).then(|| list_text(&explanation.timeouts))),
        ("sent path", explanation.forwarded_path.clone()),
        ("sent host", explanation.forwarded_host.clone()),
        ("copies to", (!explanation.mirrors.is_empty()).then(|| list_text(&explanation.mirrors))),
        ("verdict", Some(verdict)),
        ("why", Some(explanation.why.clone())),
    ];
    let lines: Vec<_> = rows.into_iter().filter_map(|(name, value)| Some(format!("{name:<11} {}", value?))).collect();
    lines.join("\n")
}

fn caller_text(identities: &[String]) -> String {
    if identities.is_empty() { "without a certificate".to_owned() } else { identities.join(", ") }
}

fn list_text(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join("\n            ") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::test_fixtures::{EXAMPLE, compile_valid};

    fn listener() -> Name {
        Name::parse("departments").expect("a name")
    }

    fn explained(uri: &str, request: &str) -> RequestExplanation {
        decide(
            &compile_valid(EXAMPLE),
            (&[CallerId::Uri(uri.to_owned())], CallerOrigin::listener(&listener())),
            &read_request(request, &[]).expect("a request"),
        )
    }

    #[test]
    fn every_step_can_refuse_with_its_reason() {
        let police = "spiffe://city.example/department/traffic-police";
        let submit = "POST https://gateway.city.example:8443/cameras/v1/snapshots?x=1";
        for (uri, request, refused) in [
            (police, submit, None),
            ("spiffe://elsewhere", submit, Some("unauthenticated")),
            (police, "PUT https://gateway.city.example/cameras/v1/snapshots", Some("unknown_command")),
            (police, "POST https://gateway.city.example/parking", Some("unknown_command")),
            (police, "GET https://gateway.city.example/cameras/v1/snapshots/a%2Fb", Some("malformed")),
            (police, "GET https://gateway.city.example/cameras/../v1/snapshots", Some("malformed")),
            (police, "GET https://gateway.city.example/cameras//v1/snapshots/1", Some("malformed")),
            ("spiffe://elsewhere", "GET https://gateway.city.example//", Some("malformed")),
        ] {
            assert_eq!(explained(uri, request).refused, refused, "{uri} {request}");
        }
        let explanation = explained(police, submit);
        assert_eq!(explanation.grant.as_deref(), Some("grants[0], pattern \"snapshot.*\""));
        assert_eq!(explanation.forwarded_path.as_deref(), Some("/v1/snapshots"));
        assert_eq!(explanation.limits.len(), 5, "{:?}", explanation.limits);
        assert!(explanation_text(&explanation).contains("verdict     admitted"));
    }

    #[test]
    fn weights_are_shown_where_they_differ() {
        let police = "spiffe://city.example/department/traffic-police";
        let submit = "POST https://gateway.city.example:8443/cameras/v1/snapshots";
        assert_eq!(explained(police, submit).upstreams, ["127.0.0.1:9001"]);
        let text = EXAMPLE.replace("9001\" }", "9001\", weight: 9 }, { url: \"http://127.0.0.1:9002\" }");
        let read = compile_valid(&text);
        let explanation = decide(
            &read,
            (&[CallerId::Uri(police.to_owned())], CallerOrigin::listener(&listener())),
            &read_request(submit, &[]).expect("a request"),
        );
        assert_eq!(explanation.upstreams, ["127.0.0.1:9001 (weight 9)", "127.0.0.1:9002 (weight 1)"]);
    }

    #[test]
    fn forwarded_host_and_copies_are_shown_where_configured() {
        let police = "spiffe://city.example/department/traffic-police";
        let submit = "POST https://gateway.city.example:8443/cameras/v1/snapshots";
        let plain = explained(police, submit);
        assert_eq!((plain.forwarded_host, plain.mirrors.len()), (None, 0));
        let settings = "rewrite: { host: cameras.internal, prefix: /a }\n        \
                        mirror: { subsystem: lab, fraction: { numerator: 1, denominator: 3 } }";
        let explanation = explained_with(settings, submit);
        assert_eq!(explanation.forwarded_path.as_deref(), Some("/a/v1/snapshots"));
        let text = explanation_text(&explanation);
        for row in ["sent host   cameras.internal", "copies to   lab (1 of 3)"] {
            assert!(text.contains(row), "{row} is not in: {text}");
        }
    }

    #[test]
    fn redirect_location_is_shown_for_the_requested_url() {
        for (port, location) in [
            (":8443", "https://new.example:8443/cameras/v1/snapshots"),
            ("", "https://new.example/cameras/v1/snapshots"),
        ] {
            let request = format!("POST https://gateway.city.example{port}/cameras/v1/snapshots?x=1");
            let why = explained_with("redirect: { host: new.example, status: 302 }", &request).why;
            assert!(why.ends_with(&format!("redirected to {location} with 302")), "{why}");
        }
    }

    /// Explains a request of the traffic police to the example, with further settings of its first command, and with a
    /// further subsystem, `lab`.
    fn explained_with(settings: &str, request: &str) -> RequestExplanation {
        let police = CallerId::Uri("spiffe://city.example/department/traffic-police".to_owned());
        let lab = "  - { id: lab, path: /lab, upstreams: [{ url: \"http://127.0.0.1:1\" }], otherCommands: allow }";
        let text = EXAMPLE.replacen("body: { max: 16MiB }", settings, 1);
        let read = compile_valid(&text.replacen("\ngrants:", &format!("\n{lab}\ngrants:"), 1));
        decide(&read, (&[police], CallerOrigin::listener(&listener())), &read_request(request, &[]).expect("a request"))
    }

    #[test]
    fn timeouts_are_shown_where_a_command_has_them() {
        let police = CallerId::Uri("spiffe://city.example/department/traffic-police".to_owned());
        let submit =
            read_request("POST https://gateway.city.example:8443/cameras/v1/snapshots", &[]).expect("a request");
        let text_of = |text: &str| {
            explanation_text(&decide(
                &compile_valid(text),
                (std::slice::from_ref(&police), CallerOrigin::listener(&listener())),
                &submit,
            ))
        };
        assert!(!text_of(EXAMPLE).contains("timeouts"));
        let text = text_of(&EXAMPLE.replace("connect: 2s", "connect: 2s, request: 1500ms, attempt: 300ms"));
        assert!(text.contains("timeouts    request: 1.5s\n            attempt: 300ms\n"), "{text}");
    }

    #[test]
    fn request_is_a_method_and_an_absolute_url() {
        for text in ["POST", "POST /path", "https://host/path", "P(ST https://host/"] {
            assert!(read_request(text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn conditions_are_told_with_what_holds() {
        let police = "spiffe://city.example/department/traffic-police";
        let text = include_str!("../config/testdata/example.yaml").replace(
            "match: { method: POST, path: /v1/snapshots }",
            "match:
          - { method: PUT, path: /v1/x }
          - method: POST
            pathPrefix: /v1/snapshots
            headers: [{ name: Version, value: \"2\" }]
            query: [{ name: x, present: true }]",
        );
        let read = config::compile_text(&text, Path::new("/"), &NameInterner::default()).expect("no problems");
        let told = |headers: &[&str]| {
            let headers: Vec<_> = headers.iter().map(|text| (*text).to_owned()).collect();
            let submit = "POST https://gateway.city.example:8443/cameras/v1/snapshots/a?x=1";
            decide(
                &read,
                (&[CallerId::Uri(police.to_owned())], CallerOrigin::listener(&listener())),
                &read_request(submit, &headers).expect("a request"),
            )
        };
        let matched = told(&["version: 2"]);
        assert_eq!(matched.refused, None);
        let command = matched.command.unwrap_or_default();
        assert!(command.starts_with("snapshot.submit (POST pathPrefix /v1/snapshots;"), "{command}");
        assert_eq!(matched.conditions, ["header version = \"2\"", "query x present"]);
        let refused = told(&["version: 3"]);
        assert_eq!(refused.refused, Some("unknown_command"));
        let expected = [
            "cameras/snapshot.submit (pathPrefix /v1/snapshots): method POST holds, header version = \"2\" does not hold, \
             query x present holds",
            "cameras/snapshot.read (/v1/snapshots/{id}): method GET does not hold",
        ];
        assert_eq!(refused.conditions, expected);
        assert!(explanation_text(&refused).contains("conditions  cameras/snapshot.submit"));
        assert!(read_request("GET https://a/", &["version".to_owned()]).is_err());
    }
}
