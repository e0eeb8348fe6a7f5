//! The scope of a revocation list (RFC 5280 sections 5.2.5 and 6.3.3), and the distribution points of a certificate
//! (section 4.2.1.13).
//!
//! Guarantees: a list is used only if its whole scope is understood. Names are compared byte for byte.

use crate::identity::der::der_reader::{
    DerReader, MalformedDer, SEQUENCE, constructed_tag, only_element, primitive_tag,
};

/// The tag of a URI among general names.
const URI: u8 = primitive_tag(6);
/// The tag of a directory name among general names.
const DIRECTORY_NAME: u8 = constructed_tag(4);

/// The scope of a list: the certificates of its issuer that it covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CrlScopeExtension {
    certificates: CoveredCertificates,
    /// The distribution points that the list serves, as encoded general names; `None` means all.
    points: Option<Vec<Box<[u8]>>>,
}

/// The kinds of certificates that a list covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CoveredCertificates {
    #[default]
    All,
    User,
    Authority,
}

/// The reason why the scope of a list cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadCrlScope {
    /// The encoding violates RFC 5280.
    Malformed,
    /// An unsupported kind of scope: the kind, and advice.
    Unsupported(&'static str),
}

impl From<MalformedDer> for BadCrlScope {
    fn from(_: MalformedDer) -> Self {
        Self::Malformed
    }
}

/// The fields of a certificate that decide whether a scope covers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScopedCertificate<'a> {
    /// Whether it is the certificate of an intermediate authority.
    pub(crate) is_authority: bool,
    /// Its issuer's name, encoded.
    pub(crate) issuer: &'a [u8],
    /// Its cRLDistributionPoints extension, if it has one.
    pub(crate) points: Option<&'a [u8]>,
}

impl CrlScopeExtension {
    /// Reads an issuingDistributionPoint extension.
    pub(crate) fn parse(extension: &[u8]) -> Result<Self, BadCrlScope> {
        let mut fields = DerReader::new(only_element(extension, SEQUENCE)?);
        let name = fields.optional_tag(constructed_tag(0))?;
        let (user, authority) = (read_flag(&mut fields, 1)?, read_flag(&mut fields, 2)?);
        if fields.optional_tag(primitive_tag(3))?.is_some() {
            return Err(BadCrlScope::Unsupported(
                "covers only some reasons for a revocation (onlySomeReasons); have the authority issue a list for all \
                 reasons",
            ));
        }
        let (indirect, attribute) = (read_flag(&mut fields, 4)?, read_flag(&mut fields, 5)?);
        if indirect {
            return Err(BadCrlScope::Unsupported(
                "is an indirect list (it covers certificates of other issuers, RFC 5280 section 5.2.5); have each \
                 authority sign a list of its own",
            ));
        }
        if attribute {
            return Err(BadCrlScope::Unsupported(
                "covers only attribute certificates (onlyContainsAttributeCerts), which clients do not present; remove \
                 it",
            ));
        }
        let certificates = match (user, authority) {
            (false, false) => CoveredCertificates::All,
            (true, false) => CoveredCertificates::User,
            (false, true) => CoveredCertificates::Authority,
            (true, true) => return Err(BadCrlScope::Malformed),
        };
        if !fields.is_empty() {
            return Err(BadCrlScope::Malformed);
        }
        let points = name.map(|name| full_names(name.value)).transpose()?;
        Ok(Self { certificates, points })
    }

    /// Whether a list with this scope covers that certificate of its issuer.
    pub(crate) fn covers(&self, certificate: &ScopedCertificate<'_>) -> bool {
        let kind = match self.certificates {
            CoveredCertificates::All => true,
            CoveredCertificates::User => !certificate.is_authority,
            CoveredCertificates::Authority => certificate.is_authority,
        };
        let Some(points) = &self.points else { return kind };
        let is_named = |name: &[u8]| points.iter().any(|point| **point == *name);
        kind && match certificate.points {
            Some(extension) => distribution_point_names(extension).is_ok_and(|names| names.into_iter().any(is_named)),
            // RFC 5280 section 6.3.3: without distribution points, the name of the certificate's issuer stands for the
            // point.
            None => points.iter().any(|point| is_directory_name(point, certificate.issuer)),
        }
    }
}

impl std::fmt::Display for CrlScopeExtension {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.certificates {
            CoveredCertificates::All => "all certificates",
            CoveredCertificates::User => "callers' certificates only",
            CoveredCertificates::Authority => "authorities' certificates only",
        })?;
        let Some(points) = &self.points else { return Ok(()) };
        f.write_str(" of the distribution point")?;
        for (index, point) in points.iter().enumerate() {
            let between = if index == 0 { " " } else { ", " };
            let mut name = DerReader::new(point);
            match name.next_element() {
                Ok(uri) if uri.tag == URI => {
                    write!(f, "{between}{}", String::from_utf8_lossy(uri.value).escape_debug())?
                }
                _ => write!(f, "{between}that is not a URI")?,
            }
        }
        Ok(())
    }
}

/// A flag of the extension. DER omits a flag that is false.
fn read_flag(fields: &mut DerReader<'_>, number: u8) -> Result<bool, MalformedDer> {
    match fields.optional_tag(primitive_tag(number))? {
        None => Ok(false),
        Some(flag) if flag.value.len() == 1 => Ok(flag.value != [0]),
        Some(_) => Err(MalformedDer),
    }
}

/// The general names of a DistributionPointName in its fullName form.
fn full_names(name: &[u8]) -> Result<Vec<Box<[u8]>>, BadCrlScope> {
    let mut choice = DerReader::new(name);
    if choice.optional_tag(constructed_tag(1))?.is_some() {
        return Err(BadCrlScope::Unsupported(
            "names its distribution point relative to its issuer (nameRelativeToCRLIssuer); have the authority write a \
             full name, such as a URI",
        ));
    }
    let names = general_names(choice.expect_tag(constructed_tag(0))?.value)?;
    match choice.is_empty() && !names.is_empty() {
        true => Ok(names.into_iter().map(Box::from).collect()),
        false => Err(BadCrlScope::Malformed),
    }
}

fn general_names(names: &[u8]) -> Result<Vec<&[u8]>, MalformedDer> {
    let (mut names, mut read) = (DerReader::new(names), Vec::new());
    while !names.is_empty() {
        read.push(names.next_element()?.raw);
    }
    Ok(read)
}

/// The full names of the distribution points that the certificate lists for all reasons and that belong to its own
/// issuer.
fn distribution_point_names(extension: &[u8]) -> Result<Vec<&[u8]>, MalformedDer> {
    let (mut points, mut names) = (DerReader::new(only_element(extension, SEQUENCE)?), Vec::new());
    while !points.is_empty() {
        let mut fields = DerReader::new(points.expect_tag(SEQUENCE)?.value);
        let name = fields.optional_tag(constructed_tag(0))?;
        let reasons = fields.optional_tag(primitive_tag(1))?;
        let issuer = fields.optional_tag(constructed_tag(2))?;
        let (Some(name), None, None) = (name, reasons, issuer) else { continue };
        let mut choice = DerReader::new(name.value);
        if let Some(full) = choice.optional_tag(constructed_tag(0))? {
            names.extend(general_names(full.value)?);
        }
    }
    Ok(names)
}

fn is_directory_name(name: &[u8], issuer: &[u8]) -> bool {
    only_element(name, DIRECTORY_NAME).is_ok_and(|name| name == issuer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::der::der_reader::encode_element;

    fn uri(text: &str) -> Vec<u8> {
        encode_element(URI, text.as_bytes())
    }

    fn name(names: &[Vec<u8>]) -> Vec<u8> {
        encode_element(constructed_tag(0), &encode_element(constructed_tag(0), &names.concat()))
    }

    fn flag(number: u8) -> Vec<u8> {
        encode_element(primitive_tag(number), &[0xff])
    }

    fn scope(fields: &[Vec<u8>]) -> Result<CrlScopeExtension, BadCrlScope> {
        CrlScopeExtension::parse(&encode_element(SEQUENCE, &fields.concat()))
    }

    fn points(points: &[Vec<u8>]) -> Vec<u8> {
        let points: Vec<u8> = points.iter().flat_map(|fields| encode_element(SEQUENCE, fields)).collect();
        encode_element(SEQUENCE, &points)
    }

    const ISSUER: &[u8] = &[0x30, 0x00];

    fn covers(scope: &CrlScopeExtension, is_authority: bool, points: Option<&[u8]>) -> bool {
        scope.covers(&ScopedCertificate { is_authority, issuer: ISSUER, points })
    }

    #[test]
    fn crl_without_a_scope_covers_all_certificates() {
        let all = CrlScopeExtension::default();
        let pointed = points(&[name(&[uri("http://x/a.crl")])]);
        for (is_authority, points) in
            [(false, None), (true, None), (false, Some(&pointed[..])), (true, Some(&pointed[..]))]
        {
            assert!(covers(&all, is_authority, points));
        }
        assert_eq!(all.to_string(), "all certificates");
    }

    #[test]
    fn scope_can_be_limited_to_one_kind_of_certificates() {
        let (user, authority) = (scope(&[flag(1)]).expect("a scope"), scope(&[flag(2)]).expect("a scope"));
        assert!(covers(&user, false, None) && !covers(&user, true, None));
        assert!(!covers(&authority, false, None) && covers(&authority, true, None));
        assert_eq!(user.to_string(), "callers' certificates only");
    }

    #[test]
    fn partition_covers_certificates_with_its_distribution_point() {
        let b = scope(&[name(&[uri("http://x/other"), uri("http://x/b.crl")])]).expect("a scope");
        assert!(b.to_string().ends_with("of the distribution point http://x/other, http://x/b.crl"));
        let to_a = points(&[name(&[uri("http://x/a.crl")])]);
        let to_both = points(&[name(&[uri("http://x/a.crl")]), name(&[uri("ldap://y"), uri("http://x/b.crl")])]);
        assert!(covers(&b, false, Some(&to_both)));
        assert!(!covers(&b, false, Some(&to_a)));
        assert!(!covers(&b, false, None), "a certificate without a distribution point is in no partition");
        let some_reasons =
            points(&[[name(&[uri("http://x/b.crl")]), encode_element(primitive_tag(1), &[1, 0x40])].concat()]);
        let of_another =
            points(&[[name(&[uri("http://x/b.crl")]), encode_element(constructed_tag(2), &uri("c"))].concat()]);
        assert!(!covers(&b, false, Some(&some_reasons)) && !covers(&b, false, Some(&of_another)));
        assert!(!covers(&b, false, Some(&to_both[..to_both.len() - 1])), "malformed distribution points are ignored");
        let user_b = scope(&[name(&[uri("http://x/b.crl")]), flag(1)]).expect("a scope");
        assert!(covers(&user_b, false, Some(&to_both)) && !covers(&user_b, true, Some(&to_both)));
    }

    #[test]
    fn issuer_name_is_the_distribution_point_of_certificates_without_one() {
        let own = scope(&[name(&[encode_element(DIRECTORY_NAME, ISSUER)])]).expect("a scope");
        let another = scope(&[name(&[encode_element(DIRECTORY_NAME, &[0x30, 0x02, 0x31, 0x00])])]).expect("a scope");
        assert!(covers(&own, false, None) && !covers(&another, false, None));
    }

    #[test]
    fn unsupported_scope_is_named_and_malformed_scope_is_refused() {
        for (fields, expected) in [
            (vec![encode_element(primitive_tag(3), &[1, 0x40])], "onlySomeReasons"),
            (vec![flag(4)], "indirect"),
            (vec![flag(5)], "attribute certificates"),
            (
                vec![encode_element(constructed_tag(0), &encode_element(constructed_tag(1), &[]))],
                "nameRelativeToCRLIssuer",
            ),
        ] {
            let Err(BadCrlScope::Unsupported(message)) = scope(&fields) else { panic!("{expected}") };
            assert!(message.contains(expected), "{message}");
        }
        for fields in [
            vec![flag(1), flag(2)],
            vec![flag(6)],
            vec![flag(2), flag(1)],
            vec![encode_element(primitive_tag(1), &[])],
            vec![encode_element(constructed_tag(0), &encode_element(constructed_tag(0), &[]))],
            vec![encode_element(constructed_tag(0), &[])],
        ] {
            assert_eq!(scope(&fields), Err(BadCrlScope::Malformed), "{fields:x?}");
        }
        assert_eq!(CrlScopeExtension::parse(&[]), Err(BadCrlScope::Malformed));
    }
}
