//! Comma-separated header values (RFC 9110 section 5.6.1).
//!
//! Guarantees: one parser for all lists. A value with bytes outside ASCII is split like any other, so that no item
//! hides behind such a byte.
//!
//! Leaves to others: parameters of an item, and quoted strings with commas, which no list here has.

use http::HeaderValue;

/// The items of a list, without the white space around them. Empty items are left out.
pub(crate) fn list_items(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// [`list_items`] as text; items that are not UTF-8 are left out.
pub(crate) fn text_items(value: &HeaderValue) -> impl Iterator<Item = &str> {
    list_items(value).filter_map(|item| std::str::from_utf8(item).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_trimmed_and_empty_ones_are_skipped() {
        let value = HeaderValue::from_bytes(b" close ,,\tkeep-alive, \xff, x").expect("a value");
        let items: Vec<_> = list_items(&value).collect();
        assert_eq!(items, [&b"close"[..], b"keep-alive", b"\xff", b"x"]);
        assert_eq!(text_items(&value).collect::<Vec<_>>(), ["close", "keep-alive", "x"]);
    }
}
