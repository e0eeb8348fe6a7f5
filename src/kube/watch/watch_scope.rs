//! Where kinds are watched: everywhere, or Secrets in some namespaces only.
//!
//! Guarantees: bounded by [`SECRET_NAMESPACES_MAX`], because each namespace is a watch of its own.
//!
//! Leaves to others: permissions (the chart).

use std::collections::BTreeSet;

use crate::kube::objects::ObjectKind;

/// The most namespaces whose Secrets are watched one by one.
pub const SECRET_NAMESPACES_MAX: usize = 200;

/// Where kinds are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchScope {
    secret_namespaces: BTreeSet<String>,
}

impl WatchScope {
    /// Secrets are watched in these namespaces only; everywhere if there is none.
    ///
    /// # Errors
    /// If there are more than [`SECRET_NAMESPACES_MAX`].
    pub fn with_secrets_in(namespaces: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let secret_namespaces: BTreeSet<String> = namespaces.into_iter().collect();
        if secret_namespaces.len() > SECRET_NAMESPACES_MAX {
            return Err(format!(
                "{} namespaces of Secrets, expected at most {SECRET_NAMESPACES_MAX}: each is a connection to the API \
                 server. Watch Secrets in the whole cluster instead",
                secret_namespaces.len()
            ));
        }
        Ok(Self { secret_namespaces })
    }

    /// The namespaces whose Secrets are watched; empty for all.
    pub fn secret_namespaces(&self) -> &BTreeSet<String> {
        &self.secret_namespaces
    }

    /// The watches of a kind, each with its namespace; one without a namespace for the whole cluster.
    pub(super) fn parts(&self, kind: ObjectKind) -> Vec<Option<String>> {
        match kind {
            ObjectKind::Secret if !self.secret_namespaces.is_empty() => {
                self.secret_namespaces.iter().cloned().map(Some).collect()
            }
            _ => vec![None],
        }
    }
}
