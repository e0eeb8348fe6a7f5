//! Backends: Services, as groups of servers of the configuration.
//!
//! Guarantees:
//! - A reference that leads nowhere is answered with 500 for its share, and is a condition of its route.
//! - A Service without endpoints is answered with 503 for its share. Its endpoints are no part of the configuration:
//!   they reach the data plane by themselves.
//! - All routes that use a Service in the same way share one backend, and so its connections.
//! - What an object uses is recorded, so that its translation can be taken again without resolving references.
//!
//! Leaves to others: the choice of endpoints (`index`), and their way (`controller`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::backend_tls::{PolicyOutcome, TlsPolicies};
use super::certificates::CertificateTexts;
use super::named_document::NamedDocument;
use super::names;
use super::references::{BrokenReference, Referent, Referrer, check_permission};
use crate::kube::index::Index;
use crate::kube::objects::{BackendReference, ObjectKey, ServicePort};

/// The longest wait for the head of a response, unless the route sets a timeout: that of nginx (`proxy_read_timeout`).
const RESPONSE_TIMEOUT: &str = "60s";

/// Backends by their ids.
pub(super) type BackendMap = HashMap<Arc<str>, Arc<BackendDocument>>;

/// The backends of the configuration.
#[derive(Debug, Default)]
pub(super) struct BackendSet {
    /// Those that are used, in the order of their first use.
    documents: Vec<Arc<BackendDocument>>,
    used: BackendMap,
    /// Those that were resolved, and are perhaps not used yet.
    resolved: BackendMap,
    /// Those of the last translation.
    before: BackendMap,
    policies: TlsPolicies,
    user: BackendUser,
    uses: BackendUses,
}

/// What an object uses, or several: a translation depends on nothing else of Services.
#[derive(Debug, Default)]
pub(super) struct BackendUses {
    /// The Services that were looked up, those that are missing included.
    services: Vec<ObjectKey>,
    backends: Vec<Arc<BackendDocument>>,
    /// The Services with policies, each with the Gateways that use it.
    policies: Vec<(ObjectKey, Vec<ObjectKey>)>,
}

impl BackendUses {
    /// Whether one of these Services was looked up.
    pub(super) fn has_one_of(&self, services: &HashSet<ObjectKey>) -> bool {
        self.services.iter().any(|service| services.contains(service))
    }

    /// All of several uses, each once, in the order of their first mention.
    pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let (mut services, mut backends, mut policies) = (HashSet::new(), HashSet::new(), HashSet::new());
        Self {
            services: all
                .clone()
                .flat_map(|uses| &uses.services)
                .filter(|one| services.insert(*one))
                .cloned()
                .collect(),
            backends: all
                .clone()
                .flat_map(|uses| &uses.backends)
                .filter(|one| backends.insert(Arc::as_ptr(one)))
                .map(Arc::clone)
                .collect(),
            policies: all.flat_map(|uses| &uses.policies).filter(|one| policies.insert(*one)).cloned().collect(),
        }
    }
}

/// Who uses the backends that are resolved next.
#[derive(Clone, Debug, Default)]
pub(super) struct BackendUser {
    /// The Gateways of the route.
    pub(super) gateways: Vec<ObjectKey>,
    /// The certificate that the Gateway shows to backends with TLS.
    pub(super) client_certificate: Option<CertificateTexts>,
    /// What the user says about its backends.
    pub(super) overrides: BackendOverrides,
    /// Whether the user passes the TLS of its callers through: the gateway adds none of its own.
    pub(super) is_passthrough: bool,
}

/// What annotations say about backends, instead of Services and policies. Other words are another backend, with
/// connections of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct BackendOverrides {
    pub(super) protocol: Option<BackendProtocol>,
    /// The keys of `tls`; without `serverName` it is the name of the Service.
    pub(super) tls: Option<Value>,
    /// Further keys of the backend.
    pub(super) keys: Map<String, Value>,
}

impl BackendOverrides {
    fn variant(&self) -> Option<String> {
        let text = format!("{:?} {:?} {:?}", self.protocol, self.tls, self.keys);
        let is_empty = self.protocol.is_none() && self.tls.is_none() && self.keys.is_empty();
        (!is_empty).then(|| names::short_hash(&text))
    }

    fn tls_of(&self, service: &ObjectKey) -> Option<Value> {
        let mut tls = self.tls.clone()?;
        if tls.get("serverName").is_none() {
            tls["serverName"] = json!(format!("{}.{}.svc", service.name, service.namespace));
        }
        Some(tls)
    }
}

/// A backend of the configuration.
#[derive(Debug)]
pub(super) struct BackendDocument {
    id: Arc<str>,
    /// The Service whose endpoints it names.
    pub(super) service: ObjectKey,
    pub(super) document: Arc<NamedDocument>,
}

/// The protocol towards the endpoints of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendProtocol {
    Http1,
    Http2,
    /// The bytes of TLS connections.
    Tcp,
}

/// A backend that a rule may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvedBackend {
    pub(super) id: String,
    pub(super) protocol: BackendProtocol,
}

impl BackendSet {
    /// No backends yet. `before` has those of the last translation.
    pub(super) fn new(policies: TlsPolicies, before: BackendMap) -> Self {
        Self { policies, before, ..Self::default() }
    }

    /// Sets who uses the backends that are resolved from now on.
    pub(super) fn set_user(&mut self, user: BackendUser) {
        self.user = user;
    }

    /// What was resolved since the last call. It counts as used once it is added.
    pub(super) fn take_uses(&mut self) -> BackendUses {
        std::mem::take(&mut self.uses)
    }

    /// Adds what an object uses, or several.
    pub(super) fn add_uses(&mut self, uses: &BackendUses) {
        uses.backends.iter().for_each(|backend| self.add_document(backend));
        uses.policies.iter().for_each(|(service, gateways)| self.policies.mark_used(service, gateways));
    }

    /// The backends in the order of their first use and by their ids, and the policies with their conditions.
    pub(super) fn into_parts(self) -> (Vec<Arc<BackendDocument>>, BackendMap, Vec<PolicyOutcome>) {
        (self.documents, self.used, self.policies.into_outcomes())
    }

    fn add_document(&mut self, backend: &Arc<BackendDocument>) {
        if !self.used.contains_key(&backend.id) {
            self.used.insert(Arc::clone(&backend.id), Arc::clone(backend));
            self.documents.push(Arc::clone(backend));
        }
    }

    /// The backend of a reference, without retries.
    ///
    /// # Errors
    /// As [`BackendSet::resolve_with`].
    pub(super) fn resolve(
        &mut self,
        index: &Index,
        from: Referrer<'_>,
        reference: &BackendReference,
    ) -> Result<ResolvedBackend, BrokenReference> {
        self.resolve_with(index, from, reference, None)
    }

    /// The backend of a reference. Other retries are another backend, with connections of its own.
    ///
    /// # Errors
    /// The reason why it leads nowhere: `InvalidKind`, `RefNotPermitted`, `BackendNotFound` or `UnsupportedProtocol`.
    pub(super) fn resolve_with(
        &mut self,
        index: &Index,
        from: Referrer<'_>,
        reference: &BackendReference,
        retries: Option<&Value>,
    ) -> Result<ResolvedBackend, BrokenReference> {
        let BackendReference { group, kind, name, namespace, port, .. } = reference;
        if (&**group, &**kind) != ("", "Service") {
            let message = format!("a backend is a Service of the core group, not {kind} of {group:?}");
            return Err(BrokenReference { reason: "InvalidKind", message });
        }
        let key = check_permission(index, from, Referent { group, kind, namespace: namespace.as_deref(), name })?;
        let not_found = |message: String| BrokenReference { reason: "BackendNotFound", message };
        self.uses.services.push(key.clone());
        let service = index.services().valid(&key).ok_or_else(|| not_found(format!("there is no Service {key}")))?;
        if &*service.spec.kind == "ExternalName" {
            let message = format!("the Service {key} is an ExternalName: it could name any host, so it is refused");
            return Err(BrokenReference { reason: "UnsupportedValue", message });
        }
        let number = port.ok_or_else(|| not_found(format!("the reference to the Service {key} names no port")))?;
        let port = service.port(number);
        let port = port.ok_or_else(|| not_found(format!("the Service {key} has no TCP port {number}")))?;
        let protocol = match self.user.overrides.protocol {
            Some(protocol) => protocol,
            None => protocol_of(port, from.kind)
                .map_err(|message| BrokenReference { reason: "UnsupportedProtocol", message })?,
        };
        let tls = match self.user.overrides.tls_of(&key) {
            Some(tls) => Some(tls),
            None if self.user.is_passthrough => None,
            None => self.policy_tls(&key, &port.name)?,
        };
        Ok(self.add((&key, port), protocol, (tls, retries)))
    }

    /// What the policies say about a port of a Service.
    fn policy_tls(&mut self, service: &ObjectKey, port_name: &str) -> Result<Option<Value>, BrokenReference> {
        if self.policies.has_target(service) {
            self.policies.mark_used(service, &self.user.gateways);
            self.uses.policies.push((service.clone(), self.user.gateways.clone()));
        }
        self.policies.tls_of(service, port_name)
    }

    fn add(
        &mut self,
        (service, port): (&ObjectKey, &ServicePort),
        protocol: BackendProtocol,
        (mut tls, retries): (Option<Value>, Option<&Value>),
    ) -> ResolvedBackend {
        let (mut variant, word) = match protocol {
            BackendProtocol::Http1 => (String::new(), "http1"),
            BackendProtocol::Http2 => ("h2".to_owned(), "http2"),
            BackendProtocol::Tcp if tls.is_none() => ("tcp".to_owned(), "tcp"),
            BackendProtocol::Tcp => ("tls".to_owned(), "tcp"),
        };
        if let (Some(tls), Some(texts)) = (&mut tls, &self.user.client_certificate) {
            tls["certificate"] = json!(texts.certificate);
            tls["key"] = json!(texts.key);
            variant += &format!("-{}", names::short_hash(&texts.certificate)); // connections of their own
        }
        if let Some(retries) = retries {
            variant += &format!("-r{}", names::short_hash(&retries.to_string()));
        }
        if let Some(hash) = self.user.overrides.variant() {
            variant += &format!("-n{hash}");
        }
        let id = names::backend(service, port.port, &variant);
        let backend = match self.resolved.get(id.as_str()) {
            Some(known) => Arc::clone(known),
            None => self.new_backend(&id, (service, port), (protocol, word), (tls, retries)),
        };
        self.resolved.insert(Arc::clone(&backend.id), Arc::clone(&backend));
        self.uses.backends.push(backend);
        ResolvedBackend { id, protocol }
    }

    /// A backend that no other object has used yet: that of the last translation, if it is the same.
    fn new_backend(
        &self,
        id: &str,
        (service, port): (&ObjectKey, &ServicePort),
        (protocol, word): (BackendProtocol, &str),
        (tls, retries): (Option<Value>, Option<&Value>),
    ) -> Arc<BackendDocument> {
        let endpoints = json!({ "service": service.to_string(), "port": port.name, "secure": tls.is_some() });
        let mut backend = json!({ "id": id, "endpoints": endpoints, "protocol": word });
        if protocol != BackendProtocol::Tcp {
            backend["timeouts"] = json!({ "response": RESPONSE_TIMEOUT });
        }
        if let Some(tls) = tls {
            backend["tls"] = tls;
        }
        if let Some(retries) = retries {
            backend["retries"] = retries.clone();
        }
        for (key, value) in &self.user.overrides.keys {
            backend[key] = value.clone();
        }
        let document = NamedDocument::new(&format!("Service {service} ({id})"), &json!({ "backends": [backend] }));
        if let Some(before) = self.before.get(id).filter(|before| *before.document == document) {
            return Arc::clone(before);
        }
        Arc::new(BackendDocument { id: id.into(), service: service.clone(), document: Arc::new(document) })
    }
}

/// The protocol of a port, by its `appProtocol` (KEP-3726), in any case. gRPC needs HTTP/2. TLS is a matter of the
/// policy of the Service.
fn protocol_of(port: &ServicePort, route_kind: &str) -> Result<BackendProtocol, String> {
    let named = port.app_protocol.as_deref().map(str::to_ascii_lowercase);
    match named.as_deref() {
        _ if route_kind == "TLSRoute" => Ok(BackendProtocol::Tcp), // the gateway does not read what it forwards
        Some("kubernetes.io/h2c" | "grpc" | "h2c" | "http2") => Ok(BackendProtocol::Http2),
        _ if route_kind == "GRPCRoute" => Ok(BackendProtocol::Http2),
        None | Some("http" | "https" | "ws" | "wss" | "kubernetes.io/ws" | "kubernetes.io/wss" | "tcp") => {
            Ok(BackendProtocol::Http1)
        }
        Some(other) => Err(format!(
            "the port {} has the appProtocol {other}, which is not supported; use kubernetes.io/h2c, kubernetes.io/ws \
             or none",
            port.port
        )),
    }
}
