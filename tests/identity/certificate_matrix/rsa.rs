//! Callers with RSA keys of any size, signed by openssl: no library of these tests creates or uses a key that is too
//! short.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use rcgen::{Issuer, KeyPair, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{Error, SignatureScheme};

use super::Draft;
use crate::world::tool;

/// A key in a file, created by openssl.
#[derive(Clone, Debug)]
struct Rsa {
    file: PathBuf,
    public: Vec<u8>,
}

/// Returns a certificate for the draft's names with an RSA key of `bits` bits.
pub fn signed(draft: &Draft, bits: u32, issuer: &Issuer<'static, KeyPair>, folder: &Path) -> Arc<CertifiedKey> {
    let key = Rsa::generate(bits, folder);
    let leaf = draft.params.signed_by(&key, issuer).unwrap().der().clone();
    Arc::new(CertifiedKey::new(vec![leaf], Arc::new(key)))
}

impl Rsa {
    fn generate(bits: u32, folder: &Path) -> Self {
        let file = folder.join(format!("rsa-{bits}.key"));
        let mut generate = tool("openssl");
        let made = generate.args(["genrsa", "-out"]).arg(&file).arg(bits.to_string()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut show = tool("openssl");
        let shown = show.args(["rsa", "-RSAPublicKey_out", "-outform", "DER", "-in"]).arg(&file).output().unwrap();
        assert!(shown.status.success(), "{shown:?}");
        Self { file, public: shown.stdout }
    }
}

impl PublicKeyData for Rsa {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

impl SigningKey for Rsa {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        rustls::SignatureAlgorithm::RSA
    }
}

impl Signer for Rsa {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut sign = tool("openssl");
        sign.args(["dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest", "-sign"]);
        let mut signing = sign.arg(&self.file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        signing.stdin.take().unwrap().write_all(message).unwrap();
        let signed = signing.wait_with_output().unwrap();
        assert!(signed.status.success(), "{signed:?}");
        Ok(signed.stdout)
    }

    /// The only scheme that both versions of TLS support.
    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::RSA_PSS_SHA256
    }
}
