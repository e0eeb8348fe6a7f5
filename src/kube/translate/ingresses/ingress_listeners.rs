//! The two listeners that all Ingresses share, with the certificates of their hosts and the client certificates that
//! each host asks for.
//!
//! Guarantees:
//! - A host with client certificates has an entry of its own, so no connection for another name reaches it.
//! - Of two certificates for one host the older Ingress's is used.
//!
//! Leaves to others: which Ingresses there are (`ingresses`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kube::translate::certificates::CertificateTexts;

/// The port of the data plane for plain HTTP; callers reach it at port 80.
const HTTP_PORT: (u16, u16) = (80, 8080);
/// The port of the data plane for HTTPS; callers reach it at port 443.
const HTTPS_PORT: (u16, u16) = (443, 8443);
/// The names of the listeners, and of the department of their callers.
pub(super) const HTTP_LISTENER: &str = "ingress_80";
pub(super) const HTTPS_LISTENER: &str = "ingress_443";
pub(in crate::kube::translate) const DEPARTMENT: &str = "ingress";

/// The hosts of Ingresses on the HTTPS listener.
#[derive(Debug, Default)]
pub(super) struct IngressHosts {
    certificates: BTreeMap<String, CertificateTexts>,
    client_auth: BTreeMap<String, Value>,
}

impl IngressHosts {
    /// Adds a certificate with its hosts. A host keeps its first one.
    pub(super) fn add_certificate(&mut self, texts: &CertificateTexts, hosts: &[String]) {
        for host in hosts {
            self.certificates.entry(host.clone()).or_insert_with(|| texts.clone());
        }
    }

    /// The client certificates that a host asks for.
    pub(super) fn client_auth(&self, host: &str) -> Option<&Value> {
        self.client_auth.get(host)
    }

    /// Adds what a host asks for. A host keeps its first one.
    pub(super) fn add_client_auth(&mut self, host: &str, client_auth: &Value) {
        self.client_auth.entry(host.to_owned()).or_insert_with(|| client_auth.clone());
    }

    /// Gives each host with client certificates an entry of its own. Returns whether there is any certificate.
    pub(super) fn complete(&mut self) -> bool {
        for host in self.client_auth.keys() {
            let covering = self.covering(host).cloned();
            self.certificates.extend(covering.map(|texts| (host.clone(), texts)));
        }
        !self.certificates.is_empty()
    }

    /// Whether there is a certificate for a host.
    pub(super) fn is_covered(&self, host: &str) -> bool {
        self.covering(host).is_some()
    }

    fn covering(&self, host: &str) -> Option<&CertificateTexts> {
        let wildcard = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        self.certificates.get(host).or_else(|| self.certificates.get(&wildcard?))
    }

    /// The document of the listeners with their department.
    pub(super) fn document(&self) -> Value {
        let address = |port: u16| format!("0.0.0.0:{port}");
        let mut listeners = vec![json!({
            "name": HTTP_LISTENER, "address": address(HTTP_PORT.1), "publicPort": HTTP_PORT.0, "protocol": "http",
        })];
        let mut callers = vec![json!({ "listener": HTTP_LISTENER })];
        let entries = self.entries();
        if !entries.is_empty() {
            // A caller whose certificate is accepted and that no department claims is one of Ingresses as well.
            callers.push(json!({ "listener": HTTPS_LISTENER, "unclaimed": true }));
            listeners.push(json!({
                "name": HTTPS_LISTENER,
                "address": address(HTTPS_PORT.1),
                "publicPort": HTTPS_PORT.0,
                "tls": { "certificates": entries },
            }));
        }
        let department = json!({ "id": DEPARTMENT, "name": "Callers of Ingresses", "callers": callers });
        json!({ "listeners": listeners, "departments": [department] })
    }

    /// An entry for each certificate and each different `clientAuth`.
    fn entries(&self) -> Vec<Value> {
        let mut grouped: BTreeMap<(&str, &str, String), Vec<&str>> = BTreeMap::new();
        for (host, texts) in &self.certificates {
            let client_auth = self.client_auth(host).map(Value::to_string).unwrap_or_default();
            grouped.entry((&texts.certificate, &texts.key, client_auth)).or_default().push(host);
        }
        let entry = |((certificate, key, _), hosts): ((&str, &str, String), Vec<&str>)| {
            let mut entry = json!({ "certificate": certificate, "key": key, "serverNames": hosts });
            if let Some(client_auth) = hosts.first().and_then(|host| self.client_auth(host)) {
                entry["clientAuth"] = client_auth.clone();
            }
            entry
        };
        grouped.into_iter().map(entry).collect()
    }
}
