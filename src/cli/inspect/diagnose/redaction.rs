//! Removal of secrets from texts and configurations, before they are packed for a bug report.
//!
//! Guarantees:
//! - Private keys, passwords of URLs, bearer and basic credentials, JSON web tokens, long base64 texts, and values of
//!   names that tell a secret (password, token, cookie and others) are replaced by [`LEFT_OUT`].
//! - Of a configuration, the values of header fields that the gateway sets are replaced as well.
//! - Rather too much is removed than too little: a text that still looks like a private key is not packed at all.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// What stands in the place of a secret.
pub(super) const LEFT_OUT: &str = "[left out]";

/// Words of names whose values are secrets.
const SECRET_WORDS: [&str; 11] = [
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "authorization",
    "privatekey",
    "credential",
    "cookie",
];
/// Keys of a configuration whose mappings have the values of header fields.
const FIELD_KEYS: [&str; 2] = ["set", "add"];

/// Replacements of a text, in this order.
static PATTERNS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        // A private key; one whose end or beginning is missing, because the text is a part of a file.
        (r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)", LEFT_OUT),
        (r"(?s)\A.*-----END [A-Z0-9 ]*PRIVATE KEY-----", LEFT_OUT),
        (r#"://[^/@ \t\r\n"'<>]*@"#, "://[left out]@"),
        (r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]*", LEFT_OUT),
        (r"(?i-u:\b(bearer|basic|digest|negotiate))[ \t]+[A-Za-z0-9+/=._~-]{4,}", "$1 [left out]"),
        // Header fields to the end of the line, or of the text in quotes.
        (
            r#"(?i-u:\b((?:proxy-)?authorization|(?:set-)?cookie2?|x-api-key))("?[ \t]*:[ \t]*"?)[^"\r\n{\[ ][^"\r\n{]*"#,
            "$1$2[left out]",
        ),
        (r"[A-Za-z0-9+/]{100,}={0,2}", LEFT_OUT),
    ]
    .into_iter()
    // Each is a constant, which a test compiles: none is left out in practice.
    .filter_map(|(pattern, by)| Some((Regex::new(pattern).ok()?, by)))
    .collect()
});

/// A name with a value: `password=x`, `"api_key": "x"`, `?token=x&`.
static NAMED_VALUE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let value = r#"("(?:[^"\\]|\\.)*"|'[^']*'|[^ \t\r\n,;&}\]"'{\[]+)"#;
    Regex::new(&format!(r#"([A-Za-z0-9_.-]+)("?'?[ \t]*[:=][ \t]*){value}"#)).ok()
});

/// The text without secrets.
pub(super) fn redact_text(text: &str) -> String {
    let mut redacted = text.to_owned();
    for (pattern, by) in PATTERNS.iter() {
        redacted = pattern.replace_all(&redacted, *by).into_owned();
    }
    let Some(named) = NAMED_VALUE.as_ref() else { return LEFT_OUT.to_owned() };
    let replaced = named.replace_all(&redacted, |found: &Captures<'_>| match is_secret_name(&found[1]) {
        true => format!("{}{}{LEFT_OUT}", &found[1], &found[2]),
        false => found[0].to_owned(),
    });
    replaced.into_owned()
}

/// Whether a text must not be packed, although it was redacted.
pub(super) fn holds_key(text: &str) -> bool {
    text.contains("PRIVATE KEY-----")
}

/// A configuration without secrets.
pub(super) fn redact_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = redact_text(text),
        Value::Array(parts) => parts.iter_mut().for_each(redact_value),
        Value::Object(parts) => {
            for (name, part) in parts.iter_mut() {
                let are_fields = FIELD_KEYS.contains(&name.as_str()) && part.is_object();
                match is_secret_name(name) && !part.is_object() || are_fields {
                    true => mask(part),
                    false => redact_value(part),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces every value of a part; names stay.
fn mask(part: &mut Value) {
    match part {
        Value::Object(parts) => parts.iter_mut().for_each(|(_, part)| mask(part)),
        Value::Array(parts) => parts.iter_mut().for_each(mask),
        Value::Null => {}
        value => *value = Value::String(LEFT_OUT.to_owned()),
    }
}

/// Whether a name tells a secret: `apiKey`, `API_KEY` and `x-api-key` do.
fn is_secret_name(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|one| one.to_ascii_lowercase()).collect();
    SECRET_WORDS.iter().any(|word| plain.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_compile() {
        assert_eq!(PATTERNS.len(), 7);
        assert!(NAMED_VALUE.is_some());
    }

    #[test]
    fn secrets_of_a_text_are_replaced_and_the_rest_stays() {
        let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7";
        for (text, expected) in [
            ("GET http://u:hunter2@10.0.0.1:80/a", "GET http://[left out]@10.0.0.1:80/a"),
            ("http://10.0.0.1:80/a@b", "http://10.0.0.1:80/a@b"),
            ("error=bad password=hunter2 status=401", "error=bad password=[left out] status=401"),
            (r#"{"apiKey":"hunter2","path":"/a"}"#, r#"{"apiKey":[left out],"path":"/a"}"#),
            ("Authorization: Bearer abc.def-123", "Authorization: [left out]"),
            (r#""cookie": "a=b; c=d", "x": 1"#, r#""cookie": [left out], "x": 1"#),
            ("/login?access_token=hunter2&x=1", "/login?access_token=[left out]&x=1"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln end", "jwt [left out] end"),
            ("basic aHVudGVyMg== x", "basic [left out] x"),
            ("department=parking outcome=ok request_id=0123", "department=parking outcome=ok request_id=0123"),
        ] {
            assert_eq!(redact_text(text), expected, "{text}");
        }
        for text in [
            format!("a -----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY----- b"),
            format!("a -----BEGIN PRIVATE KEY-----\\n{body}"),
            format!("{body}\n-----END EC PRIVATE KEY----- b"),
            format!("key: {}", body.repeat(3)),
        ] {
            let redacted = redact_text(&text);
            assert!(!redacted.contains("MIIE") && !holds_key(&redacted), "{text}: {redacted}");
        }
    }

    #[test]
    fn secrets_of_a_configuration_are_replaced() {
        let mut value = serde_json::json!({
            "subsystems": [{
                "upstreams": [{ "url": "http://u:hunter2@10.0.0.1" }],
                "balance": { "cookie": { "name": "route", "secret": "hunter2" } },
                "headers": { "request": { "set": { "x-key": "hunter2" }, "add": { "x-role": "hunter2" } } },
                "tls": { "key": "/etc/pki/server.key" },
            }],
            "token": 7,
        });
        redact_value(&mut value);
        assert_eq!(
            value,
            serde_json::json!({
                "subsystems": [{
                    "upstreams": [{ "url": "http://[left out]@10.0.0.1" }],
                    "balance": { "cookie": { "name": "route", "secret": LEFT_OUT } },
                    "headers": { "request": { "set": { "x-key": LEFT_OUT }, "add": { "x-role": LEFT_OUT } } },
                    "tls": { "key": "/etc/pki/server.key" },
                }],
                "token": LEFT_OUT,
            })
        );
    }
}
