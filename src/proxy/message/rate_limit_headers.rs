//! The rate limit fields of a response (draft-ietf-httpapi-ratelimit-headers-11).
//!
//! Guarantees: the fields are structured fields (RFC 9651). The state differs each time and is marked sensitive, so
//! that HTTP/2 keeps it out of its compression table.
//!
//! Leaves to others: the numbers (`limit`).

use std::cell::RefCell;

use http::{HeaderMap, HeaderValue};

use crate::limit::RateLimitInfo;

use super::field_line::{RATE_LIMIT, RATE_LIMIT_POLICY};

/// Writes the fields for one worker. The last value of `RateLimit-Policy` is kept: it changes only from department to
/// department, and writing it takes 450 instructions.
#[derive(Debug, Default)]
pub(crate) struct RateLimitHeaders(RefCell<Option<PolicyValue>>);

#[derive(Debug)]
struct PolicyValue {
    quota: u32,
    window_seconds: u32,
    value: HeaderValue,
}

impl RateLimitHeaders {
    /// Adds the fields for a limited department.
    pub(crate) fn add(&self, headers: &mut HeaderMap, budget: Option<RateLimitInfo>) {
        let Some(RateLimitInfo { quota, window_seconds, remaining, reset_seconds }) = budget else { return };
        headers.insert(RATE_LIMIT_POLICY, self.policy(quota, window_seconds));
        let mut state = rate_limit_item(";r=", remaining, ";t=", reset_seconds);
        state.set_sensitive(true);
        headers.insert(RATE_LIMIT, state);
    }

    fn policy(&self, quota: u32, window_seconds: u32) -> HeaderValue {
        let mut last = self.0.borrow_mut();
        match &*last {
            Some(last) if (last.quota, last.window_seconds) == (quota, window_seconds) => last.value.clone(),
            _ => {
                let value = rate_limit_item(";q=", quota, ";w=", window_seconds);
                *last = Some(PolicyValue { quota, window_seconds, value: value.clone() });
                value
            }
        }
    }
}

/// The structured field `"default";KEY=NUMBER;KEY=NUMBER`. Written by hand, because every response to a limited
/// department has two of them.
fn rate_limit_item(first: &str, one: u32, second: &str, two: u32) -> HeaderValue {
    let (mut ones, mut twos) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (mut text, mut length) = ([0; RATE_LIMIT_ITEM_MAX], 0);
    for piece in ["\"default\"", first, ones.format(one), second, twos.format(two)] {
        text[length..length + piece.len()].copy_from_slice(piece.as_bytes());
        length += piece.len();
    }
    HeaderValue::from_bytes(&text[..length]).expect("digits and punctuation are a valid header value")
}

/// `"default"`, twice `;K=` and twice the ten digits of the largest number.
const RATE_LIMIT_ITEM_MAX: usize = 9 + 2 * (3 + 10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limits_are_structured_fields() {
        let fields = RateLimitHeaders::default();
        for (quota, policy) in [(500, "\"default\";q=500;w=1"), (7, "\"default\";q=7;w=1"), (7, "\"default\";q=7;w=1")]
        {
            let mut headers = HeaderMap::new();
            let budget = RateLimitInfo { quota, window_seconds: 1, remaining: 7, reset_seconds: 1 };
            fields.add(&mut headers, Some(budget));
            assert_eq!(headers["ratelimit"], "\"default\";r=7;t=1");
            assert_eq!(headers["ratelimit-policy"], policy);
        }
        assert_eq!(rate_limit_item(";r=", u32::MAX, ";t=", u32::MAX).len(), RATE_LIMIT_ITEM_MAX);
    }
}
