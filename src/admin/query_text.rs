//! The texts of a query string, as the endpoints with parameters read them.
//!
//! Leaves to others: the parameters (`usage_api`, `hours_api`, `readiness_page`, `config_page`).

use percent_encoding::percent_decode_str;

/// Passes the name and the decoded value of each parameter to `take`. `known` are the names of the endpoint.
///
/// # Errors
/// The reason why the text cannot be used.
pub(crate) fn read_parameters(
    text: &str,
    known: &[&str],
    mut take: impl FnMut(&str, String) -> Result<(), String>,
) -> Result<(), String> {
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !known.contains(&name) {
            let known = match known.split_last() {
                Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
                _ => known.concat(),
            };
            return Err(format!("unknown parameter {name:?}; known parameters: {known}"));
        }
        let value = percent_decoded(value).ok_or_else(|| format!("the value of {name} is not percent-encoded text"))?;
        take(name, value)?;
    }
    Ok(())
}

/// Stores the value of a parameter that may be written once.
pub(crate) fn store_once(place: &mut Option<String>, name: &str, value: String) -> Result<(), String> {
    match place.replace(value) {
        Some(_) => Err(format!("{name} is repeated; write it once")),
        None => Ok(()),
    }
}

/// Decodes percent-encoding (RFC 3986 section 2.1). A `+` stays a plus sign: it occurs in time offsets, and no value
/// contains a space. No value contains a `%` either, so a `%` that is left was not the begin of an encoded byte.
fn percent_decoded(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    (!decoded.contains('%')).then(|| decoded.into_owned())
}
