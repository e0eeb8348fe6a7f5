//! The bundle of authorities that the system trusts: `SSL_CERT_FILE`, as in OpenSSL, or the usual places.
//!
//! Leaves to others: the contents (`pem_store`, `trust`).

use std::env;
use std::path::{Path, PathBuf};

/// The variable that names the bundle, as in OpenSSL and Go.
const VARIABLE: &str = "SSL_CERT_FILE";

/// The bundles of the usual distributions; the first one that exists is used.
const USUAL_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch, Gentoo, distroless
    "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // CentOS
    "/etc/ssl/cert.pem",                  // Alpine
];

/// The bundle of this system, if there is one.
pub(crate) fn system_bundle() -> Option<PathBuf> {
    let named = env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| USUAL_BUNDLES.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_path_buf))
}

/// The problem of a system without a bundle.
pub(crate) fn no_bundle_message() -> String {
    format!(
        "this system has no bundle of authorities in one of the usual places ({}); install ca-certificates, set \
         {VARIABLE}, or name authorities",
        USUAL_BUNDLES.join(", ")
    )
}
