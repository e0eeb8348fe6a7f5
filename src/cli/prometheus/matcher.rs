//! A label matcher of PromQL, checked, so that a text of the command line cannot change the query around it.

/// The operators, the longer ones first.
const OPERATORS: [&str; 4] = ["=~", "!~", "!=", "="];

/// The text is not a label matcher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a label matcher; write it as in PromQL, in quotes for the shell: --matcher 'gateway=\"a\"'")]
pub(super) struct BadMatcher(String);

/// Returns the matcher, if the text is exactly one.
pub(super) fn check_matcher(text: &str) -> Result<&str, BadMatcher> {
    let name_end = text.find(|one: char| !one.is_ascii_alphanumeric() && one != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(name_end);
    let value = OPERATORS.iter().find_map(|operator| rest.strip_prefix(operator));
    let is_name = !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit());
    match value.is_some_and(is_quoted) && is_name {
        true => Ok(text),
        false => Err(BadMatcher(text.to_owned())),
    }
}

/// Whether a text is one string in double quotes.
fn is_quoted(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else { return false };
    let mut is_escaped = false;
    for one in inner.chars() {
        match one {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' | '\n' => return false,
            _ => {}
        }
    }
    !is_escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matcher_is_one_name_operator_and_string() {
        for text in [r#"gateway="a""#, r#"job!="x""#, r#"a_1=~"b|c""#, r#"a!~"""#, r#"a="b\"c""#, r#"a="b}c""#] {
            assert_eq!(check_matcher(text), Ok(text));
        }
        for text in
            ["", "gateway", "gateway=a", r#"="a""#, r#"1a="b""#, r#"a="b",c="d""#, r#"a="b"} or {c="d""#, r#"a="\""#]
        {
            assert_eq!(check_matcher(text), Err(BadMatcher(text.to_owned())), "{text}");
        }
    }
}
