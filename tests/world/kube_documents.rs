//! Documents of the Kubernetes translation in a configuration file.
//!
//! Endpoints reach a data plane beside the documents, and a file has no such path: its backends list their servers.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tallygate::kube::index::Index;
use tallygate::kube::objects::ObjectKey;

/// The items of a list of a translated document. Backends have the endpoints of `index` as their servers.
pub fn items_for_file(list: &str, items: &Value, index: &Index) -> Vec<Value> {
    let mut items = items.as_array().cloned().unwrap_or_default();
    if list == "backends" {
        items.iter_mut().for_each(|backend| list_servers(backend, index));
    }
    items
}

fn list_servers(backend: &mut Value, index: &Index) {
    let endpoints = backend.as_object_mut().and_then(|backend| backend.remove("endpoints"));
    let Some(endpoints) = endpoints else { return };
    let scheme = match (backend["protocol"].as_str(), endpoints["secure"].as_bool()) {
        (Some("tcp"), Some(true)) => "tls",
        (Some("tcp"), _) => "tcp",
        (_, Some(true)) => "https",
        _ => "http",
    };
    let url = |address: &SocketAddr| json!({ "url": format!("{scheme}://{address}") });
    backend["upstreams"] = addresses(&endpoints, index).iter().map(url).collect();
}

fn addresses(endpoints: &Value, index: &Index) -> Vec<SocketAddr> {
    let (namespace, name) = endpoints["service"].as_str().unwrap().split_once('/').unwrap();
    let mut ports = index.endpoints().addresses_by_port(&ObjectKey::new(namespace, name));
    ports.remove(endpoints["port"].as_str().unwrap()).unwrap_or_default()
}
