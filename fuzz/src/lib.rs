//! Fuzz targets for untrusted input, one function for each entry point: any bytes in, a panic if an invariant is
//! violated.
//!
//! Guarantees:
//! - Nothing is sent. The only files and waits are those of ledgers in temporary folders, so a finding depends only on
//!   its input.
//! - libFuzzer generates the inputs (`make fuzz`). Inputs worth keeping are in `corpus/`, and `cargo test` runs all of
//!   them.

mod http1;
mod ledger;
mod response;

use std::path::Path;

use http::Request;
use tallygate::identity::identities_of_der;
use tallygate::model::{CallerId, NameInterner};
use tallygate::proxy::{RequestHead, read_proxy_header};

pub use http1::head;
pub use ledger::ledger;
pub use response::response;

/// An entry point: its name, which is also the name of its corpus, and its function.
pub type Door = (&'static str, fn(&[u8]));

/// All entry points.
pub const DOORS: [Door; 7] = [
    ("head", head),
    ("path", path),
    ("certificate", certificate),
    ("configuration", configuration),
    ("proxied", proxied),
    ("ledger", ledger),
    ("response", response),
];

/// A request head as hyper presents it: a target, a line end, a host. An accepted path is in canonical form.
pub fn path(bytes: &[u8]) {
    let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (target, host) = (&bytes[..at], &bytes[at + 1..]);
    let Ok(request) = Request::builder().uri(target).header("host", host).body(()) else { return };
    let Ok(head) = RequestHead::parse(&request) else { return };
    assert!(head.path.starts_with('/'), "{:?} is not absolute", head.path);
    for odd in ["//", "/./", "/../", "\\", ";", "\0", "%2f", "%2F", "%5c", "%5C", "%00", "%2e", "%2E", "%25"] {
        assert!(!head.path.contains(odd), "{:?} has {odd:?}", head.path);
    }
    assert!(!head.path.ends_with("/..") && !head.path.ends_with("/."), "{:?} ends in dots", head.path);
    assert!(!head.host.is_empty() && !head.host.contains('@'), "{:?} is no host", head.host);
}

/// A client certificate: it is rejected, or all its identities are printable text.
pub fn certificate(bytes: &[u8]) {
    let Ok(identities) = identities_of_der(bytes) else { return };
    assert!(!identities.is_empty(), "a certificate of nobody was accepted");
    for identity in &identities {
        match identity {
            CallerId::Uri(name) => assert!(is_printable(name), "{name:?}"),
            CallerId::Dns(name) => {
                assert!(is_printable(name) && !name.contains('*') && *name == name.to_ascii_lowercase(), "{name:?}");
            }
            _ => {}
        }
    }
}

fn is_printable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A configuration: it has problems with a description, or it compiles, and compiles again to the same settings.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let compile = || tallygate::config::compile_text(text, Path::new("/etc/tallygate"), &NameInterner::default());
    match compile() {
        Ok(configuration) => {
            let again = compile().expect("it compiled before");
            assert_eq!(configuration.settings, again.settings);
        }
        Err(problems) => {
            assert!(!problems.0.is_empty() && !problems.to_string().is_empty(), "refused without a reason")
        }
    }
}

/// The PROXY protocol header of a load balancer: at most 2048 bytes are read, and none after an accepted header.
pub fn proxied(bytes: &[u8]) {
    let mut rest = bytes;
    let read = now(read_proxy_header(&mut rest));
    let length = bytes.len() - rest.len();
    assert!(length <= 2048, "{length} bytes of a header were read");
    if read.is_ok() {
        let mut alone = &bytes[..length];
        let again = now(read_proxy_header(&mut alone));
        assert_eq!((read.ok(), alone.len()), (again.ok(), 0), "what follows a header changes it");
    }
}

/// Runs a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(read) => read,
        std::task::Poll::Pending => unreachable!("bytes in memory are there"),
    }
}
