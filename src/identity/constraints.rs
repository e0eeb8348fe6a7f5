//! Name constraints of authorities (RFC 5280 section 4.2.1.10): which names their certificates may hold.
//!
//! webpki judges DNS names and IP addresses, and refuses every certificate that has a name of any other constrained kind.
//! Here the constraints on URIs, directory names and e-mail addresses of a *configured* authority are taken out of what
//! webpki is given, and judged. Those of intermediate certificates stay with webpki: they are refused
//! (docs/decisions/certificates.md).
//!
//! Guarantees: what is not understood stays with webpki, and so refuses. Where an exclusion is in doubt, it holds.

use rustls::pki_types::Der;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, NameConstraints};
use x509_parser::oid_registry::OID_PKCS9_EMAIL_ADDRESS;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name};

use super::der::{Element, Elements, Malformed, SEQUENCE, constructed, encode, primitive};
use super::shown::printable;

const EMAIL: u8 = primitive(1);
const DIRECTORY_NAME: u8 = constructed(4);
const URI: u8 = primitive(6);

/// The constraints of one authority on names that webpki does not judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NameRules {
    permitted: Vec<NameBase>,
    excluded: Vec<NameBase>,
}

/// The base of a subtree of names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NameBase {
    /// A host, or with a dot in front every host below a domain.
    Uri(String),
    /// An address, a host, or with a dot in front every host below a domain.
    Email(String),
    /// The beginning of a directory name.
    Directory(Vec<NamePart>),
}

/// One relative distinguished name: its attributes in a comparable form, sorted.
type NamePart = Vec<(String, Vec<u8>)>;

/// A constraint that a certificate does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BrokenRule(pub(super) String);

/// What an authority's constraints come to.
pub(super) struct SplitConstraints {
    /// What webpki judges; the contents of the extension's sequence.
    pub(super) of_webpki: Option<Der<'static>>,
    /// What is judged here.
    pub(super) rules: NameRules,
}

impl SplitConstraints {
    /// Splits the constraints that webpki has found in an authority.
    pub(super) fn of(constraints: Option<&[u8]>) -> Self {
        let untouched = || Self {
            of_webpki: constraints.map(|constraints| Der::from(constraints.to_vec())),
            rules: NameRules::default(),
        };
        match constraints {
            Some(constraints) => split(constraints).unwrap_or_else(|Malformed| untouched()),
            None => untouched(),
        }
    }
}

fn split(constraints: &[u8]) -> Result<SplitConstraints, Malformed> {
    let mut fields = Elements::of(constraints);
    let (mut rest, mut rules) = (Vec::new(), NameRules::default());
    for (tag, ours) in [(constructed(0), &mut rules.permitted), (constructed(1), &mut rules.excluded)] {
        let Some(subtrees) = fields.optional(tag)? else { continue };
        let (mut subtrees, mut others) = (Elements::of(subtrees.value), Vec::new());
        while !subtrees.is_empty() {
            let subtree = subtrees.expect(SEQUENCE)?;
            match base(subtree) {
                Some(base) => ours.push(base),
                None => others.extend_from_slice(subtree.raw),
            }
        }
        if !others.is_empty() {
            rest.extend(encode(tag, &others));
        }
    }
    if !fields.is_empty() {
        return Err(Malformed);
    }
    let of_webpki = (!rest.is_empty()).then(|| Der::from(rest));
    Ok(SplitConstraints { of_webpki, rules })
}

/// The base of a subtree, if it is of a kind that is judged here.
fn base(subtree: Element<'_>) -> Option<NameBase> {
    let mut fields = Elements::of(subtree.value);
    let name = fields.next().ok()?;
    if !fields.is_empty() {
        return None; // minimum or maximum, which RFC 5280 does not allow
    }
    let text = || std::str::from_utf8(name.value).ok().map(str::to_ascii_lowercase);
    match name.tag {
        URI => text().map(NameBase::Uri),
        EMAIL => text().map(NameBase::Email),
        DIRECTORY_NAME => X509Name::from_der(name.value).ok().map(|(_, name)| NameBase::Directory(parts(&name))),
        _ => None,
    }
}

impl NameRules {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.permitted.is_empty() && self.excluded.is_empty()
    }

    /// Judges the names of a certificate.
    pub(super) fn judge(&self, certificate: &X509Certificate<'_>) -> Result<(), BrokenRule> {
        if self.is_empty() {
            return Ok(());
        }
        for name in names(certificate)? {
            self.judge_name(&name)?;
        }
        Ok(())
    }

    fn judge_name(&self, name: &ShownName<'_>) -> Result<(), BrokenRule> {
        let broken = |why: &str| Err(BrokenRule(format!("{name} {why}")));
        let excludes = |base: &NameBase| name.is_below(base).unwrap_or(true); // what cannot be read is excluded
        let of_its_kind = |base: &&NameBase| name.is_of_the_kind_of(base);
        if self.excluded.iter().filter(of_its_kind).any(excludes) {
            return broken("is excluded by the name constraints of its authority");
        }
        let mut permitted = self.permitted.iter().filter(of_its_kind).peekable();
        if permitted.peek().is_some() && !permitted.any(|base| name.is_below(base).unwrap_or(false)) {
            return broken("is not permitted by the name constraints of its authority");
        }
        Ok(())
    }
}

/// A name in a certificate that may be constrained.
enum ShownName<'a> {
    Uri(&'a str),
    Email(&'a str),
    Directory(X509Name<'a>),
}

impl std::fmt::Display for ShownName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uri(uri) => write!(f, "the URI {}", printable(uri)),
            Self::Email(email) => write!(f, "the e-mail address {}", printable(email)),
            Self::Directory(name) => write!(f, "the name {}", printable(&name.to_string())),
        }
    }
}

/// The names that may be constrained: alternative names, the subject, and, where there are no alternative names, the
/// e-mail addresses in the subject.
fn names<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<ShownName<'a>>, BrokenRule> {
    let unreadable = |_| BrokenRule("its alternative names cannot be read".to_owned());
    let alternatives = certificate.subject_alternative_name().map_err(unreadable)?;
    let subject = certificate.subject();
    let mut names = Vec::new();
    if subject.iter().next().is_some() {
        names.push(ShownName::Directory(subject.clone()));
    }
    if alternatives.is_none() {
        let emails = subject.iter_by_oid(&OID_PKCS9_EMAIL_ADDRESS).filter_map(|email| email.as_str().ok());
        names.extend(emails.map(ShownName::Email));
    }
    for name in alternatives.iter().flat_map(|alternatives| &alternatives.value.general_names) {
        match name {
            GeneralName::URI(uri) => names.push(ShownName::Uri(uri)),
            GeneralName::RFC822Name(email) => names.push(ShownName::Email(email)),
            GeneralName::DirectoryName(name) => names.push(ShownName::Directory(name.clone())),
            GeneralName::Invalid(..) => {
                return Err(BrokenRule("one of its alternative names cannot be read".to_owned()));
            }
            _ => {}
        }
    }
    Ok(names)
}

impl ShownName<'_> {
    fn is_of_the_kind_of(&self, base: &NameBase) -> bool {
        matches!(
            (self, base),
            (Self::Uri(_), NameBase::Uri(_))
                | (Self::Email(_), NameBase::Email(_))
                | (Self::Directory(_), NameBase::Directory(_))
        )
    }

    /// Whether it lies in the subtree; `None` if it cannot be said.
    fn is_below(&self, base: &NameBase) -> Option<bool> {
        match (self, base) {
            (Self::Uri(uri), NameBase::Uri(base)) => Some(is_host_below(&host_of(uri)?, base)),
            (Self::Email(email), NameBase::Email(base)) => is_email_below(email, base),
            (Self::Directory(name), NameBase::Directory(base)) => Some(parts(name).starts_with(base)),
            _ => Some(false),
        }
    }
}

/// The host of a URI in lower case. RFC 5280: a URI without one, or with an IP address, keeps no constraint.
fn host_of(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let authority = rest.split(['/', '?', '#']).next()?;
    if authority.contains('\\') {
        return None; // for some readers, the host ends there
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

/// A constraint with a dot in front is kept by every host below it, any other by that host alone.
fn is_host_below(host: &str, base: &str) -> bool {
    let base = base.strip_suffix('.').unwrap_or(base);
    match base.strip_prefix('.') {
        Some(domain) => host.strip_suffix(domain).is_some_and(|above| above.len() > 1 && above.ends_with('.')),
        None => host == base,
    }
}

/// A constraint may be an address, a host, or with a dot in front a domain.
fn is_email_below(email: &str, base: &str) -> Option<bool> {
    let (local, host) = email.rsplit_once('@').filter(|(local, _)| !local.is_empty())?;
    let host = host.to_ascii_lowercase();
    Some(match base.rsplit_once('@') {
        Some((base_local, base_host)) => local.eq_ignore_ascii_case(base_local) && host == base_host,
        None => is_host_below(&host, base),
    })
}

fn parts(name: &X509Name<'_>) -> Vec<NamePart> {
    name.iter().map(part).collect()
}

fn part(name: &RelativeDistinguishedName<'_>) -> NamePart {
    let mut attributes: NamePart =
        name.iter().map(|attribute| (attribute.attr_type().to_id_string(), value(attribute))).collect();
    attributes.sort();
    attributes
}

/// A value as RFC 5280 section 7.1 compares it: without case, blanks at its ends, or more than one blank in a row.
fn value(attribute: &AttributeTypeAndValue<'_>) -> Vec<u8> {
    match attribute.as_str() {
        Ok(text) => text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ").into_bytes(),
        Err(_) => attribute.as_slice().to_vec(),
    }
}

/// The kinds of names that an authority constrains and webpki does not judge, in words; `None` if there are none.
pub(super) fn unjudged_kinds(constraints: &NameConstraints<'_>) -> Option<String> {
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
            let bases: Vec<u8> = bases.iter().flat_map(|(kind, base)| encode(SEQUENCE, &encode(*kind, base))).collect();
            if bases.is_empty() { bases } else { encode(tag, &bases) }
        };
        let constraints = [subtrees(constructed(0), permitted), subtrees(constructed(1), excluded)].concat();
        SplitConstraints::of(Some(&constraints))
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

    fn keeps(rules: &NameRules, der: &[u8]) -> bool {
        rules.judge(&X509Certificate::from_der(der).expect("a certificate").1).is_ok()
    }

    fn uri(text: &str) -> Vec<u8> {
        certificate(vec![SanType::URI(text.try_into().expect("ASCII"))], &[])
    }

    #[test]
    fn uris_are_judged_by_their_host() {
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
        assert!(keeps(&host, &nameless), "a constraint on URIs says nothing of other names");
    }

    #[test]
    fn emails_are_judged_by_address_host_and_domain() {
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
    fn directory_names_are_judged_from_their_beginning() {
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
        assert!(keeps(&permitted, &uri("spiffe://a/b")), "no subject, no directory name");
    }

    #[test]
    fn what_webpki_judges_stays_with_webpki() {
        const DNS: u8 = primitive(2);
        let split = rules(&[(DNS, b"a.example"), (URI, b"city.example")], &[(URI, b"b.example")]);
        let kept = encode(constructed(0), &encode(SEQUENCE, &encode(DNS, b"a.example")));
        assert_eq!(split.of_webpki.as_deref(), Some(&kept[..]));
        assert_eq!((split.rules.permitted.len(), split.rules.excluded.len()), (1, 1));
        assert_eq!(rules(&[(URI, b"a")], &[]).of_webpki, None);
        let odd = encode(constructed(0), &encode(SEQUENCE, &[encode(URI, b"a"), encode(primitive(1), &[1])].concat()));
        let split = SplitConstraints::of(Some(&odd));
        assert_eq!(split.of_webpki.as_deref(), Some(&odd[..]), "with a maximum");
        assert!(split.rules.is_empty());
        assert_eq!(SplitConstraints::of(Some(b"junk")).of_webpki.as_deref(), Some(&b"junk"[..]));
    }
}
