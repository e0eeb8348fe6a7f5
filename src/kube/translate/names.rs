//! Names in the configuration for objects of the cluster.
//!
//! Guarantees:
//! - Two different objects have different names. A name says which object it is for, as far as its length permits.
//! - A name has at most [`Name::MAX_BYTES`] bytes and only the characters of a [`Name`].
//!
//! Leaves to others: what the names are for.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::kube::objects::{ObjectKey, ObjectKind};
use crate::model::{Name, hex_text};

/// The bytes of a hash behind a name that is too long: 6 bytes are 12 digits.
const HASH_BYTES: usize = 6;
/// The bytes of the hash of a realm: two realms with one name would certify each other's callers.
const REALM_BYTES: usize = 24;

/// The text itself, or its beginning and the hash of all of it. A `_` separates parts: no name in Kubernetes has one.
fn bounded(text: String) -> String {
    if text.len() <= Name::MAX_BYTES {
        return text;
    }
    let digest = Sha256::digest(&text);
    let kept = text.floor_char_boundary(Name::MAX_BYTES - 2 * HASH_BYTES - 1);
    format!("{}_{}", &text[..kept], hex_text(&digest[..HASH_BYTES]))
}

/// A hash for a variant.
pub(super) fn short_hash(text: &str) -> String {
    hex_text(&Sha256::digest(text)[..HASH_BYTES / 2])
}

/// The listener for one port of a Gateway.
pub(super) fn listener(gateway: &ObjectKey, port: u16) -> String {
    bounded(format!("{}.{}_{port}", gateway.namespace, gateway.name))
}

/// A virtual host: a listener of a Gateway.
pub(super) fn virtual_host(section: &str) -> String {
    bounded(section.to_owned())
}

/// A virtual host: a listener of a ListenerSet.
pub(super) fn virtual_host_of_set(set: &ObjectKey, section: &str) -> String {
    bounded(format!("{}.{}_{section}", set.namespace, set.name))
}

/// The department of the callers of a Gateway that no other department claims.
pub(super) fn department(gateway: &ObjectKey) -> String {
    bounded(format!("{}.{}", gateway.namespace, gateway.name))
}

/// The subsystem of a route. `kind` is empty for HTTPRoute, the most frequent one.
pub(super) fn subsystem(route: &ObjectKey, kind: &str) -> String {
    let separator = if kind.is_empty() { "" } else { "_" };
    bounded(format!("{}.{}{separator}{kind}", route.namespace, route.name))
}

/// The mark of a kind of route in the name of its subsystem.
pub(super) fn subsystem_kind(kind: ObjectKind) -> &'static str {
    if kind == ObjectKind::GrpcRoute { "grpc" } else { "" }
}

/// The command of a rule: its name, or its position.
pub(super) fn command(name: Option<&str>, position: usize) -> String {
    // The prefix keeps names and positions apart, and both apart from the reserved names.
    name.map_or_else(|| format!("rule-{position}"), |name| bounded(format!("rule_{name}")))
}

/// The backend for a port of a Service. `variant` is empty, or says what is special about its use.
pub(super) fn backend(service: &ObjectKey, port: u16, variant: &str) -> String {
    let separator = if variant.is_empty() { "" } else { "_" };
    bounded(format!("{}.{}_{port}{separator}{variant}", service.namespace, service.name))
}

/// The realm of authorities with these certificates.
pub(super) fn realm(certificates: &BTreeSet<[u8; 32]>) -> String {
    let mut digest = Sha256::new();
    certificates.iter().for_each(|certificate| digest.update(certificate));
    format!("ca_{}", hex_text(&digest.finalize()[..REALM_BYTES]))
}

/// The name of a text in memory: an entry of a Secret or ConfigMap.
pub(super) fn memory_text(kind: &str, object: &ObjectKey, entry: &str) -> String {
    format!("memory:{kind}/{}/{}/{entry}", object.namespace, object.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_and_different() {
        let (long, longer) = ("a".repeat(63), "a".repeat(253));
        let keys = [("shop", "cart"), ("shop", "cart.v2"), (&long, "b"), (&long, &longer), (&long, &longer[1..])];
        let keys = keys.map(|(namespace, name)| ObjectKey::new(namespace, name));
        let mut names: Vec<String> = keys
            .iter()
            .flat_map(|key| {
                [
                    listener(key, 80),
                    listener(key, 8080),
                    subsystem(key, ""),
                    subsystem(key, "grpc"),
                    backend(key, 80, ""),
                    backend(key, 80, "h2"),
                ]
            })
            .collect();
        let count = names.len();
        for name in &names {
            assert!(Name::parse(name).is_ok(), "{name}");
        }
        names.sort();
        names.dedup();
        // The listener of port 80 and the backend of port 80 have one name: they are different things.
        assert_eq!(names.len(), count - keys.len());
    }

    #[test]
    fn rules_are_named_or_counted() {
        assert_eq!(command(None, 3), "rule-3");
        assert_eq!(command(Some("rule-3"), 0), "rule_rule-3");
        assert!(Name::parse(&command(Some(&"r".repeat(253)), 0)).is_ok());
    }
}
