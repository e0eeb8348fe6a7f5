//! The texts of a query string, as the endpoints with parameters read them.
//!
//! Leaves to others: the parameters (`usage_api`, `hours_api`).

use percent_encoding::percent_decode_str;

/// Decodes percent-encoding (RFC 3986 section 2.1). A `+` stays a plus sign: it occurs in time offsets, and no value
/// contains a space. No value contains a `%` either, so a `%` that is left was not the begin of an encoded byte.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    (!decoded.contains('%')).then(|| decoded.into_owned())
}
