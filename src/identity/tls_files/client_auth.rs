//! The settings of client authentication.
//!
//! Leaves to others: the verdict (`verification`), and the answer to refused callers (`tls_config`, `proxy`).

use std::path::PathBuf;
use std::sync::Arc;

use crate::identity::certificate::forwarded_certificate::CertificateForwarding;
use crate::identity::certificate::subject_pattern::SubjectPattern;
use crate::model::Name;

/// The settings of client authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientAuth {
    /// The callers that are accepted.
    pub mode: ClientAuthMode,
    /// PEM bundles of certificate authorities.
    pub authorities: Vec<PathBuf>,
    /// PEM revocation lists.
    pub revocation_lists: Vec<PathBuf>,
    /// The treatment of an expired revocation list.
    pub expired_crl: ExpiredCrlPolicy,
    /// The most certificates between the caller's and a self-signed authority, as OpenSSL counts them
    /// (`SSL_CTX_set_verify_depth`); those in the bundles count as well.
    pub max_depth: Option<usize>,
    /// How callers that the mode does not accept are refused.
    pub refusal: AuthRefusal,
    /// The subjects that are accepted; `None` for all. Other callers are refused at each request.
    pub subject: Option<SubjectPattern>,
    /// The fields about the certificate that subsystems get.
    pub forwarding: CertificateForwarding,
    /// Where the identities that these authorities certify count; `None` for the realm without a name.
    pub realm: Option<Name>,
    /// Whether a caller with a certificate that nobody claims has no department, whatever the listener says.
    pub refuses_unclaimed: bool,
}

/// How a caller is refused that the mode does not accept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum AuthRefusal {
    /// The handshake fails.
    #[default]
    Handshake,
    /// The handshake succeeds, and each request is answered with 400, as nginx does; with a page, it is redirected
    /// there.
    Response {
        /// A URL.
        error_page: Option<Arc<str>>,
    },
}

/// The callers that a handshake accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientAuthMode {
    /// Only callers with a certificate that passes verification.
    #[default]
    Required,
    /// Also callers without a certificate. One that fails verification ends the handshake.
    Optional,
    /// Also callers whose certificate fails verification (Gateway API, GEP-91: `AllowInsecureFallback`).
    /// They have no identity, as callers without a certificate. That a caller holds the key of its certificate is
    /// verified in every mode.
    AllowInsecureFallback,
    /// Also callers whose certificate no known authority has signed, if nothing else is wrong with it (nginx:
    /// `optional_no_ca`). They have no identity.
    AnyAuthority,
}

/// The treatment of callers whose authority's revocation list is past its nextUpdate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExpiredCrlPolicy {
    /// An expired list proves nothing: the callers of its authority are refused until there is a new list.
    #[default]
    Refuse,
    /// An expired list stays in use as if it were current: a caller that was revoked since then is accepted. Every
    /// operator view shows this state.
    Allow,
}

impl ClientAuth {
    /// Whether a handshake without a certificate fails.
    pub fn requires_in_handshake(&self) -> bool {
        self.mode == ClientAuthMode::Required && self.refusal == AuthRefusal::Handshake
    }

    /// Whether a handshake succeeds with every certificate.
    pub fn accepts_any_in_handshake(&self) -> bool {
        self.mode == ClientAuthMode::AllowInsecureFallback || self.refusal != AuthRefusal::Handshake
    }

    /// Whether callers whose certificate fails verification may send commands, without an identity.
    pub fn accepts_unverified(&self) -> bool {
        matches!(self.mode, ClientAuthMode::AllowInsecureFallback | ClientAuthMode::AnyAuthority)
    }
}
