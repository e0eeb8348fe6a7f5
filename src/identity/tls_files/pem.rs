//! PEM text, parsed section by section (RFC 7468). One parser for certificates, revocation lists and keys.
//!
//! Guarantees:
//! - No section is skipped. Each section is returned with its kind and line, or is a problem that names the line.
//! - The parser accepts a byte order mark, CR LF, blanks around lines, and sections joined by a missing line end. It
//!   reads them as OpenSSL or a person would.
//! - Text between sections is a comment, unless it holds a boundary.
//!
//! Leaves to others: the file (`pem_source`), base64 (rustls-pki-types), and the meaning of the bytes.

use std::fmt;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::identity::der::der_reader::{DerReader, SEQUENCE};

use super::tls_problem::TlsProblem;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const BOUNDARY: &str = "-----";

/// The kind of a section's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectionKind {
    /// A certificate.
    Certificate,
    /// A certificate in the form of OpenSSL (`TRUSTED CERTIFICATE`), which may be followed by trust settings.
    TrustedCertificate,
    /// A revocation list.
    RevocationList,
    /// A private key.
    PrivateKey,
    /// An encrypted private key, which needs a password.
    EncryptedKey,
    /// Parameters of a key or a key exchange, as OpenSSL writes them before a key. The parser does not need them.
    Parameters,
    /// A certificate signing request.
    Request,
    /// A public key.
    PublicKey,
}

/// One section of a PEM file.
pub(crate) struct PemSection {
    pub(crate) kind: SectionKind,
    /// The line of the BEGIN boundary, from 1.
    pub(crate) line: usize,
    /// The label and the base64 lines, in the form that rustls-pki-types reads.
    label: String,
    base64: String,
}

impl SectionKind {
    fn from_label(label: &str) -> Option<Self> {
        Some(match label {
            "CERTIFICATE" | "X509 CERTIFICATE" => Self::Certificate,
            "TRUSTED CERTIFICATE" => Self::TrustedCertificate,
            "X509 CRL" => Self::RevocationList,
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Self::PrivateKey,
            "ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
            "EC PARAMETERS" | "DH PARAMETERS" | "DSA PARAMETERS" | "X9.42 DH PARAMETERS" => Self::Parameters,
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::Request,
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::PublicKey,
            _ => return None,
        })
    }

    /// The kind in words, with the article.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Certificate | Self::TrustedCertificate => "a certificate",
            Self::RevocationList => "a revocation list",
            Self::PrivateKey => "a private key",
            Self::EncryptedKey => "an encrypted private key",
            Self::Parameters => "parameters of a key",
            Self::Request => "a certificate signing request",
            Self::PublicKey => "a public key",
        }
    }
}

impl fmt::Debug for PemSection {
    /// Omits the contents, which may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemSection").field("kind", &self.kind).field("line", &self.line).finish_non_exhaustive()
    }
}

/// A syntax error at a line.
#[derive(Debug)]
pub(crate) struct PemError {
    line: usize,
    what: String,
}

impl PemError {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }

    pub(crate) fn as_problem(&self, path: &Path) -> TlsProblem {
        TlsProblem::new(path, format!("is not well-formed PEM: line {}: {}", self.line, self.what))
    }
}

/// A section whose END boundary has not been read yet.
struct OpenSection {
    line: usize,
    label: String,
    kind: SectionKind,
    base64: String,
}

/// All sections of a PEM text, in their order.
pub(crate) fn parse_sections(bytes: &[u8]) -> Result<Vec<PemSection>, PemError> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let (mut read, mut open, mut last) = (Vec::new(), None, 0);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        last = index + 1;
        let text = String::from_utf8_lossy(line);
        let mut rest = text.trim();
        if !looks_like_a_boundary(rest) {
            take_line(&mut open, rest, last)?;
            continue;
        }
        while !rest.is_empty() {
            let (boundary, after) = parse_boundary(rest).ok_or_else(|| stray_boundary(rest, last))?;
            rest = after.trim_start();
            consume_line(boundary, (&mut open, &mut read), last)?;
        }
    }
    match open {
        None => Ok(read),
        Some(OpenSection { line, label, .. }) => Err(PemError::new(
            last,
            format!(
                "the file ends inside the section {label:?} that begins in line {line}: it is truncated, or its \
                 \"-----END {label}-----\" is missing"
            ),
        )),
    }
}

/// Whether a line is a boundary, or was meant to be one. A boundary that is not recognised would lose a section.
fn looks_like_a_boundary(text: &str) -> bool {
    let has_word = |text: &str| text.contains("BEGIN") || text.contains("END");
    text.contains("--") && (has_word(text) || text.contains(BOUNDARY) && has_word(&text.to_ascii_uppercase()))
}

/// Processes one line inside or outside of a section.
fn take_line(open: &mut Option<OpenSection>, text: &str, line: usize) -> Result<(), PemError> {
    let Some(section) = open else { return Ok(()) }; // a comment
    if text.is_empty() {
        return Ok(());
    }
    // RFC 1421 headers of the traditional OpenSSL format. Base64 holds no colon.
    if let Some((name, value)) = text.split_once(':') {
        if name == "Proc-Type" && value.contains("ENCRYPTED") {
            section.kind = SectionKind::EncryptedKey;
        }
        return Ok(());
    }
    let is_base64 = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
    if !is_base64 {
        return Err(PemError::new(line, format!("the section {:?} is not base64", section.label)));
    }
    section.base64 += text;
    section.base64 += "\n";
    Ok(())
}

/// A boundary at the beginning of the text, and the text after it.
fn parse_boundary(text: &str) -> Option<(PemBoundary<'_>, &str)> {
    let inside = text.strip_prefix(BOUNDARY)?;
    let (inside, after) = inside.split_once(BOUNDARY)?;
    let begins = inside.strip_prefix("BEGIN ").map(PemBoundary::Begin);
    begins.or_else(|| inside.strip_prefix("END ").map(PemBoundary::End)).map(|boundary| (boundary, after))
}

/// A boundary line, with its label.
enum PemBoundary<'a> {
    Begin(&'a str),
    End(&'a str),
}

fn consume_line(
    boundary: PemBoundary<'_>,
    (open, read): (&mut Option<OpenSection>, &mut Vec<PemSection>),
    line: usize,
) -> Result<(), PemError> {
    match (boundary, open.take()) {
        (PemBoundary::Begin(label), None) => {
            let kind = SectionKind::from_label(label)
                .ok_or_else(|| PemError::new(line, format!("contains an unknown section {label:?}; remove it")))?;
            *open = Some(OpenSection { line, label: label.to_owned(), kind, base64: String::new() });
        }
        (PemBoundary::Begin(label), Some(before)) => {
            return Err(PemError::new(
                line,
                format!(
                    "a section {label:?} begins, but the section {:?} that begins in line {} has no end",
                    before.label, before.line
                ),
            ));
        }
        (PemBoundary::End(label), Some(before)) if before.label == label => {
            let OpenSection { line, label, kind, base64 } = before;
            read.push(PemSection { kind, line, label, base64 });
        }
        (PemBoundary::End(label), _) => {
            return Err(PemError::new(line, format!("a section {label:?} ends without a begin")));
        }
    }
    Ok(())
}

/// The error for a line with dashes that is no boundary. The error omits the text of the line, which may be a part of a
/// key.
fn stray_boundary(text: &str, line: usize) -> PemError {
    let hint = match text.starts_with(BOUNDARY) {
        true => "a boundary has the form \"-----BEGIN CERTIFICATE-----\", with five dashes at both ends",
        false => "a boundary begins a line of its own; is a line end missing?",
    };
    PemError::new(line, format!("this is not a boundary of a section: {hint}"))
}

impl PemSection {
    /// Decodes the certificate in the section.
    pub(crate) fn certificate(&self, path: &Path) -> Result<CertificateDer<'static>, TlsProblem> {
        let der: CertificateDer<'static> = self.decode("CERTIFICATE", path)?;
        if self.kind != SectionKind::TrustedCertificate {
            return Ok(der);
        }
        let mut elements = DerReader::new(&der);
        let own = elements.expect_tag(SEQUENCE).map_err(|_| self.section_problem("contains no certificate", path))?;
        let settings = elements.optional_tag(SEQUENCE).ok().flatten();
        match settings.is_none_or(|settings| settings.value.is_empty()) && elements.is_empty() {
            true => Ok(CertificateDer::from(own.raw.to_vec())),
            false => Err(self.section_problem(
                "has trust settings of OpenSSL, which are not supported; `openssl x509 -in FILE -out FILE` removes \
                 them",
                path,
            )),
        }
    }

    /// Decodes the revocation list in the section.
    pub(crate) fn revocation_list(&self, path: &Path) -> Result<CertificateRevocationListDer<'static>, TlsProblem> {
        self.decode("X509 CRL", path)
    }

    /// Decodes the key in the section.
    pub(crate) fn key(&self, path: &Path) -> Result<PrivateKeyDer<'static>, TlsProblem> {
        self.decode(&self.label, path)
    }

    fn decode<T: PemObject>(&self, label: &str, path: &Path) -> Result<T, TlsProblem> {
        let text = format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", self.base64);
        T::from_pem_slice(text.as_bytes()).map_err(|_| {
            let what = format!("the section {:?} that begins here is not base64", self.label);
            PemError::new(self.line, what).as_problem(path)
        })
    }

    fn section_problem(&self, what: &str, path: &Path) -> TlsProblem {
        TlsProblem::new(path, format!("line {}: the section {:?} {what}", self.line, self.label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "AAAA\nBBBB\n";

    fn section(label: &str) -> String {
        format!("-----BEGIN {label}-----\n{BODY}-----END {label}-----\n")
    }

    fn kinds(text: impl AsRef<[u8]>) -> Result<Vec<(SectionKind, usize)>, String> {
        let read = parse_sections(text.as_ref()).map_err(|fault| format!("line {}: {}", fault.line, fault.what))?;
        Ok(read.iter().map(|section| (section.kind, section.line)).collect())
    }

    #[test]
    fn sections_are_parsed_in_any_layout() {
        use SectionKind::{Certificate, Parameters, PrivateKey, RevocationList, TrustedCertificate};
        let two = section("CERTIFICATE") + &section("X509 CRL");
        let both = Ok(vec![(Certificate, 1), (RevocationList, 5)]);
        assert_eq!(kinds(&two), both);
        assert_eq!(kinds(two.replace('\n', "\r\n")), both);
        assert_eq!(kinds(two.replace('\n', "  \n  ")), both);
        assert_eq!(kinds([b"\xef\xbb\xbf", two.as_bytes()].concat()), both, "a byte order mark");
        assert_eq!(kinds(two.replace("----\n-----B", "---------B")), Ok(vec![(Certificate, 1), (RevocationList, 4)]));
        assert_eq!(kinds(two.trim_end()), both, "no line end at the end of the file");
        let comments = format!("subject=CN = a\n-----------\n\n{two}-- the end\n");
        assert_eq!(kinds(comments), Ok(vec![(Certificate, 4), (RevocationList, 8)]));
        let key = section("EC PARAMETERS") + &section("EC PRIVATE KEY");
        assert_eq!(kinds(key), Ok(vec![(Parameters, 1), (PrivateKey, 5)]));
        assert_eq!(kinds(section("TRUSTED CERTIFICATE")), Ok(vec![(TrustedCertificate, 1)]));
        assert_eq!(kinds(""), Ok(vec![]));
    }

    #[test]
    fn encrypted_key_is_recognised_in_both_formats() {
        let traditional = section("EC PRIVATE KEY")
            .replace("AAAA", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF0123456789ABCDEF\n\nAAAA");
        for text in [traditional, section("ENCRYPTED PRIVATE KEY")] {
            assert_eq!(kinds(text), Ok(vec![(SectionKind::EncryptedKey, 1)]));
        }
    }

    #[test]
    fn unknown_sections_are_reported_with_their_line() {
        let good = section("CERTIFICATE");
        for (text, expected) in [
            (good.clone() + &section("PKCS7"), "line 5: contains an unknown section \"PKCS7\""),
            (good.clone() + "-----BEGIN CERTIFICATE-----\nAAAA\n", "line 7: the file ends inside the section"),
            (
                good.replace("-----END CERTIFICATE-----", "-----END X509 CRL-----"),
                "line 4: a section \"X509 CRL\" ends",
            ),
            (good.replace("-----END CERTIFICATE-----", "") + &good, "line 5: a section \"CERTIFICATE\" begins, but"),
            (good.replace("-----BEGIN", "----BEGIN"), "line 1: this is not a boundary of a section"),
            (good.replace("-----BEGIN", "-----Begin"), "line 1: this is not a boundary of a section"),
            (good.replace("-----", "--"), "line 1: this is not a boundary of a section"),
            (good.replace("BBBB\n", "----------\n"), "line 3: the section \"CERTIFICATE\" is not base64"),
            (good.replace("BBBB\n", "BBBB"), "line 3: this is not a boundary of a section: a boundary begins a line"),
            (good.replace("AAAA", "A*AA"), "line 2: the section \"CERTIFICATE\" is not base64"),
            (good.replace("-----\nAAAA", "-----AAAA"), "line 1: this is not a boundary of a section"),
        ] {
            let message = kinds(&text).expect_err(expected);
            assert!(message.contains(expected), "{message}\nlacks {expected}");
        }
    }

    #[test]
    fn trusted_certificate_is_read_without_its_settings_or_refused() {
        let path = Path::new("a.pem");
        let trusted = |der: &str| {
            let text = format!("-----BEGIN TRUSTED CERTIFICATE-----\n{der}\n-----END TRUSTED CERTIFICATE-----\n");
            parse_sections(text.as_bytes()).expect("PEM")[0].certificate(path)
        };
        let own = CertificateDer::from(vec![0x30, 0x01, 0x05]);
        assert_eq!(trusted("MAEF"), Ok(own.clone()));
        assert_eq!(trusted("MAEFMAA="), Ok(own));
        let message = trusted("MAEFMAEF").expect_err("settings").to_string();
        assert!(message.contains("a.pem: line 1") && message.contains("openssl x509"), "{message}");
    }
}
