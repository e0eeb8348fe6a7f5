//! The transformation of a command by the gateway: header edits, rewrite, redirect, CORS, mirroring, compression,
//! bandwidth.
//!
//! Guarantees:
//! - The shape is compiled once per configuration. A command without a shape stores none and costs no lookup.
//! - The forwarded request consists only of the configuration's own text and of the bytes that were authorised.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::model::BandwidthLimit;

use super::cors::CorsPolicy;
use super::header_names::why_protected;
use super::request_target::{RedirectTarget, RequestRewrite};

/// The transformations of a command's request and response.
#[derive(Debug)]
pub struct CommandShape {
    /// Edits of the request headers, towards the subsystem (upstream).
    pub request: FieldEdits,
    /// Edits of the response headers, towards the caller (downstream).
    pub response: FieldEdits,
    /// The rewrite, if the forwarded host or path differs.
    pub rewrite: Option<RequestRewrite>,
    /// The redirect target, if callers are redirected; then nothing is forwarded.
    pub redirect: Option<RedirectTarget>,
    /// The CORS policy of the command.
    pub cors: Option<Arc<CorsPolicy>>,
    /// The targets of request mirroring (shadowing): at most [`MirrorTarget::MAX`].
    pub mirrors: Vec<MirrorTarget>,
    /// Whether responses are compressed, for callers that accept it.
    pub compress: bool,
    /// The bandwidth limit of each response.
    pub bandwidth: Option<BandwidthLimit>,
}

/// A target of mirrored requests. The responses to them are discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorTarget {
    /// The backend's number.
    pub backend: u32,
    /// The fraction of requests that are copied, on average.
    pub fraction: MirrorFraction,
}

/// A fraction of the requests of a command: at least 1, and at most the denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorFraction {
    numerator: u32,
    denominator: u32,
}

/// Header fields to set, to add, and to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl MirrorTarget {
    /// The most mirror targets of one command.
    pub const MAX: usize = 4;
}

impl MirrorFraction {
    /// The largest denominator.
    pub const DENOMINATOR_MAX: u32 = 1_000_000;

    /// A fraction, or `None` if it is not between 0, exclusive, and 1, or its denominator is too large.
    pub fn new(numerator: u32, denominator: u32) -> Option<Self> {
        let is_valid = (1..=denominator).contains(&numerator) && denominator <= Self::DENOMINATOR_MAX;
        is_valid.then_some(Self { numerator, denominator })
    }

    /// Whether a request is within the fraction. `draw` returns a random number between its two arguments.
    pub(crate) fn contains_random(self, draw: impl FnOnce(u32, u32) -> u32) -> bool {
        self.numerator == self.denominator || draw(1, self.denominator) <= self.numerator
    }
}

impl fmt::Display for MirrorFraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator {
            100 => write!(f, "{} %", self.numerator),
            denominator => write!(f, "{} of {denominator}", self.numerator),
        }
    }
}

impl FieldEdits {
    /// The most fields of one kind that one place of a configuration may name.
    pub const MAX: usize = 32;

    /// Whether there are no edits.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Sets a field. Replaces an earlier edit of the field.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.discard(&name);
        self.set.push((name, value));
    }

    /// Removes a field. Replaces an earlier edit of the field.
    pub fn remove(&mut self, name: HeaderName) {
        self.discard(&name);
        self.remove.push(name);
    }

    /// Adds a value to a field. The value follows those of the message, or the one that is set.
    pub fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.add.push((name, value));
    }

    /// Adds the edits of `later`. They replace earlier edits of the same fields.
    pub fn extend(&mut self, later: &Self) {
        later.remove.iter().for_each(|name| self.remove(name.clone()));
        later.set.iter().for_each(|(name, value)| self.set(name.clone(), value.clone()));
        later.add.iter().for_each(|(name, value)| self.add(name.clone(), value.clone()));
    }

    fn discard(&mut self, name: &HeaderName) {
        self.set.retain(|(set, _)| set != name);
        self.add.retain(|(added, _)| added != name);
        self.remove.retain(|removed| removed != name);
    }

    /// The fields to write, in this order: those that are set, then those that are added.
    pub fn new_fields(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.set.iter().chain(&self.add)
    }

    /// Whether the original value of a field is dropped: the field is removed, or set to another value.
    pub fn overrides(&self, name: &HeaderName) -> bool {
        self.remove.contains(name) || self.set.iter().any(|(set, _)| set == name)
    }

    /// Applies the edits to the headers of a message.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }

    /// Reads the name of a field that a configuration may set or remove.
    ///
    /// # Errors
    /// The reason for a refusal: the text is no field name, or the gateway controls this field itself.
    pub fn parse_name(text: &str) -> Result<HeaderName, String> {
        // As in requests: some servers treat `_` as `-`, so the field would pass for another one.
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(|_| plain);
        let name = name.ok_or_else(|| format!("{text:?} is not a field name; write letters, digits and hyphens"))?;
        match why_protected(&name) {
            Some(why) => Err(format!("{text} cannot be set or removed: it {why}")),
            None => Ok(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_above_zero_and_at_most_one() {
        for (numerator, denominator, text) in [
            (1, 1, Some("1 of 1")),
            (30, 100, Some("30 %")),
            (100, 100, Some("100 %")),
            (1, 1_000_000, Some("1 of 1000000")),
            (0, 100, None),
            (101, 100, None),
            (1, 0, None),
            (0, 0, None),
            (1, 1_000_001, None),
        ] {
            let fraction = MirrorFraction::new(numerator, denominator);
            assert_eq!(fraction.map(|fraction| fraction.to_string()).as_deref(), text, "{numerator} of {denominator}");
        }
    }

    #[test]
    fn fraction_contains_as_many_draws_as_its_numerator() {
        for (numerator, denominator) in [(1, 3), (3, 3), (30, 100), (1, 1000)] {
            let fraction = MirrorFraction::new(numerator, denominator).expect("a fraction");
            let draws = (1..=denominator).filter(|number| {
                fraction.contains_random(|least, most| {
                    assert_eq!((least, most), (1, denominator));
                    *number
                })
            });
            assert_eq!(draws.count(), numerator as usize, "{fraction}");
        }
    }

    #[test]
    fn reserved_fields_cannot_be_edited() {
        for kept in [
            "Host",
            "Content-Length",
            "transfer-encoding",
            "Connection",
            "Keep-Alive",
            "Upgrade",
            "TE",
            "Trailer",
            "Expect",
            "X-Tallygate-Department",
            "X-Forwarded-For",
            "Forwarded",
            "X-Request-Id",
            "traceparent",
            "Client-Cert",
            "RateLimit",
            "grpc-status",
            "x_tallygate_department",
            "a b",
            "",
        ] {
            assert!(FieldEdits::parse_name(kept).is_err(), "{kept}");
        }
        for free in ["X-Api-Key", "Server", "Strict-Transport-Security", "Cookie", "Vary"] {
            assert!(FieldEdits::parse_name(free).is_ok(), "{free}");
        }
    }

    #[test]
    fn last_field_edit_wins() {
        let (name, value) = (HeaderName::from_static("x-a"), HeaderValue::from_static("1"));
        let mut edits = FieldEdits::default();
        edits.remove(name.clone());
        edits.set(name.clone(), value.clone());
        assert_eq!((&edits.set[..], edits.remove.len()), (&[(name.clone(), value)][..], 0));
        edits.remove(name.clone());
        assert!(edits.set.is_empty() && edits.overrides(&name));
    }

    #[test]
    fn later_edits_replace_and_extend_earlier_ones() {
        let name = |text| HeaderName::from_static(text);
        let value = |text| HeaderValue::from_static(text);
        let (mut earlier, mut later) = (FieldEdits::default(), FieldEdits::default());
        earlier.set(name("x-set"), value("1"));
        earlier.set(name("x-kept"), value("1"));
        earlier.add(name("x-removed"), value("1"));
        earlier.remove(name("x-added"));
        later.set(name("x-set"), value("2"));
        later.remove(name("x-removed"));
        later.add(name("x-added"), value("2"));
        later.add(name("x-kept"), value("2"));
        earlier.extend(&later);
        let mut headers = HeaderMap::new();
        headers.insert(name("x-removed"), value("0"));
        headers.insert(name("x-added"), value("0"));
        earlier.apply(&mut headers);
        let values = |name: &str| headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>();
        assert_eq!(
            (values("x-set"), values("x-kept"), values("x-removed"), values("x-added")),
            (vec!["2"], vec!["1", "2"], vec![], vec!["2"])
        );
    }

    #[test]
    fn added_values_follow_the_values_of_the_message() {
        let name = |text| HeaderName::from_static(text);
        let value = |text| HeaderValue::from_static(text);
        let mut edits = FieldEdits::default();
        edits.add(name("x-a"), value("2"));
        edits.set(name("x-b"), value("1"));
        edits.add(name("x-b"), value("2"));
        edits.add(name("x-c"), value("1"));
        edits.remove(name("x-c"));
        let mut headers = HeaderMap::new();
        headers.insert(name("x-a"), value("1"));
        headers.insert(name("x-b"), value("0"));
        headers.insert(name("x-c"), value("0"));
        edits.apply(&mut headers);
        let values = |name: &str| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(
            (values("x-a"), values("x-b"), values("x-c")),
            (vec![value("1"), value("2")], vec![value("1"), value("2")], vec![])
        );
        assert!(edits.overrides(&name("x-b")) && !edits.overrides(&name("x-a")));
    }
}
