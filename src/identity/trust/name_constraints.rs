//! Name constraints of authorities (RFC 5280 section 4.2.1.10): the names that their certificates may hold.
//!
//! webpki evaluates DNS names and IP addresses. It refuses every certificate that has a name of any other constrained
//! kind. So this module evaluates the constraints of a *configured* authority on URIs, directory names and e-mail
//! addresses itself, and removes them from the input of webpki. The constraints of intermediate certificates stay with
//! webpki, which refuses them (docs/decisions/certificates.md).
//!
//! Guarantees:
//! - A constraint that is not understood stays with webpki, and so leads to a refusal.
//! - An exclusion that cannot be evaluated counts as a match.

use rustls::pki_types::Der;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, NameConstraints};
use x509_parser::oid_registry::OID_PKCS9_EMAIL_ADDRESS;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name};

use crate::identity::certificate::certificate_summary::escape_hidden;
use crate::identity::der::der_reader::{
    DerElement, DerReader, MalformedDer, SEQUENCE, constructed_tag, encode_element, primitive_tag,
};

const EMAIL: u8 = primitive_tag(1);
const DIRECTORY_NAME: u8 = constructed_tag(4);
const URI: u8 = primitive_tag(6);

/// The constraints of one authority on the kinds of names that webpki does not evaluate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NameConstraintRules {
    permitted: Vec<SubtreeBase>,
    excluded: Vec<SubtreeBase>,
}

/// The base of a subtree of names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SubtreeBase {
    /// A host, or with a leading dot every host below a domain.
    Uri(String),
    /// An address, a host, or with a leading dot every host below a domain.
    Email(String),
    /// A prefix of a directory name.
    Directory(Vec<RdnAttributes>),
}

/// One relative distinguished name: its attributes in a comparable (canonical) form, sorted.
type RdnAttributes = Vec<(String, Vec<u8>)>;

/// A constraint that a certificate violates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConstraintViolation(pub(crate) String);

/// The constraints of an authority, divided between webpki and this module.
pub(crate) struct SplitConstraints {
    /// The constraints that webpki evaluates: the contents of the extension's sequence.
    pub(crate) for_webpki: Option<Der<'static>>,
    /// The constraints that this module evaluates.
    pub(crate) rules: NameConstraintRules,
}

impl SplitConstraints {
    /// Splits the constraints that webpki has found in an authority's certificate.
    pub(crate) fn from_extension(constraints: Option<&[u8]>) -> Self {
        let untouched = || Self {
            for_webpki: constraints.map(|constraints| Der::from(constraints.to_vec())),
            rules: NameConstraintRules::default(),
        };
        match constraints {
            Some(constraints) => split_constraints(constraints).unwrap_or_else(|MalformedDer| untouched()),
            None => untouched(),
        }
    }
}

fn split_constraints(constraints: &[u8]) -> Result<SplitConstraints, MalformedDer> {
    let mut fields = DerReader::new(constraints);
    let (mut rest, mut rules) = (Vec::new(), NameConstraintRules::default());
    for (tag, ours) in [(constructed_tag(0), &mut rules.permitted), (constructed_tag(1), &mut rules.excluded)] {
        let Some(subtrees) = fields.optional_tag(tag)? else { continue };
        let (mut subtrees, mut others) = (DerReader::new(subtrees.value), Vec::new());
        while !subtrees.is_empty() {
            let subtree = subtrees.expect_tag(SEQUENCE)?;
            match subtree_base(subtree) {
                Some(base) => ours.push(base),
                None => others.extend_from_slice(subtree.raw),
            }
        }
        if !others.is_empty() {
            rest.extend(encode_element(tag, &others));
        }
    }
    if !fields.is_empty() {
        return Err(MalformedDer);
    }
    let of_webpki = (!rest.is_empty()).then(|| Der::from(rest));
    Ok(SplitConstraints { for_webpki: of_webpki, rules })
}

/// The base of a subtree, if this module evaluates its kind.
fn subtree_base(subtree: DerElement<'_>) -> Option<SubtreeBase> {
    let mut fields = DerReader::new(subtree.value);
    let name = fields.next_element().ok()?;
    if !fields.is_empty() {
        return None; // minimum or maximum, which RFC 5280 does not allow
    }
    let text = || std::str::from_utf8(name.value).ok().map(str::to_ascii_lowercase);
    match name.tag {
        URI => text().map(SubtreeBase::Uri),
        EMAIL => text().map(SubtreeBase::Email),
        DIRECTORY_NAME => {
            X509Name::from_der(name.value).ok().map(|(_, name)| SubtreeBase::Directory(name_parts(&name)))
        }
        _ => None,
    }
}

impl NameConstraintRules {
    /// Whether there are no constraints.
    pub(crate) fn is_empty(&self) -> bool {
        self.permitted.is_empty() && self.excluded.is_empty()
    }

    /// Checks the names of a certificate.
    pub(crate) fn check_certificate(&self, certificate: &X509Certificate<'_>) -> Result<(), ConstraintViolation> {
        if self.is_empty() {
            return Ok(());
        }
        for name in constrained_names(certificate)? {
            self.check_name(&name)?;
        }
        Ok(())
    }

    fn check_name(&self, name: &ConstrainedName<'_>) -> Result<(), ConstraintViolation> {
        let violation = |why: &str| Err(ConstraintViolation(format!("{name} {why}")));
        let excludes = |base: &SubtreeBase| name.is_within(base).unwrap_or(true); // an unreadable name is excluded
        let of_its_kind = |base: &&SubtreeBase| name.has_same_kind(base);
        if self.excluded.iter().filter(of_its_kind).any(excludes) {
            return violation("is excluded by the name constraints of its authority");
        }
        let mut permitted = self.permitted.iter().filter(of_its_kind).peekable();
        if permitted.peek().is_some() && !permitted.any(|base| name.is_within(base).unwrap_or(false)) {
            return violation("is not permitted by the name constraints of its authority");
        }
        Ok(())
    }
}

/// A name in a certificate that a constraint may apply to.
enum ConstrainedName<'a> {
    Uri(&'a str),
    Email(&'a str),
    Directory(X509Name<'a>),
}

impl std::fmt::Display for ConstrainedName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uri(uri) => write!(f, "the URI {}", escape_hidden(uri)),
            Self::Email(email) => write!(f, "the e-mail address {}", escape_hidden(email)),
            Self::Directory(name) => write!(f, "the name {}", escape_hidden(&name.to_string())),
        }
    }
}

/// The names that constraints may apply to: the alternative names and the subject. Without alternative names, also the
/// e-mail addresses in the subject.
fn constrained_names<'a>(
    certificate: &'a X509Certificate<'_>,
) -> Result<Vec<ConstrainedName<'a>>, ConstraintViolation> {
    let unreadable = |_| ConstraintViolation("its alternative names cannot be read".to_owned());
    let alternatives = certificate.subject_alternative_name().map_err(unreadable)?;
    let subject = certificate.subject();
    let mut names = Vec::new();
    if subject.iter().next().is_some() {
        names.push(ConstrainedName::Directory(subject.clone()));
    }
    if alternatives.is_none() {
        let emails = subject.iter_by_oid(&OID_PKCS9_EMAIL_ADDRESS).filter_map(|email| email.as_str().ok());
        names.extend(emails.map(ConstrainedName::Email));
    }
    for name in alternatives.iter().flat_map(|alternatives| &alternatives.value.general_names) {
        match name {
            GeneralName::URI(uri) => names.push(ConstrainedName::Uri(uri)),
            GeneralName::RFC822Name(email) => names.push(ConstrainedName::Email(email)),
            GeneralName::DirectoryName(name) => names.push(ConstrainedName::Directory(name.clone())),
            GeneralName::Invalid(..) => {
                return Err(ConstraintViolation("one of its alternative names cannot be read".to_owned()));
            }
            _ => {}
        }
    }
    Ok(names)
}

impl ConstrainedName<'_> {
    fn has_same_kind(&self, base: &SubtreeBase) -> bool {
        matches!(
            (self, base),
            (Self::Uri(_), SubtreeBase::Uri(_))
                | (Self::Email(_), SubtreeBase::Email(_))
                | (Self::Directory(_), SubtreeBase::Directory(_))
        )
    }

    /// Whether the name lies in the subtree; `None` if that cannot be decided.
    fn is_within(&self, base: &SubtreeBase) -> Option<bool> {
        match (self, base) {
            (Self::Uri(uri), SubtreeBase::Uri(base)) => Some(is_host_below(&uri_host(uri)?, base)),
            (Self::Email(email), SubtreeBase::Email(base)) => is_email_below(email, base),
            (Self::Directory(name), SubtreeBase::Directory(base)) => Some(name_parts(name).starts_with(base)),
            _ => Some(false),
        }
    }
}

/// The host of a URI in lower case. RFC 5280: a URI without a host, or with an IP address, satisfies no constraint.
fn uri_host(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let authority = rest.split(['/', '?', '#']).next()?;
    if authority.contains('\\') {
        return None; // some parsers end the host there
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) => return None,
        None => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_name = host.split('.').all(is_label);
    (is_scheme && is_name && host.parse::<std::net::Ipv4Addr>().is_err()).then(|| host.to_ascii_lowercase())
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A constraint with a leading dot matches every host below it; any other matches that host alone.
fn is_host_below(host: &str, base: &str) -> bool {
    let base = base.strip_suffix('.').unwrap_or(base);
    match base.strip_prefix('.') {
        Some(domain) => host.strip_suffix(domain).is_some_and(|above| above.len() > 1 && above.ends_with('.')),
        None => host == base,
    }
}

/// A constraint may be an address, a host, or with a leading dot a domain.
fn is_email_below(email: &str, base: &str) -> Option<bool> {
    let (local, host) = email.rsplit_once('@').filter(|(local, _)| !local.is_empty())?;
    let host = host.to_ascii_lowercase();
    Some(match base.rsplit_once('@') {
        Some((base_local, base_host)) => local.eq_ignore_ascii_case(base_local) && host == base_host,
        None => is_host_below(&host, base),
    })
}

fn name_parts(name: &X509Name<'_>) -> Vec<RdnAttributes> {
    name.iter().map(rdn_attributes).collect()
}

fn rdn_attributes(name: &RelativeDistinguishedName<'_>) -> RdnAttributes {
    let mut attributes: RdnAttributes =
        name.iter().map(|attribute| (attribute.attr_type().to_id_string(), comparable_value(attribute))).collect();
    attributes.sort();
    attributes
}

/// The canonical form of a value for the comparison of RFC 5280 section 7.1: without case, blanks at its ends, or
/// repeated blanks.
fn comparable_value(attribute: &AttributeTypeAndValue<'_>) -> Vec<u8> {
    match attribute.as_str() {
        Ok(text) => text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ").into_bytes(),
        Err(_) => attribute.as_slice().to_vec(),
    }
}

/// The kinds of names that an authority constrains and webpki does not evaluate, in words; `None` if there are none.
pub(crate) fn unjudged_kinds(constraints: &NameConstraints<'_>) -> Option<String> {
    let subtrees = [&constraints.permitted_subtrees, &constraints.excluded_subtrees];
    let mut kinds: Vec<&str> = subtrees
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|subtree| match subtree.base {
            GeneralName::DNSName(_) | GeneralName::IPAddress(_) => None,
            GeneralName::URI(_) => Some("URI"),
            GeneralName::DirectoryName(_) => Some("directory name"),
            GeneralName::RFC822Name(_) => Some("e-mail"),
            _ => Some("other"),
        })
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    (!kinds.is_empty()).then(|| kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn rules(permitted: &[(u8, &[u8])], excluded: &[(u8, &[u8])]) -> SplitConstraints {
        let subtrees = |tag, bases: &[(u8, &[u8])]| {
            let bases: Vec<u8> =
                bases.iter().flat_map(|(kind, base)| encode_element(SEQUENCE, &encode_element(*kind, base))).collect();
            if bases.is_empty() { bases } else { encode_element(tag, &bases) }
        };
        let constraints = [subtrees(constructed_tag(0), permitted), subtrees(constructed_tag(1), excluded)].concat();
        SplitConstraints::from_extension(Some(&constraints))
    }

    fn certificate(sans: Vec<SanType>, subject: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans;
        params.distinguished_name = DistinguishedName::new();
        for (kind, text) in subject {
            params.distinguished_name.push(kind.clone(), *text);
        }
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec()
    }

    fn keeps(rules: &NameConstraintRules, der: &[u8]) -> bool {
        rules.check_certificate(&X509Certificate::from_der(der).expect("a certificate").1).is_ok()
    }

    fn uri(text: &str) -> Vec<u8> {
        certificate(vec![SanType::URI(text.try_into().expect("ASCII"))], &[])
    }

    #[test]
    fn uris_are_matched_by_their_host() {
        let host = rules(&[(URI, b"City.example")], &[]).rules;
        let domain = rules(&[(URI, b".city.example")], &[]).rules;
        let excluded = rules(&[], &[(URI, b"evil.example"), (URI, b".evil.example")]).rules;
        for (text, of_host, below_domain, not_evil) in [
            ("spiffe://city.example/department/police", true, false, true),
            ("spiffe://CITY.example./x", true, false, true),
            ("https://u:p@city.example:443/?q#f", true, false, true),
            ("https://a.city.example/", false, true, true),
            ("https://a.b.city.example", false, true, true),
            ("https://acity.example", false, false, true),
            ("https://.city.example", false, false, false),
            ("https://evil.example/city.example", false, false, false),
            ("https://x.evil.example", false, false, false),
            ("https://city.example@evil.example/", false, false, false),
            ("https://evil.example\\@city.example/", false, false, false),
            ("https://192.0.2.1/", false, false, false),
            ("https://[2001:db8::1]/", false, false, false),
            ("urn:uuid:1", false, false, false),
            ("spiffe:///x", false, false, false),
        ] {
            let der = uri(text);
            let found = (keeps(&host, &der), keeps(&domain, &der), keeps(&excluded, &der));
            assert_eq!(found, (of_host, below_domain, not_evil), "{text}");
        }
        let nameless = certificate(vec![], &[(DnType::CommonName, "a")]);
        assert!(keeps(&host, &nameless), "a constraint on URIs does not apply to other names");
    }

    #[test]
    fn emails_are_matched_by_address_host_and_domain() {
        let email = |text: &str| certificate(vec![SanType::Rfc822Name(text.try_into().expect("ASCII"))], &[]);
        for (base, text, expected) in [
            ("a@city.example", "A@City.example", true),
            ("a@city.example", "b@city.example", false),
            ("city.example", "b@city.example", true),
            ("city.example", "b@x.city.example", false),
            (".city.example", "b@x.city.example", true),
            (".city.example", "b@city.example", false),
            ("city.example", "no address", false),
        ] {
            assert_eq!(keeps(&rules(&[(EMAIL, base.as_bytes())], &[]).rules, &email(text)), expected, "{base} {text}");
        }
    }

    #[test]
    fn directory_names_are_matched_by_prefix() {
        let country = |text| (DnType::CountryName, text);
        let base = certificate(vec![], &[country("CN"), (DnType::OrganizationName, "The  City")]);
        let (_, base) = X509Certificate::from_der(&base).expect("a certificate");
        let base = base.subject().as_raw();
        let (permitted, excluded) =
            (rules(&[(DIRECTORY_NAME, base)], &[]).rules, rules(&[], &[(DIRECTORY_NAME, base)]).rules);
        for (subject, expected) in [
            (vec![country("CN"), (DnType::OrganizationName, "the city "), (DnType::CommonName, "a")], true),
            (vec![country("CN"), (DnType::OrganizationName, "The City")], true),
            (vec![country("CN"), (DnType::OrganizationName, "Another")], false),
            (vec![country("CN")], false),
        ] {
            let der = certificate(vec![], &subject);
            assert_eq!((keeps(&permitted, &der), !keeps(&excluded, &der)), (expected, expected), "{subject:?}");
        }
        assert!(keeps(&permitted, &uri("spiffe://a/b")), "without a subject there is no directory name");
    }

    #[test]
    fn constraints_that_webpki_enforces_are_left_to_webpki() {
        const DNS: u8 = primitive_tag(2);
        let split = rules(&[(DNS, b"a.example"), (URI, b"city.example")], &[(URI, b"b.example")]);
        let kept = encode_element(constructed_tag(0), &encode_element(SEQUENCE, &encode_element(DNS, b"a.example")));
        assert_eq!(split.for_webpki.as_deref(), Some(&kept[..]));
        assert_eq!((split.rules.permitted.len(), split.rules.excluded.len()), (1, 1));
        assert_eq!(rules(&[(URI, b"a")], &[]).for_webpki, None);
        let odd = encode_element(
            constructed_tag(0),
            &encode_element(SEQUENCE, &[encode_element(URI, b"a"), encode_element(primitive_tag(1), &[1])].concat()),
        );
        let split = SplitConstraints::from_extension(Some(&odd));
        assert_eq!(split.for_webpki.as_deref(), Some(&odd[..]), "with a maximum");
        assert!(split.rules.is_empty());
        assert_eq!(SplitConstraints::from_extension(Some(b"junk")).for_webpki.as_deref(), Some(&b"junk"[..]));
    }
}
