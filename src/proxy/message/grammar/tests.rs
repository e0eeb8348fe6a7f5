//! Table tests of the HTTP/1.1 request scanner (request smuggling), with every division of the bytes into pieces.
//! `tests/http/request_grammar.rs` runs the tables of `tests/data/` over HTTP/2 as well.

use super::h1_scanner::{FaultPosition, H1Scanner, HeadLimits};

const LIMITS: HeadLimits = HeadLimits { bytes: 16 * 1024, fields: 8 };

/// The result of a scan of a connection's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ScanVerdict {
    passed: usize,
    /// The status, and the position of the fault.
    fault: Option<(u16, FaultPosition)>,
}

/// Scans the bytes in pieces that end at these positions.
fn shown(bytes: &[u8], ends: impl IntoIterator<Item = usize>) -> ScanVerdict {
    let (mut scanner, mut passed) = (H1Scanner::new(LIMITS), 0);
    for end in ends {
        let scan = scanner.scan(&bytes[passed..end]);
        passed += scan.pass;
        if let Some((fault, place)) = scan.fault {
            return ScanVerdict { passed, fault: Some((fault.status.as_u16(), place)) };
        }
    }
    ScanVerdict { passed, fault: None }
}

fn at_once(bytes: &[u8]) -> ScanVerdict {
    shown(bytes, [bytes.len()])
}

fn byte_by_byte(bytes: &[u8]) -> ScanVerdict {
    shown(bytes, 1..=bytes.len())
}

const GOOD: [&str; 11] = include!("../../../../tests/data/http1_good.rs");

#[test]
fn well_formed_messages_pass_for_every_split() {
    for good in GOOD {
        let bytes = good.as_bytes();
        let whole = ScanVerdict { passed: bytes.len(), fault: None };
        assert_eq!(at_once(bytes), whole, "{good:?}");
        assert_eq!(byte_by_byte(bytes), whole, "{good:?}");
        for cut in 0..bytes.len() {
            assert_eq!(shown(bytes, [cut, bytes.len()]), whole, "{good:?} cut at {cut}");
        }
    }
}

#[test]
fn pipelined_messages_in_one_buffer_are_accepted() {
    let all = GOOD.concat();
    assert_eq!(at_once(all.as_bytes()), ScanVerdict { passed: all.len(), fault: None });
    assert_eq!(byte_by_byte(all.as_bytes()), ScanVerdict { passed: all.len(), fault: None });
}

#[test]
fn no_byte_of_a_head_passes_before_it_is_complete() {
    let head = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    for cut in 0..head.len() {
        assert_eq!(at_once(&head.as_bytes()[..cut]), ScanVerdict { passed: 0, fault: None }, "{cut}");
    }
}

/// A request line with fields, and the status that refuses it.
const BAD_HEADS: [(&str, u16); 62] = include!("../../../../tests/data/http1_bad_heads.rs");

#[test]
fn invalid_head_is_refused_whole_for_every_split() {
    let before = GOOD[4];
    for (bad, status) in BAD_HEADS {
        let refused = ScanVerdict { passed: 0, fault: Some((status, FaultPosition::Head)) };
        assert_eq!(at_once(bad.as_bytes()), refused, "{bad:?}");
        assert_eq!(byte_by_byte(bad.as_bytes()), refused, "{bad:?}");
        let both = format!("{before}{bad}");
        let after = ScanVerdict { passed: before.len(), fault: Some((status, FaultPosition::Head)) };
        assert_eq!(at_once(both.as_bytes()), after, "{both:?}");
        assert_eq!(byte_by_byte(both.as_bytes()), after, "{both:?}");
    }
}

const BAD_BODIES: [&str; 22] = include!("../../../../tests/data/http1_bad_bodies.rs");

#[test]
fn invalid_body_is_refused_with_its_head_or_aborted_after_it() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for bad in BAD_BODIES {
        let all = format!("{head}{bad}");
        let ScanVerdict { passed, fault } = at_once(all.as_bytes());
        assert_eq!((passed, fault.map(|(_, place)| place)), (0, Some(FaultPosition::Head)), "{bad:?}");
        let cut = shown(all.as_bytes(), [head.len(), all.len()]);
        assert!(cut.passed >= head.len(), "{bad:?}");
        assert_eq!(cut.fault.map(|(_, place)| place), Some(FaultPosition::Body), "{bad:?}");
        let slow = byte_by_byte(all.as_bytes());
        assert_eq!(slow, cut, "{bad:?}");
    }
}

#[test]
fn large_heads_are_refused_before_they_are_complete() {
    let target = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(8192));
    assert_eq!(at_once(target.as_bytes()).fault, Some((414, FaultPosition::Head)));
    for (endless, status) in [(format!("GET /{}", "a".repeat(9000)), 414), ("A".repeat(25), 400)] {
        assert_eq!(at_once(endless.as_bytes()).fault, Some((status, FaultPosition::Head)));
    }
    for line in ["X: ", "X"] {
        let field = format!("GET / HTTP/1.1\r\n{line}{}", "b".repeat(16 * 1024));
        assert_eq!(at_once(field.as_bytes()).fault, Some((431, FaultPosition::Head)));
    }
    let trailer =
        format!("{}{}0\r\nX: {}", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "", "c".repeat(16 * 1024));
    assert_eq!(at_once(trailer.as_bytes()).fault, Some((431, FaultPosition::Head)));
}

#[test]
fn head_of_exactly_the_limit_is_accepted() {
    let head = |length: usize| {
        let (begin, end) = ("GET / HTTP/1.1\r\nX: ", "\r\n\r\n");
        format!("{begin}{}{end}", "a".repeat(length - begin.len() - end.len()))
    };
    assert_eq!(at_once(head(LIMITS.bytes).as_bytes()).fault, None);
    assert_eq!(byte_by_byte(head(LIMITS.bytes).as_bytes()).fault, None);
    assert_eq!(at_once(head(LIMITS.bytes + 1).as_bytes()).fault, Some((431, FaultPosition::Head)));
}

/// Any bytes in any pieces: the verdict is the same, and at most the given bytes are passed.
#[test]
fn verdict_is_independent_of_the_split() {
    let mut random = fastrand::Rng::with_seed(1);
    let seeds: Vec<String> = GOOD
        .iter()
        .map(ToString::to_string)
        .chain(BAD_HEADS.iter().map(|(head, _)| head.to_string()))
        .chain(BAD_BODIES.iter().map(|body| format!("{}{body}", &GOOD[7][..GOOD[7].len() - 35])))
        .collect();
    for _ in 0..20_000 {
        let mut bytes = [0; 3].map(|_| random.choice(&seeds).expect("a seed").as_bytes().to_vec()).concat();
        for _ in 0..random.usize(..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = *random.choice(b"\r\n\0 \t:;,0a5_-\xff".iter()).expect("a byte");
        }
        let mut ends: Vec<usize> = (0..random.usize(..6)).map(|_| random.usize(..bytes.len())).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let (cut, slow) = (shown(&bytes, ends), byte_by_byte(&bytes));
        assert_eq!(
            cut.fault.map(|(status, _)| status),
            slow.fault.map(|(status, _)| status),
            "{}",
            bytes.escape_ascii()
        );
        assert!(cut.passed <= slow.passed, "{}", bytes.escape_ascii());
    }
}
