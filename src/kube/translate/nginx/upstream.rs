//! How servers are called: protocol, TLS, timeouts and load balancing.
//!
//! Guarantees: a server with TLS is always verified; there is no way to skip it.
//!
//! Leaves to others: the Secret with authorities and certificate (`ingresses`).

use serde_json::{Map, Value, json};

use super::annotation_reader::AnnotationReader;
use super::session_cookie::read_session;
use super::values::{is_host, parse_seconds, parse_switch};

/// `proxy-read-timeout` without the annotation.
const RESPONSE_TIMEOUT: &str = "60s";

/// How the servers of an Ingress are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::kube::translate) struct UpstreamPlan {
    /// HTTP/2 (gRPC), or HTTP/1.1; `None` for what the Service says.
    pub(in crate::kube::translate) is_http2: Option<bool>,
    pub(in crate::kube::translate) is_tls: bool,
    /// The Secret with `ca.crt`, and with the certificate that servers are shown, in the namespace of the Ingress.
    pub(in crate::kube::translate) secret: Option<String>,
    /// The name that the certificate of servers must hold.
    pub(in crate::kube::translate) server_name: Option<String>,
    /// The keys `timeouts` and `balance` of the backend.
    pub(in crate::kube::translate) keys: Map<String, Value>,
}

pub(super) fn read_upstream(reader: &mut AnnotationReader<'_>) -> UpstreamPlan {
    let mut plan = UpstreamPlan::default();
    read_protocol(reader, &mut plan);
    read_tls(reader, &mut plan);
    let mut timeouts = read_timeouts(reader);
    if !timeouts.is_empty() {
        timeouts.entry("response").or_insert_with(|| json!(RESPONSE_TIMEOUT));
        plan.keys.insert("timeouts".to_owned(), Value::Object(timeouts));
    }
    if let Some(balance) = read_balance(reader) {
        plan.keys.insert("balance".to_owned(), balance);
    }
    plan
}

fn read_protocol(reader: &mut AnnotationReader<'_>, plan: &mut UpstreamPlan) {
    let Some(text) = reader.value("backend-protocol") else { return };
    match text.to_ascii_uppercase().as_str() {
        "HTTP" => {
            plan.is_http2 = Some(false);
            reader.taken("backend-protocol", "HTTP/1.1");
        }
        "GRPC" => {
            plan.is_http2 = Some(true);
            reader.taken("backend-protocol", "HTTP/2 with prior knowledge");
        }
        secure @ ("HTTPS" | "GRPCS") => {
            plan.is_http2 = Some(secure == "GRPCS");
            plan.is_tls = true;
            let sentence = "servers are always verified: by ca.crt of proxy-ssl-secret or the system's authorities, \
                            and by proxy-ssl-name or SERVICE.NAMESPACE.svc";
            reader.differs("backend-protocol", sentence);
        }
        "AUTO_HTTP" => reader.differs("backend-protocol", "the appProtocol of the Service decides"),
        _ => reader.refused("backend-protocol", "only HTTP, HTTPS, GRPC and GRPCS are supported"),
    }
}

fn read_tls(reader: &mut AnnotationReader<'_>, plan: &mut UpstreamPlan) {
    let names = ["secret", "name", "verify", "server-name", "verify-depth", "ciphers", "protocols"];
    if !plan.is_tls {
        for name in names {
            reader.taken(&format!("proxy-ssl-{name}"), "has no effect without backend-protocol HTTPS or GRPCS");
        }
        return;
    }
    plan.secret = reader.own_object("proxy-ssl-secret");
    if plan.secret.is_some() {
        reader.taken("proxy-ssl-secret", "the authorities of servers, and the certificate that they are shown");
    }
    plan.server_name = reader.parsed("proxy-ssl-name", "a host name", |text| is_host(text).then(|| text.to_owned()));
    reader.taken("proxy-ssl-name", "the name that the certificate of servers must hold");
    match reader.value("proxy-ssl-verify").map(parse_switch) {
        Some(Some(true)) => reader.taken("proxy-ssl-verify", "servers are verified"),
        _ => reader.differs("proxy-ssl-verify", "servers are always verified"),
    }
    match reader.value("proxy-ssl-server-name").map(parse_switch) {
        Some(Some(true)) => reader.taken("proxy-ssl-server-name", "the name is sent (SNI)"),
        _ => reader.differs("proxy-ssl-server-name", "the name is always sent (SNI)"),
    }
    reader.differs("proxy-ssl-verify-depth", "chains may have as many certificates as the authority allows");
    reader.differs("proxy-ssl-ciphers", "the ciphers of the gateway are used: TLS 1.2 and 1.3 without weak ones");
    reader.differs("proxy-ssl-protocols", "TLS 1.2 and 1.3");
}

fn read_timeouts(reader: &mut AnnotationReader<'_>) -> Map<String, Value> {
    let mut timeouts = Map::new();
    let expected = "whole seconds above 0";
    if let Some(seconds) = reader.parsed("proxy-connect-timeout", expected, parse_seconds) {
        timeouts.insert("connect".to_owned(), json!(format!("{seconds}s")));
        reader.taken("proxy-connect-timeout", "the connect timeout");
    }
    if let Some(seconds) = reader.parsed("proxy-read-timeout", expected, parse_seconds) {
        timeouts.insert("response".to_owned(), json!(format!("{seconds}s")));
        timeouts.insert("idle".to_owned(), json!(format!("{seconds}s")));
        reader.taken("proxy-read-timeout", "the timeout of the response head, and between two pieces of a body");
    }
    if reader.parsed("proxy-send-timeout", expected, parse_seconds).is_some() {
        let sentence = "there is no timeout between two writes to a server; proxy-read-timeout bounds the wait";
        reader.differs("proxy-send-timeout", sentence);
    }
    timeouts
}

fn read_balance(reader: &mut AnnotationReader<'_>) -> Option<Value> {
    if let Some(session) = read_session(reader) {
        for name in ["upstream-hash-by", "load-balance"] {
            reader.taken(name, "affinity: cookie takes precedence, as in ingress-nginx");
        }
        return Some(session);
    }
    let by_hash = reader.value("upstream-hash-by").filter(|text| !text.is_empty());
    let header = by_hash.and_then(|text| text.strip_prefix("$http_")).map(|name| name.replace('_', "-"));
    let is_name = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if let Some(header) = header.filter(|name| !name.is_empty() && is_name(name)) {
        reader.taken("upstream-hash-by", "servers are chosen by the hash of this field");
        reader.taken("load-balance", "upstream-hash-by takes precedence");
        return Some(json!({ "hash": { "header": header } }));
    }
    match by_hash {
        Some(_) => reader.lost("upstream-hash-by", "only one header field ($http_NAME) can be hashed"),
        None => reader.taken("upstream-hash-by", "empty"),
    }
    match reader.value("load-balance")? {
        "round_robin" => {
            reader.taken("load-balance", "roundRobin");
            Some(json!("roundRobin"))
        }
        _ => {
            reader.differs("load-balance", "leastRequest is used: the server with fewer requests in flight");
            None
        }
    }
}
