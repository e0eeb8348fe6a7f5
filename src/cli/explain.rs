//! `tallygate explain`: what the gateway would do with a request, and why.
//!
//! Guarantees: each step is the gateway's own judgement (handshake, head, department, route, grant), in its order. Only
//! what depends on the moment (limits, quota, health) is left out, and listed.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::{Method, Request, Uri};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde::Serialize;

use crate::clock::Clock;
use crate::config::{self, Configuration, ListenerSettings, Settings};
use crate::identity::{certificates_of_file, fault_in_words, identities_of_der};
use crate::model::{CallerId, Exceeded, Limits, Numbers, Quota, Rate, RateUnit, Refused};
use crate::policy::{Command, DepartmentPolicy, Route, Snapshot, Subsystem, Unclaimed, Upstream};
use crate::proxy::Head;
use crate::telemetry::HandshakeFailure;

use super::check::for_people;
use super::{AnswerFormat, BadUsage, NOT_SO, tell};

/// What stands for an outcome where there would be no connection.
const HANDSHAKE: &str = "handshake";
/// Where a URL without a port leads.
const HTTPS_PORT: u16 = 443;

/// What the gateway would do, step by step.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    /// The certificate's identities.
    caller: Vec<String>,
    /// The department that claims them.
    department: Option<String>,
    subsystem: Option<String>,
    command: Option<String>,
    /// The rule that allows it.
    grant: Option<String>,
    /// What could still refuse it, narrowest first.
    limits: Vec<String>,
    upstreams: Vec<String>,
    /// The path the subsystem sees.
    forwarded_path: Option<String>,
    /// The outcome of a refusal; `handshake` if there would be no connection at all, and so nothing to count.
    refused: Option<&'static str>,
    /// The verdict in a sentence.
    why: String,
}

/// A certificate as a caller would show it.
struct Shown {
    /// Its own certificate first.
    chain: Vec<CertificateDer<'static>>,
    identities: Vec<CallerId>,
}

/// Whose request, and what it asks for.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The caller's certificate
    #[arg(long, value_name = "PEM")]
    cert: PathBuf,
    /// A method and a URL, such as 'POST https://host/path'
    #[arg(long, value_name = "REQUEST")]
    request: String,
    /// How the explanation is printed
    #[arg(long, value_enum, default_value_t)]
    format: AnswerFormat,
}

/// Explains a request of a caller. Exit code 0 if it would be let in, 1 if it would be refused or the configuration has
/// problems, 2 if the certificate or the request cannot be read.
pub fn explain(args: &ExplainArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let configuration = match config::load(&args.config, &Numbers::default()) {
        Ok(configuration) => configuration,
        Err(problems) => {
            match args.format {
                AnswerFormat::Json => writeln!(out, "{:#}", serde_json::json!({ "problems": problems.0 }))?,
                AnswerFormat::Table => tell(&for_people(&args.config, &problems)),
            }
            return Ok(ExitCode::from(NOT_SO));
        }
    };
    let (shown, request) = read_inputs(&args.cert, &args.request).map_err(BadUsage)?;
    let explanation = match turned_away(&configuration.settings, &shown, &request, Clock::system().wall()) {
        Some(why) => Explanation { refused: Some(HANDSHAKE), why, ..told_of(&shown.identities) },
        None => decide(&configuration, &shown.identities, &request),
    };
    match args.format {
        AnswerFormat::Json => writeln!(out, "{:#}", serde_json::json!(explanation))?,
        AnswerFormat::Table => writeln!(out, "{}", text(&explanation))?,
    }
    Ok(if explanation.refused.is_some() { ExitCode::from(NOT_SO) } else { ExitCode::SUCCESS })
}

fn read_inputs(cert: &Path, request: &str) -> Result<(Shown, Request<()>), String> {
    let chain = certificates_of_file(cert, "the caller's certificate").map_err(|problem| problem.to_string())?;
    let own = chain.first().ok_or_else(|| format!("{}: holds no certificate", cert.display()))?;
    let identities = identities_of_der(own).map_err(|error| format!("{}: {error}", cert.display()))?;
    Ok((Shown { chain, identities }, read_request(request)?))
}

/// Why there would be no connection: the judgement of the listeners that the request could come in by.
fn turned_away(settings: &Settings, shown: &Shown, request: &Request<()>, now: Timestamp) -> Option<String> {
    let port = request.uri().port_u16().unwrap_or(HTTPS_PORT);
    let listens = |listener: &&ListenerSettings| listener.address.port() == port;
    let named: Vec<_> = settings.listeners.iter().filter(listens).collect();
    let asked = if named.is_empty() { settings.listeners.iter().collect() } else { named };
    let mut against = Vec::new();
    for listener in asked {
        match judged_by(listener, shown, request.uri().host().unwrap_or_default(), now) {
            Ok(()) => return None,
            Err(why) => against.push(why),
        }
    }
    Some(against.join("; "))
}

fn judged_by(listener: &ListenerSettings, shown: &Shown, host: &str, now: Timestamp) -> Result<(), String> {
    // Its files were read a moment ago; if they are gone by now, that is what is told.
    let tls = listener.tls.load(now).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        format!("listener {} cannot be used: {}", listener.name, problems.join("; "))
    })?;
    // A caller names the host in its handshake, unless that is an address (RFC 6066 section 3).
    let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    let served = tls.names.bind((!is_address).then_some(host));
    if !served.is_some_and(|served| served.covers(host)) {
        return Err(format!("listener {} serves {} and not {host:?}", listener.name, tls.names));
    }
    tls.judge(&shown.chain, now).map_err(|fault| {
        let reason = HandshakeFailure::of_fault(&fault).name();
        let fault = fault_in_words(&fault);
        format!("listener {} turns this certificate away in the handshake: {reason} ({fault})", listener.name)
    })
}

fn read_request(text: &str) -> Result<Request<()>, String> {
    let bad = || format!("{text:?} is not a request; write a method and a URL, such as 'POST https://host/path'");
    let (method, url) = text.split_once(' ').ok_or_else(bad)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad())?;
    let uri: Uri = url.trim().parse().map_err(|_| bad())?;
    uri.authority().ok_or_else(bad)?;
    Request::builder().method(method).uri(uri).body(()).map_err(|_| bad())
}

fn told_of(identities: &[CallerId]) -> Explanation {
    Explanation { caller: identities.iter().map(ToString::to_string).collect(), ..Default::default() }
}

/// The gateway's own steps, in their order, until one says no.
fn decide(configuration: &Configuration, identities: &[CallerId], request: &Request<()>) -> Explanation {
    let snapshot = &configuration.snapshot;
    let mut told = told_of(identities);
    let head = match Head::read(request) {
        Ok(head) => head,
        Err(malformed) => return refuse(told, Refused::Malformed, malformed.detail.to_owned()),
    };
    let department = match snapshot.department_of(identities) {
        Ok(department) => department,
        Err(unclaimed) => return refuse(told, Refused::Unauthenticated, nobody(&unclaimed)),
    };
    told.department = Some(format!("{} ({})", department.department.id, department.department.name));
    let (subsystem, command) = match snapshot.route(head.host, head.method, head.path) {
        Route::Command { subsystem, command } => (subsystem, command),
        Route::NoCommand { subsystem } => {
            told.subsystem = Some(subsystem.id.to_string());
            let why = format!("no command of {} answers to this method and path, and it refuses others", subsystem.id);
            return refuse(told, Refused::UnknownCommand, why);
        }
        Route::NoSubsystem => {
            let why = "no subsystem takes this host and path".to_owned();
            return refuse(told, Refused::UnknownCommand, why);
        }
    };
    told.subsystem = Some(subsystem.id.to_string());
    told.command = Some(shown_command(command));
    let Some(grant) = snapshot.grant(department, command) else {
        let why = format!("no grant lets {} run {}", department.department.id, command.key.command);
        return refuse(told, Refused::Forbidden, why);
    };
    let pattern = &snapshot.rule(&grant).pattern;
    let written = configuration.sources.written(&format!("grants[{}]", grant.rule()));
    told.grant = Some(format!("{written}, pattern {pattern:?}"));
    told.limits = limits(snapshot, department, command);
    if let Some(redirect) = command.redirect() {
        let location = redirect.location(subsystem.below(head.path));
        let location = location.as_ref().and_then(|location| location.to_str().ok()).unwrap_or_default();
        told.why = format!("it would be let in, counted and sent to {location} with {}", redirect.status.as_u16());
        return told;
    }
    told.upstreams = upstreams(subsystem);
    told.forwarded_path = Some(forwarded_path(subsystem, command, head.path));
    told.why = "it would be let in, counted and forwarded, unless a limit says no at that moment".to_owned();
    told
}

/// The servers, with their weights where these differ.
fn upstreams(subsystem: &Subsystem) -> Vec<String> {
    let servers = &subsystem.upstreams;
    let are_alike = servers.windows(2).all(|two| two[0].weight == two[1].weight);
    let shown = |upstream: &Upstream| match are_alike {
        true => upstream.authority.clone(),
        false => format!("{} (weight {})", upstream.authority, upstream.weight),
    };
    servers.iter().map(shown).collect()
}

fn refuse(told: Explanation, refused: Refused, why: String) -> Explanation {
    Explanation { refused: Some(refused.name()), why, ..told }
}

fn nobody(unclaimed: &Unclaimed) -> String {
    match unclaimed {
        Unclaimed::Nobody => "no department claims any identity of this certificate".to_owned(),
        Unclaimed::Several(one, other) => format!("both {one} and {other} claim identities of this certificate"),
        Unclaimed::Disabled(department) => format!("the department {department} is disabled"),
    }
}

fn shown_command(command: &Command) -> String {
    let id = &command.key.command;
    let method = command.method.as_ref().map_or("any method", |method| method.as_str());
    match &command.path {
        Some(path) => format!("{id} ({method} {path}; {} units, body up to {} bytes)", command.units, command.body_max),
        None => format!("{id} (otherCommands: allow; {} units)", command.units),
    }
}

fn forwarded_path(subsystem: &Subsystem, command: &Command, path: &str) -> String {
    let target = subsystem.target(command, path);
    if target.is_empty() { "/".to_owned() } else { target.into_owned() }
}

fn limits(snapshot: &Snapshot, department: &DepartmentPolicy, command: &Command) -> Vec<String> {
    let mut told = limits_of("department and command", command.limits);
    told.extend(limits_of("department", department.limits));
    told.extend(limits_of("whole gateway", Limits { rate: snapshot.total, concurrent: None }));
    told.extend(department.quota.as_ref().map(shown_quota));
    told
}

fn limits_of(whose: &str, limits: Limits) -> Vec<String> {
    let concurrent = limits.concurrent.map(|count| format!("{whose}: {count} at once"));
    let rate = limits.rate.map(|rate| format!("{whose}: {}", shown_rate(rate)));
    concurrent.into_iter().chain(rate).collect()
}

fn shown_rate(rate: Rate) -> String {
    let unit = match rate.unit {
        RateUnit::Second => "s",
        RateUnit::Minute => "m",
        RateUnit::Hour => "h",
    };
    format!("{}/{unit}, burst {}", rate.count, rate.burst)
}

fn shown_quota(quota: &Quota) -> String {
    let beyond = match quota.exceeded {
        Exceeded::Refuse => "refused beyond",
        Exceeded::Allow => "allowed beyond",
    };
    format!("quota: {} units a month, {beyond}", quota.units)
}

fn text(told: &Explanation) -> String {
    let verdict = told.refused.map_or("admitted".to_owned(), |refused| format!("refused: {refused}"));
    let rows = [
        ("caller", Some(told.caller.join(", "))),
        ("department", told.department.clone()),
        ("subsystem", told.subsystem.clone()),
        ("command", told.command.clone()),
        ("grant", told.grant.clone()),
        ("limits", told.refused.is_none().then(|| list(&told.limits))),
        ("upstream", told.refused.is_none().then(|| list(&told.upstreams))),
        ("path there", told.forwarded_path.clone()),
        ("verdict", Some(verdict)),
        ("why", Some(told.why.clone())),
    ];
    let lines: Vec<_> = rows.into_iter().filter_map(|(name, value)| Some(format!("{name:<11} {}", value?))).collect();
    lines.join("\n")
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join("\n            ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(uri: &str, request: &str) -> Explanation {
        let text = include_str!("../config/testdata/example.yaml");
        let read = config::compile(text, Path::new("/"), &Numbers::default()).expect("no problems");
        decide(&read, &[CallerId::Uri(uri.to_owned())], &read_request(request).expect("a request"))
    }

    #[test]
    fn every_step_can_say_no_and_says_why() {
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
        let told = explained(police, submit);
        assert_eq!(told.grant.as_deref(), Some("grants[0], pattern \"snapshot.*\""));
        assert_eq!(told.forwarded_path.as_deref(), Some("/v1/snapshots"));
        assert_eq!(told.limits.len(), 5, "{:?}", told.limits);
        assert!(text(&told).contains("verdict     admitted"));
    }

    #[test]
    fn weights_are_shown_where_they_differ() {
        let police = "spiffe://city.example/department/traffic-police";
        let submit = "POST https://gateway.city.example:8443/cameras/v1/snapshots";
        assert_eq!(explained(police, submit).upstreams, ["127.0.0.1:9001"]);
        let text = include_str!("../config/testdata/example.yaml")
            .replace("9001\" }", "9001\", weight: 9 }, { url: \"http://127.0.0.1:9002\" }");
        let read = config::compile(&text, Path::new("/"), &Numbers::default()).expect("no problems");
        let told = decide(&read, &[CallerId::Uri(police.to_owned())], &read_request(submit).expect("a request"));
        assert_eq!(told.upstreams, ["127.0.0.1:9001 (weight 9)", "127.0.0.1:9002 (weight 1)"]);
    }

    #[test]
    fn a_request_is_a_method_and_a_whole_url() {
        for text in ["POST", "POST /path", "https://host/path", "P(ST https://host/"] {
            assert!(read_request(text).is_err(), "{text}");
        }
    }
}
