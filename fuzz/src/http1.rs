//! Fuzz target for HTTP/1.1 request bytes.

use httparse::{EMPTY_HEADER, Status};
use tallygate::proxy::MalformedRequest;
use tallygate::proxy::message::grammar::{H1Scanner, HeadLimits};

/// Small limits, so that libFuzzer can reach them.
const LIMITS: HeadLimits = HeadLimits { bytes: 2048, fields: 16 };

/// The verdict on the bytes of a connection is the same when they are scanned at once or byte by byte. Each accepted
/// head is accepted by httparse too, with the same length.
pub fn head(bytes: &[u8]) {
    let whole = shown(bytes, bytes.len());
    let slowly = shown(bytes, 1);
    // The number of scanned bytes decides which of two faults is reported. It does not decide whether there is a fault.
    let is_refused = |verdict: &Verdict| verdict.fault.is_some();
    assert_eq!(is_refused(&whole), is_refused(&slowly), "cutting the bytes changes the verdict");
    assert!(whole.passed <= slowly.passed, "at once {} bytes go on, slowly {}", whole.passed, slowly.passed);
    if whole.fault.is_none() {
        assert_eq!(whole.passed, slowly.passed, "cutting the bytes changes what goes on");
    }
    if let Some(length) = slowly.first_head {
        httparse_agrees(&bytes[..length]);
    }
}

/// The scanner's verdict on the bytes of a connection.
struct Verdict {
    passed: usize,
    fault: Option<MalformedRequest>,
    /// Length of the first accepted head.
    first_head: Option<usize>,
}

/// Scans the bytes in pieces of `piece` bytes.
fn shown(bytes: &[u8], piece: usize) -> Verdict {
    let mut verdict = Verdict { passed: 0, fault: None, first_head: None };
    let mut scanner = H1Scanner::new(LIMITS);
    let mut end = 0;
    while end < bytes.len() {
        end = (end + piece).min(bytes.len());
        let scan = scanner.scan(&bytes[verdict.passed..end]);
        verdict.passed += scan.pass;
        if scan.pass > 0 {
            verdict.first_head.get_or_insert(verdict.passed);
        }
        verdict.fault = scan.fault.map(|(fault, _)| fault);
        if verdict.fault.is_some() {
            break;
        }
    }
    verdict
}

fn httparse_agrees(head: &[u8]) {
    let mut fields = [EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(Status::Complete(length)) => assert_eq!(length, head.len(), "heads end in different places"),
        other => panic!("we let through what httparse does not read: {other:?}"),
    }
}
