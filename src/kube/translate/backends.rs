//! Backends: Services with their endpoints, as groups of servers of the configuration.
//!
//! Guarantees:
//! - A reference that leads nowhere is answered with 500 for its share, and is a condition of its route.
//! - A Service without endpoints is answered with 503 for its share.
//! - All routes that use a Service in the same way share one backend, and so its connections.
//!
//! Leaves to others: the choice of endpoints (`index`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::names;
use super::references::{BrokenReference, Referent, Referrer, check_permission};
use crate::kube::index::Index;
use crate::kube::objects::{BackendReference, ObjectKey, ServicePort};

/// The longest wait for the head of a response, unless the route sets a timeout: that of nginx (`proxy_read_timeout`).
const RESPONSE_TIMEOUT: &str = "60s";

/// The backends of the configuration, by their ids.
#[derive(Debug, Default)]
pub(super) struct BackendSet(BTreeMap<String, BackendDocument>);

/// A backend of the configuration.
#[derive(Debug)]
pub(super) struct BackendDocument {
    /// The Service, for messages.
    pub(super) service: ObjectKey,
    pub(super) document: Value,
}

/// The protocol towards the endpoints of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendProtocol {
    Http1,
    Http2,
}

/// A backend that a rule may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvedBackend {
    pub(super) id: String,
    pub(super) protocol: BackendProtocol,
}

impl BackendSet {
    /// The backends in the order of their ids.
    pub(super) fn into_documents(self) -> impl Iterator<Item = BackendDocument> {
        self.0.into_values()
    }

    /// The backend of a reference.
    ///
    /// # Errors
    /// The reason why it leads nowhere: `InvalidKind`, `RefNotPermitted`, `BackendNotFound` or `UnsupportedProtocol`.
    pub(super) fn resolve(
        &mut self,
        index: &Index,
        from: Referrer<'_>,
        reference: &BackendReference,
    ) -> Result<ResolvedBackend, BrokenReference> {
        let BackendReference { group, kind, name, namespace, port, .. } = reference;
        if (&**group, &**kind) != ("", "Service") {
            let message = format!("a backend is a Service of the core group, not {kind} of {group:?}");
            return Err(BrokenReference { reason: "InvalidKind", message });
        }
        let key = check_permission(index, from, Referent { group, kind, namespace: namespace.as_deref(), name })?;
        let not_found = |message: String| BrokenReference { reason: "BackendNotFound", message };
        let service = index.services().valid(&key).ok_or_else(|| not_found(format!("there is no Service {key}")))?;
        if &*service.spec.kind == "ExternalName" {
            let message = format!("the Service {key} is an ExternalName: it could name any host, so it is refused");
            return Err(BrokenReference { reason: "UnsupportedValue", message });
        }
        let number = port.ok_or_else(|| not_found(format!("the reference to the Service {key} names no port")))?;
        let port = service.port(number);
        let port = port.ok_or_else(|| not_found(format!("the Service {key} has no TCP port {number}")))?;
        let protocol = protocol_of(port, from.kind)
            .map_err(|message| BrokenReference { reason: "UnsupportedProtocol", message })?;
        Ok(self.add(index, &key, number, protocol))
    }

    fn add(&mut self, index: &Index, service: &ObjectKey, port: u16, protocol: BackendProtocol) -> ResolvedBackend {
        let (variant, word) = match protocol {
            BackendProtocol::Http1 => ("", "http1"),
            BackendProtocol::Http2 => ("h2", "http2"),
        };
        let id = names::backend(service, port, variant);
        self.0.entry(id.clone()).or_insert_with(|| {
            let addresses = index.endpoints_of(&service.namespace, &service.name, port);
            let upstreams: Vec<Value> =
                addresses.iter().map(|address| json!({ "url": format!("http://{address}") })).collect();
            let timeouts = json!({ "response": RESPONSE_TIMEOUT });
            let document = json!({ "id": id, "upstreams": upstreams, "protocol": word, "timeouts": timeouts });
            BackendDocument { service: service.clone(), document }
        });
        ResolvedBackend { id, protocol }
    }
}

/// The protocol of a port, by its `appProtocol` (KEP-3726). gRPC needs HTTP/2.
fn protocol_of(port: &ServicePort, route_kind: &str) -> Result<BackendProtocol, String> {
    match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c" | "grpc" | "h2c" | "http2") => Ok(BackendProtocol::Http2),
        _ if route_kind == "GRPCRoute" => Ok(BackendProtocol::Http2),
        None | Some("http" | "ws" | "kubernetes.io/ws" | "tcp") => Ok(BackendProtocol::Http1),
        Some(other) => Err(format!(
            "the port {} has the appProtocol {other}, which is not supported; use kubernetes.io/h2c, kubernetes.io/ws \
             or none",
            port.port
        )),
    }
}
