//! The expiry of certificates and revocation lists, and warnings before it.

use jiff::{SignedDuration, Timestamp};
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

/// Something that expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiringItem {
    /// `server_config`, `ca` or `crl`.
    pub role: &'static str,
    /// Its subject (or issuer, for a CRL).
    pub name: String,
    /// The moment of expiry.
    pub expires_at: Timestamp,
}

/// The number of days before expiry from which a warning is given.
pub const EXPIRY_WARNING_DAYS: i64 = 14;

/// Warnings of items that have expired at `now` or expire within [`EXPIRY_WARNING_DAYS`], the earliest first. Callers'
/// certificates are left out: their owners are responsible for them.
pub fn expiry_warnings(expiries: &[ExpiringItem], now: Timestamp) -> Vec<String> {
    let horizon = now.checked_add(SignedDuration::from_hours(24 * EXPIRY_WARNING_DAYS)).unwrap_or(Timestamp::MAX);
    let mut ending: Vec<&ExpiringItem> =
        expiries.iter().filter(|expiry| expiry.expires_at <= horizon && expiry.noun_and_advice().is_some()).collect();
    ending.sort_by_key(|expiry| expiry.expires_at);
    ending.dedup();
    ending.into_iter().filter_map(|expiry| expiry.warning(now)).collect()
}

/// The next expiry after `now`, callers' certificates left out.
pub fn next_expiry(expiries: &[ExpiringItem], now: Timestamp) -> Option<Timestamp> {
    let ahead = expiries.iter().filter(|expiry| expiry.expires_at > now && expiry.noun_and_advice().is_some());
    ahead.map(|expiry| expiry.expires_at).min()
}

impl ExpiringItem {
    /// The noun and the advice for a warning; `None` for a caller's certificate.
    fn noun_and_advice(&self) -> Option<(&'static str, &'static str)> {
        Some(match self.role {
            "server" => ("the gateway's own certificate", "replace it with a renewed one"),
            "ca" => ("the certificate of the authority", "add its successor"),
            "crl" => ("the revocation list", "fetch a new one (`tallygate pki renew` makes one for a trial authority)"),
            _ => return None,
        })
    }

    fn warning(&self, now: Timestamp) -> Option<String> {
        let ((kind, remedy), Self { name, expires_at: at, .. }) = (self.noun_and_advice()?, self);
        let of = if self.role == "crl" { "of " } else { "" };
        let when = match at.duration_since(now).as_hours() {
            _ if *at <= now => "has expired at".to_owned(),
            ..2 => "expires within two hours, at".to_owned(),
            hours @ ..48 => format!("expires in {hours} hours, at"),
            hours => format!("expires in {} days, at", hours / 24),
        };
        Some(format!("{kind} {of}{name} {when} {at}; {remedy}"))
    }
}

/// Converts the time of a certificate. 9999-12-31T23:59:59Z, "no well-defined end" (RFC 5280 section 4.1.2.5), becomes
/// the last representable moment.
pub(crate) fn asn1_timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::MAX)
}

/// The reason why a certificate is not valid at `now`, with advice; `None` while it is valid.
pub(crate) fn validity_problem(certificate: &X509Certificate<'_>, now: Timestamp) -> Option<String> {
    let (from, until) =
        (asn1_timestamp(certificate.validity().not_before), asn1_timestamp(certificate.validity().not_after));
    let name = certificate.subject();
    if now < from {
        return Some(format!(
            "the certificate of {name} is not valid before {from}, and it is {now}; check this machine's clock"
        ));
    }
    (now > until).then(|| {
        format!("the certificate of {name} expired at {until}, and it is {now}; replace it with a renewed one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_within_two_weeks_is_a_warning_and_the_earliest_comes_first() {
        let now: Timestamp = "2026-06-15T12:00:00Z".parse().expect("a time");
        let expiry = |role, hours| ExpiringItem {
            role,
            name: "CN=City".to_owned(),
            expires_at: now + SignedDuration::from_hours(hours),
        };
        let all = [
            expiry("server", 14 * 24 + 1),
            expiry("ca", 14 * 24),
            expiry("crl", 47),
            expiry("crl", 47),
            expiry("ca", 1),
            expiry("server", -1),
            expiry("caller", 1),
        ];
        let warnings = expiry_warnings(&all, now);
        let beginnings = [
            "the gateway's own certificate CN=City has expired at 2026-06-15T11:00:00Z",
            "the certificate of the authority CN=City expires within two hours, at 2026-06-15T13:00:00Z",
            "the revocation list of CN=City expires in 47 hours, at 2026-06-17T11:00:00Z; fetch a new one",
            "the certificate of the authority CN=City expires in 14 days, at 2026-06-29T12:00:00Z",
        ];
        assert_eq!(warnings.len(), beginnings.len(), "{warnings:?}");
        for (warnings, beginning) in warnings.iter().zip(beginnings) {
            assert!(warnings.starts_with(beginning), "{warnings}");
        }
        assert_eq!(
            next_expiry(&all, now),
            Some(now + SignedDuration::from_hours(1)),
            "an expired certificate is not listed"
        );
        assert_eq!(next_expiry(&all[5..], now), None, "certificates of callers are excluded");
    }
}
