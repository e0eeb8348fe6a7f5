//! What of a listener ends when.

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

/// Something that expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// `server`, `ca` or `crl`.
    pub role: &'static str,
    /// Its subject (or issuer, for a CRL).
    pub name: String,
    /// When.
    pub at: Timestamp,
}

/// A certificate's time as ours. 9999-12-31T23:59:59Z, "no well-defined end" (RFC 5280 section 4.1.2.5), becomes the
/// last moment there is.
pub(super) fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::MAX)
}

/// Why a certificate is of no use at `now`, with what to do; `None` while it is valid.
pub(super) fn out_of_time(certificate: &X509Certificate<'_>, now: Timestamp) -> Option<String> {
    let (from, until) = (timestamp(certificate.validity().not_before), timestamp(certificate.validity().not_after));
    let name = certificate.subject();
    if now < from {
        return Some(format!(
            "the certificate of {name} is valid only from {from} on, and it is {now}; check this machine's clock"
        ));
    }
    (now > until)
        .then(|| format!("the certificate of {name} expired at {until}, and it is {now}; put a renewed one here"))
}
