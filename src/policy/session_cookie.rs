//! The cookie of sticky routing: its name, its attributes and its values.
//!
//! Guarantees:
//! - A value says nothing about servers to whoever has not the secret of the configuration. Without persistence it has
//!   random digits only. With it, an entry names a server by a number that is masked by a digest of the secret and of
//!   random digits, which no two entries share.
//! - Every gateway with the same configuration finds the same server for a value.
//!
//! Leaves to others: the choice of the server (`proxy`).

use std::fmt;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use sha2::{Digest as _, Sha256};

/// The longest value of a cookie that is a session, in bytes. Longer ones are not ours.
const VALUE_MAX: usize = 64;
/// The hexadecimal digits of a session's random number.
const ID_LENGTH: usize = 32;
/// The length of an entry of a persistent cookie: the random number, and the masked number of a server.
const ENTRY_LENGTH: usize = ID_LENGTH + 16;

/// The cookie of sticky routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// Its name.
    pub name: String,
    /// Its attributes as they are sent, each after `; `, without `Secure`.
    pub attributes: String,
    /// Whether it is sent over TLS alone; `None` if that follows from the connection that it is set on.
    pub secure: Option<bool>,
    /// The secret of persistent sessions, which stay at their server also when servers are added; `None` if sessions
    /// are balanced.
    pub persistence: Option<SessionSecret>,
    /// Whether a session moves to another server, with a new value, when its server has failed.
    pub changes_on_failure: bool,
}

/// The secret from which persistent sessions get the numbers of servers. Gateways with the same one understand each
/// other's cookies.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionSecret([u8; 32]);

impl SessionCookie {
    /// The most entries of a persistent cookie. Several backends may share one cookie; each has an entry of its own.
    pub const ENTRIES_MAX: usize = 8;

    /// The session that a request names.
    pub fn session_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        self.value_of(headers).filter(|value| value.len() <= VALUE_MAX)
    }

    /// The entries of a persistent cookie, the newest first.
    pub fn entries_of<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        let is_ours = |value: &&[u8]| value.len() <= Self::ENTRIES_MAX * ENTRY_LENGTH;
        let value = self.value_of(headers).filter(is_ours).unwrap_or_default();
        value.chunks_exact(ENTRY_LENGTH).filter(|entry| entry.iter().all(u8::is_ascii_hexdigit))
    }

    fn value_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let fields = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let mut pairs = fields.flat_map(|field| field.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
        let value = |pair: &'a [u8]| pair.strip_prefix(self.name.as_bytes())?.strip_prefix(b"=");
        pairs.find_map(value).filter(|value| !value.is_empty())
    }

    /// The digits of a session with this random number.
    pub fn session_text(id: u128) -> String {
        format!("{id:0ID_LENGTH$x}")
    }

    /// The field that sets the cookie to a value, on a connection with or without TLS.
    pub fn field(&self, value: &str, is_tls: bool) -> Option<HeaderValue> {
        let secure = if self.secure.unwrap_or(is_tls) { "; Secure" } else { "" };
        HeaderValue::try_from(format!("{}={value}{}{secure}", self.name, self.attributes)).ok()
    }
}

impl SessionSecret {
    /// The fewest characters of a secret.
    pub const LENGTH_MIN: usize = 16;

    /// The secret that a configuration writes as this text.
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// The number of a server in the entries of this secret.
    pub fn server_number(&self, authority: &str) -> u64 {
        self.digest("server", authority.as_bytes())
    }

    /// The entry of a session at a server. No two entries may have the same random number.
    pub fn entry(&self, id: u128, server_number: u64) -> String {
        let id = SessionCookie::session_text(id);
        let masked = server_number ^ self.digest("session", id.as_bytes());
        format!("{id}{masked:016x}")
    }

    /// The number of the server that an entry names.
    pub fn server_in(&self, entry: &[u8]) -> Option<u64> {
        let (id, masked) = entry.split_at_checked(ID_LENGTH)?;
        let masked = u64::from_str_radix(str::from_utf8(masked).ok()?, 16).ok()?;
        Some(masked ^ self.digest("session", id))
    }

    fn digest(&self, purpose: &str, text: &[u8]) -> u64 {
        let digest = Sha256::new().chain_update(self.0).chain_update(purpose).chain_update(text).finalize();
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(secure: Option<bool>) -> SessionCookie {
        SessionCookie {
            name: "route".to_owned(),
            attributes: "; Path=/; HttpOnly".to_owned(),
            secure,
            persistence: None,
            changes_on_failure: false,
        }
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
    #[test]
    fn entries_are_read_by_gateways_with_the_same_secret_alone() {
        let (ours, same, other) = (secret("a"), secret("a"), secret("b"));
        let (one, two) = (ours.server_number("10.0.0.1:80"), ours.server_number("10.0.0.2:80"));
        assert_eq!(one, 0x3ab8_6dcb_8c30_10c6, "SHA-256, as Python computes it");
        let entry = ours.entry(7, one);
        assert_eq!(entry, "00000000000000000000000000000007aea8d165768dc084");
        assert_eq!(same.server_in(entry.as_bytes()), Some(one));
        assert!(other.server_in(entry.as_bytes()) != Some(one) && one != two);
        assert_ne!(&entry[ID_LENGTH..], &ours.entry(8, one)[ID_LENGTH..], "two sessions of one server");
        for text in ["", "7", &"0".repeat(ID_LENGTH), &"z".repeat(ENTRY_LENGTH)] {
            assert_eq!(ours.server_in(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(format!("{ours:?}"), "SessionSecret(..)");
    }

    fn secret(text: &str) -> SessionSecret {
        SessionSecret::new(text)
    }

    #[test]
    fn persistent_cookie_has_whole_entries() {
        let entry = |digit: &str| digit.repeat(ENTRY_LENGTH);
        let many = entry("a").repeat(SessionCookie::ENTRIES_MAX);
        for (value, entries) in [
            (String::new(), 0),
            (entry("a"), 1),
            (entry("a") + &entry("b"), 2),
            (entry("a") + "b", 1),
            (entry("z") + &entry("b"), 1),
            (many.clone(), SessionCookie::ENTRIES_MAX),
            (many + "a", 0),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, format!("route={value}").parse().expect("a value"));
            assert_eq!(cookie(None).entries_of(&headers).count(), entries, "{value}");
        }
    }
}
