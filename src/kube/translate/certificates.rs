//! Certificates, keys and authorities of Secrets and ConfigMaps, as texts in memory for the configuration.
//!
//! Guarantees:
//! - A certificate that is referred to is complete and belongs to its key. So a faulty Secret is a condition of the
//!   listener that names it, and never a problem of the whole configuration.
//! - A text is taken up once, however often it is named.
//! - Client authentication belongs to the realm of its authorities: those whose certificates are the same have one
//!   name.
//!
//! Leaves to others: chains and expiry (`identity`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Value, json};

use super::client_auth_policies::ClientAuthSettings;
use super::names;
use super::references::{BrokenReference, Referent, Referrer, check_permission};
use crate::kube::index::Index;
use crate::kube::objects::{ObjectKey, ObjectReference, RefuseOrAllow, SecretReference};

/// The entries of a Secret of the type `kubernetes.io/tls`.
const CERTIFICATE_ENTRY: &str = "tls.crt";
const KEY_ENTRY: &str = "tls.key";
/// The entry of a ConfigMap or Secret with authorities.
const AUTHORITIES_ENTRY: &str = "ca.crt";

/// The texts that the configuration names, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTextMap(pub BTreeMap<String, Bytes>);

/// Checks of texts: those that the loader of the configuration would make.
pub trait TextCheck {
    /// Whether a listener can use this certificate with this key.
    ///
    /// # Errors
    /// The fault, and what to do.
    fn check_key_pair(&self, certificate: &Bytes, key: &Bytes) -> Result<(), String>;

    /// Whether the gateway can show this certificate to servers.
    ///
    /// # Errors
    /// The fault, and what to do.
    fn check_client_pair(&self, certificate: &Bytes, key: &Bytes) -> Result<(), String>;

    /// Whether these are certificates of authorities.
    ///
    /// # Errors
    /// The fault, and what to do.
    fn check_authorities(&self, pem: &Bytes) -> Result<(), String>;

    /// The certificates of a text with authorities: the SHA-256 of each.
    ///
    /// # Errors
    /// The fault, and what to do.
    fn authority_digests(&self, pem: &Bytes) -> Result<AuthorityDigests, String>;

    /// Whether a listener can verify callers with these authorities and revocation lists.
    ///
    /// # Errors
    /// The fault, and what to do.
    fn check_client_auth(&self, authorities: &[Bytes], lists: &[Bytes], takes_expired: bool) -> Result<(), String>;

    /// Whether commands in the form of the configuration are valid by themselves.
    ///
    /// # Errors
    /// The path of the fault, and what is wrong.
    fn check_commands(&self, commands: &Value) -> Result<(), String>;
}

/// The certificates of authorities: the SHA-256 of each.
pub type AuthorityDigests = BTreeSet<[u8; 32]>;

/// Collects the texts that the configuration names.
pub(super) struct TextCollector<'c> {
    pub(super) check: &'c dyn TextCheck,
    pub(super) texts: MemoryTextMap,
    /// The certificates of the authorities of each realm.
    realms: BTreeMap<String, AuthorityDigests>,
}

impl<'c> TextCollector<'c> {
    pub(super) fn new(check: &'c dyn TextCheck) -> Self {
        Self { check, texts: MemoryTextMap::default(), realms: BTreeMap::new() }
    }

    /// `clientAuth` of a listener with these authorities and revocation lists, in the realm of the authorities.
    ///
    /// # Errors
    /// Why a listener cannot use them.
    pub(super) fn client_auth(
        &mut self,
        settings: ClientAuthSettings,
        authorities: &[String],
        lists: &[String],
    ) -> Result<Value, String> {
        let texts = |names: &[String]| names.iter().filter_map(|name| self.texts.0.get(name).cloned()).collect();
        let (bundles, revoked): (Vec<Bytes>, Vec<Bytes>) = (texts(authorities), texts(lists));
        let takes_expired = settings.expired_revocation == RefuseOrAllow::Allow;
        self.check.check_client_auth(&bundles, &revoked, takes_expired)?;
        let mut digests = AuthorityDigests::new();
        for bundle in &bundles {
            digests.extend(self.check.authority_digests(bundle)?);
        }
        let realm = names::realm(&digests);
        let mut keys = json!({ "mode": settings.mode, "authorities": authorities, "realm": realm });
        if !lists.is_empty() {
            keys["revocation"] = json!(lists);
            keys["expiredRevocation"] = json!(settings.expired_revocation.as_str());
        }
        if settings.unclaimed_callers == RefuseOrAllow::Refuse {
            keys["unclaimed"] = json!("refuse");
        }
        self.realms.insert(realm, digests);
        Ok(keys)
    }

    /// Takes up the text of an entry of a ConfigMap or a Secret. Returns its name.
    fn take_entry(&mut self, kind: &str, (key, entry): (&ObjectKey, &str), bytes: Bytes) -> String {
        let taken = names::memory_text(&kind.to_ascii_lowercase(), key, entry);
        self.texts.0.insert(taken.clone(), bytes);
        taken
    }

    /// The realms all of whose authorities are among these.
    pub(super) fn realms_within(&self, authorities: &AuthorityDigests) -> Vec<&str> {
        let within = self.realms.iter().filter(|(_, digests)| digests.is_subset(authorities));
        within.map(|(realm, _)| realm.as_str()).collect()
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CertificateUse {
    /// Shown to callers by a listener.
    Listener,
    /// Shown to servers.
    Backend,
}

/// The names of the texts of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateTexts {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Takes up the certificate that a Secret holds.
///
/// # Errors
/// The reason why the reference cannot be used: `InvalidCertificateRef` or `RefNotPermitted`.
pub(super) fn take_certificate(
    index: &Index,
    from: Referrer<'_>,
    (reference, purpose): (&SecretReference, CertificateUse),
    texts: &mut TextCollector<'_>,
) -> Result<CertificateTexts, BrokenReference> {
    let SecretReference { group, kind, name, namespace } = reference;
    if (&**group, &**kind) != ("", "Secret") {
        return Err(invalid(format!("a certificate is a Secret of the core group, not {kind} of {group:?}")));
    }
    let to = Referent { group, kind, namespace: namespace.as_deref(), name };
    let secret = check_permission(index, from, to)?;
    let found = index.secrets().valid(&secret).ok_or_else(|| invalid(missing_secret(index, &secret)))?;
    let entry = |entry: &str| {
        let missing = || invalid(format!("the Secret {secret} has no entry {entry}; use the type kubernetes.io/tls"));
        found.data.get(entry).cloned().ok_or_else(missing)
    };
    let (certificate, key) = (entry(CERTIFICATE_ENTRY)?, entry(KEY_ENTRY)?);
    let checked = match purpose {
        CertificateUse::Listener => texts.check.check_key_pair(&certificate, &key),
        CertificateUse::Backend => texts.check.check_client_pair(&certificate, &key),
    };
    checked.map_err(|why| invalid(format!("the Secret {secret} is not usable: {why}")))?;
    let name = |entry| names::memory_text("secret", &secret, entry);
    let taken = CertificateTexts { certificate: name(CERTIFICATE_ENTRY), key: name(KEY_ENTRY) };
    texts.texts.0.insert(taken.certificate.clone(), certificate);
    texts.texts.0.insert(taken.key.clone(), key);
    Ok(taken)
}

/// Why a Secret is not known.
fn missing_secret(index: &Index, secret: &ObjectKey) -> String {
    if index.knows_secrets_of(&secret.namespace) {
        return format!("there is no Secret {secret}");
    }
    format!(
        "the Secret {secret} is not known: Secrets of the namespace {} are not watched. Add it to secretNamespaces of the \
         chart, or as --secret-namespace",
        secret.namespace
    )
}

fn invalid(message: String) -> BrokenReference {
    BrokenReference { reason: "InvalidCertificateRef", message }
}

/// Takes up the authorities that a ConfigMap or a Secret holds (GEP-91).
///
/// # Errors
/// The reason why the reference cannot be used: `InvalidCACertificateKind`, `InvalidCACertificateRef` or
/// `RefNotPermitted`.
pub(super) fn take_authorities(
    index: &Index,
    from: Referrer<'_>,
    reference: &ObjectReference,
    texts: &mut TextCollector<'_>,
) -> Result<String, BrokenReference> {
    take_authorities_entry(index, from, (reference, AUTHORITIES_ENTRY), texts)
}

/// Takes up the authorities that an entry of a ConfigMap or a Secret holds.
///
/// # Errors
/// As [`take_authorities`].
pub(super) fn take_authorities_entry(
    index: &Index,
    from: Referrer<'_>,
    (reference, entry): (&ObjectReference, &str),
    texts: &mut TextCollector<'_>,
) -> Result<String, BrokenReference> {
    let ObjectReference { group, kind, name, namespace } = reference;
    let to = Referent { group, kind, namespace: namespace.as_deref(), name };
    let known = group.is_empty() && matches!(&**kind, "ConfigMap" | "Secret");
    if !known {
        let message = format!("authorities are a ConfigMap or a Secret of the core group, not {kind} of {group:?}");
        return Err(BrokenReference { reason: "InvalidCACertificateKind", message });
    }
    let key = check_permission(index, from, to)?;
    let bad = |message: String| BrokenReference { reason: "InvalidCACertificateRef", message };
    let bytes = entry_of(index, kind, (&key, entry)).ok_or_else(|| bad(missing_entry(index, kind, (&key, entry))))?;
    texts.check.check_authorities(&bytes).map_err(|why| bad(format!("{kind} {key}, {entry}: {why}")))?;
    Ok(texts.take_entry(kind, (&key, entry), bytes))
}

/// Takes up the revocation lists that an entry of a ConfigMap or a Secret holds.
///
/// # Errors
/// The reason why the reference cannot be used: `InvalidRevocationListRef` or `RefNotPermitted`.
pub(super) fn take_revocation_lists(
    index: &Index,
    from: Referrer<'_>,
    (reference, entry): (&ObjectReference, &str),
    texts: &mut TextCollector<'_>,
) -> Result<String, BrokenReference> {
    let ObjectReference { group, kind, name, namespace } = reference;
    let to = Referent { group, kind, namespace: namespace.as_deref(), name };
    let key = check_permission(index, from, to)?;
    let missing =
        || BrokenReference { reason: "InvalidRevocationListRef", message: missing_entry(index, kind, (&key, entry)) };
    let bytes = entry_of(index, kind, (&key, entry)).ok_or_else(missing)?;
    Ok(texts.take_entry(kind, (&key, entry), bytes))
}

/// The certificates of the authorities in an entry of a ConfigMap or a Secret.
///
/// # Errors
/// As [`take_authorities`].
pub(super) fn digests_of_entry(
    index: &Index,
    kind: &str,
    (key, entry): (&ObjectKey, &str),
    check: &dyn TextCheck,
) -> Result<AuthorityDigests, BrokenReference> {
    let bad = |message: String| BrokenReference { reason: "InvalidCACertificateRef", message };
    let bytes = entry_of(index, kind, (key, entry));
    let bytes = bytes.ok_or_else(|| bad(format!("there is no {kind} {key} with an entry {entry}")))?;
    let digests = check.check_authorities(&bytes).and_then(|()| check.authority_digests(&bytes));
    digests.map_err(|why| bad(format!("{kind} {key}, {entry}: {why}")))
}

/// Why there is no such entry.
fn missing_entry(index: &Index, kind: &str, (key, entry): (&ObjectKey, &str)) -> String {
    match kind {
        "Secret" if !index.knows_secrets_of(&key.namespace) => missing_secret(index, key),
        _ => format!("there is no {kind} {key} with an entry {entry}"),
    }
}

fn entry_of(index: &Index, kind: &str, (key, entry): (&ObjectKey, &str)) -> Option<Bytes> {
    match kind {
        "ConfigMap" => {
            let text = index.config_maps().valid(key)?.data.get(entry)?;
            Some(Bytes::copy_from_slice(text.as_bytes()))
        }
        _ => index.secrets().valid(key)?.data.get(entry).cloned(),
    }
}
