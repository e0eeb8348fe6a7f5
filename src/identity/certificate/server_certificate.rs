//! Checks of the server's own certificate before the listener presents it.

use x509_parser::certificate::X509Certificate;

/// The reason why TLS clients would reject this certificate as a server's (RFC 5280 sections 4.2.1.3 and 4.2.1.12).
/// `None` if the certificate is usable.
pub(crate) fn server_usage_problem(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.subject();
    let purposes = certificate.extended_key_usage().ok().flatten();
    if purposes.is_some_and(|purposes| !purposes.value.server_auth && !purposes.value.any) {
        return Some(format!(
            "the certificate of {name} is not for servers (extendedKeyUsage lacks serverAuth), so every client would \
             reject it; use a server certificate"
        ));
    }
    let usage = certificate.key_usage().ok().flatten();
    usage.is_some_and(|usage| !usage.value.digital_signature()).then(|| {
        format!(
            "the key of {name} may not sign handshakes (keyUsage lacks digitalSignature), which every supported cipher \
             suite needs; use a server certificate"
        )
    })
}

/// The problem text for a certificate that is valid for no host.
pub(crate) fn no_host_message(certificate: &X509Certificate<'_>) -> String {
    format!(
        "the certificate of {} has no DNS name and no IP address (no subjectAltName), so the served hosts are unknown; \
         list them in tls.serverNames",
        certificate.subject()
    )
}
