//! The identities of a caller, as found in a certificate.

use std::fmt;

/// One identity found in a verified client certificate, in the form in which a configuration claims it.
///
/// Identities are compared byte for byte. DNS names are stored in lower case (RFC 9525 section 6.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallerId {
    /// A URI SAN, for example `spiffe://city.example/department/traffic-police`.
    Uri(String),
    /// A DNS SAN, lower case.
    Dns(String),
    /// A subject, by the two attributes that a configuration may name. A certificate with one organizationalUnit yields
    /// both forms. So a claim of the commonName alone (`None`) matches with any unit.
    Subject {
        /// The subject's commonName.
        common_name: String,
        /// The subject's organizationalUnit, if it has exactly one.
        organizational_unit: Option<String>,
    },
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Subject { common_name, organizational_unit: None } => write!(f, "subject:CN={common_name}"),
            Self::Subject { common_name, organizational_unit: Some(unit) } => {
                write!(f, "subject:CN={common_name},OU={unit}")
            }
        }
    }
}
