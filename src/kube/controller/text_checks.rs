//! Checks of certificates and authorities, as the loader of the configuration makes them.
//!
//! Guarantees:
//! - A certificate that passes is one that a listener can use now: it is complete, current, and belongs to its key.
//! - A result is kept for [`KEPT_TIME`] and at most [`KEPT_MAX`] results are kept, so thousands of certificates are not
//!   parsed for each change of the cluster.
//!
//! Leaves to others: the checks themselves (`identity`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::config::check_commands;
use crate::identity::{
    ClientAuth, ExpiredCrlPolicy, HostPattern, MemoryTexts, PemStore, TlsFiles, authority_digests, check_authorities,
    check_client_pair,
};
use crate::kube::translate::{AuthorityDigests, TextCheck};
use crate::policy::ANY_HOST;

/// How long a result is kept: certificates expire.
const KEPT_TIME: Duration = Duration::from_secs(60);
/// The most results that are kept.
const KEPT_MAX: usize = 50_000;

/// The names of the texts of one check.
const CERTIFICATE: &str = "memory:certificate";
const KEY: &str = "memory:key";

type CheckedResult = (Timestamp, Result<(), String>);

/// Checks with kept results.
pub(super) struct TextChecks {
    clock: Clock,
    kept: Mutex<HashMap<[u8; 32], CheckedResult>>,
}

impl TextChecks {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, kept: Mutex::default() }
    }

    /// Loads client authentication as a listener does. Returns the moment at which the first authority or list expires.
    fn load_client_auth(
        &self,
        authorities: &[Bytes],
        lists: &[Bytes],
        takes_expired: bool,
    ) -> Result<Option<Timestamp>, String> {
        let texts = MemoryTexts::default();
        let set = |kind: &str, all: &[Bytes]| -> Result<Vec<PathBuf>, String> {
            let set_one = |(position, text): (usize, &Bytes)| {
                let name = format!("memory:{kind}-{position}");
                texts.set(&name, text.to_vec()).map(|()| PathBuf::from(name)).map_err(|error| error.to_string())
            };
            all.iter().enumerate().map(set_one).collect()
        };
        let auth = ClientAuth {
            authorities: set("authorities", authorities)?,
            revocation_lists: set("lists", lists)?,
            expired_crl: if takes_expired { ExpiredCrlPolicy::Allow } else { ExpiredCrlPolicy::Refuse },
            ..ClientAuth::default()
        };
        let checked = auth.check(&PemStore::new(&texts), &self.clock);
        checked.map_err(|problems| problems.iter().map(|problem| problem.what.clone()).collect::<Vec<_>>().join("; "))
    }

    fn kept_or(&self, texts: &[&Bytes], check: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        self.kept_while(texts, || check().map(|()| None))
    }

    /// As [`Self::kept_or`]. A good result is not kept if it may end within [`KEPT_TIME`].
    fn kept_while(
        &self,
        texts: &[&Bytes],
        check: impl FnOnce() -> Result<Option<Timestamp>, String>,
    ) -> Result<(), String> {
        let mut digest = Sha256::new();
        for text in texts {
            digest.update(Sha256::digest(text));
        }
        let (digest, now) = (digest.finalize().into(), self.clock.wall());
        // A result is inserted as a whole.
        let kept = |kept: &HashMap<[u8; 32], CheckedResult>| kept.get(&digest).cloned();
        let known = kept(&self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some((since, result)) = known
            && now.duration_since(since).unsigned_abs() < KEPT_TIME
        {
            return result;
        }
        let checked = check();
        let ends_soon = |end: &Timestamp| end.duration_since(now).unsigned_abs() < KEPT_TIME;
        if checked.as_ref().is_ok_and(|end| end.as_ref().is_some_and(ends_soon)) {
            return Ok(());
        }
        let result = checked.map(drop);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(digest, (now, result.clone()));
        result
    }
}

impl TextCheck for TextChecks {
    fn check_key_pair(&self, certificate: &Bytes, key: &Bytes) -> Result<(), String> {
        self.kept_or(&[certificate, key], || {
            let texts = MemoryTexts::default();
            for (name, text) in [(CERTIFICATE, certificate), (KEY, key)] {
                texts.set(name, text.to_vec()).map_err(|error| error.to_string())?;
            }
            let mut files = TlsFiles::single(PathBuf::from(CERTIFICATE), PathBuf::from(KEY), None);
            // The listener says for which hosts it is, so a certificate without a name is usable.
            let any_host = HostPattern::parse(ANY_HOST).ok().into_iter().collect::<Vec<_>>();
            files.certificates.iter_mut().for_each(|certificate| certificate.server_names = Some(any_host.clone()));
            let loaded = files.load(&PemStore::new(&texts), &self.clock);
            let text = |problem: &crate::identity::TlsProblem| problem.what.clone();
            loaded.map(drop).map_err(|problems| problems.iter().map(text).collect::<Vec<_>>().join("; "))
        })
    }

    fn check_client_pair(&self, certificate: &Bytes, key: &Bytes) -> Result<(), String> {
        check_client_pair(certificate, key)
    }

    fn check_authorities(&self, pem: &Bytes) -> Result<(), String> {
        self.kept_or(&[pem], || check_authorities(pem))
    }

    fn authority_digests(&self, pem: &Bytes) -> Result<AuthorityDigests, String> {
        authority_digests(pem)
    }

    fn check_client_auth(&self, authorities: &[Bytes], lists: &[Bytes], takes_expired: bool) -> Result<(), String> {
        let (kind, separator) = (Bytes::from_static(b"client auth"), Bytes::from_static(b"lists"));
        let policy = Bytes::from_static(if takes_expired { b"expired" } else { b"current" });
        let parts: Vec<&Bytes> =
            [&kind, &policy].into_iter().chain(authorities).chain([&separator]).chain(lists).collect();
        self.kept_while(&parts, || self.load_client_auth(authorities, lists, takes_expired))
    }

    fn check_commands(&self, commands: &Value) -> Result<(), String> {
        let text = Bytes::from(commands.to_string());
        let check = || check_commands(commands).map_err(|problem| format!("{}: {}", problem.path, problem.message));
        self.kept_or(&[&Bytes::from_static(b"commands"), &text], check)
    }
}
