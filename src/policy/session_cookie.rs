//! The cookie of sticky routing: its name and attributes.
//!
//! Guarantees: a value has random digits only, so it says nothing about servers, and every gateway finds the same
//! server for it.
//!
//! Leaves to others: the choice of the server (`proxy`).

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// The longest value of a cookie that is a session, in bytes. Longer ones are not ours.
const VALUE_MAX: usize = 64;

/// The cookie of sticky routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// Its name.
    pub name: String,
    /// Its attributes as they are sent, each after `; `, without `Secure`.
    pub attributes: String,
    /// Whether it is sent over TLS alone; `None` if that follows from the connection that it is set on.
    pub secure: Option<bool>,
}

impl SessionCookie {
    /// The session that a request names.
    pub fn session_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let fields = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let mut pairs = fields.flat_map(|field| field.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
        let value = |pair: &'a [u8]| pair.strip_prefix(self.name.as_bytes())?.strip_prefix(b"=");
        pairs.find_map(value).filter(|value| (1..=VALUE_MAX).contains(&value.len()))
    }

    /// The field that sets the cookie to a session, on a connection with or without TLS.
    pub fn field(&self, session: &str, is_tls: bool) -> Option<HeaderValue> {
        let secure = if self.secure.unwrap_or(is_tls) { "; Secure" } else { "" };
        HeaderValue::try_from(format!("{}={session}{}{secure}", self.name, self.attributes)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(secure: Option<bool>) -> SessionCookie {
        SessionCookie { name: "route".to_owned(), attributes: "; Path=/; HttpOnly".to_owned(), secure }
    }

    #[test]
    fn session_is_the_first_value_of_the_cookie() {
        let long = format!("route={}", "x".repeat(VALUE_MAX + 1));
        for (fields, expected) in [
            (&["route=a"][..], Some("a")),
            (&["x=1; route=a;route=b"], Some("a")),
            (&["x=1", "route=a"], Some("a")),
            (&["xroute=a; routex=b; ROUTE=c"], None),
            (&["route="], None),
            (&[&long], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(COOKIE, field.parse().expect("a value"));
            }
            assert_eq!(cookie(None).session_of(&headers), expected.map(str::as_bytes), "{fields:?}");
        }
    }

    #[test]
    fn secure_follows_the_connection_unless_it_is_written() {
        for (secure, is_tls, expected) in
            [(None, true, true), (None, false, false), (Some(true), false, true), (Some(false), true, false)]
        {
            let field = cookie(secure).field("a", is_tls).expect("a field");
            let expected = format!("route=a; Path=/; HttpOnly{}", if expected { "; Secure" } else { "" });
            assert_eq!(field, expected.as_str());
        }
    }
}
