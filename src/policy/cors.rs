//! CORS: the origins whose pages a browser allows to read the responses of a command (Fetch standard, "CORS protocol").
//!
//! Guarantees:
//! - Pure.
//! - The CORS fields of a subsystem's response are replaced, not merged.
//! - CORS authorises nothing: grants decide on a command, and on its preflight as well.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// The CORS policy of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct CorsPolicy {
    /// The allowed origins.
    pub origins: AllowedOrigins,
    /// The methods that a page may use; without them, the method that a preflight asks for.
    pub methods: Option<AllowedNames>,
    /// The fields that a page may send.
    pub headers: Option<AllowedNames>,
    /// The value of `Access-Control-Expose-Headers`.
    pub expose: Option<HeaderValue>,
    /// The value of `Access-Control-Max-Age`, in seconds.
    pub max_age: Option<HeaderValue>,
    /// Whether requests may carry credentials: cookies and certificates.
    pub credentials: bool,
}

/// The origins whose pages may read responses.
#[derive(Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// All origins. With credentials, the response names the origin of the request, because browsers refuse `*` then.
    Any,
    /// These origins.
    Listed(Vec<OriginPattern>),
}

/// One allowed origin, or all subdomains of a host. Compared byte for byte: browsers send scheme and host in lower
/// case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// One origin.
    Exact(HeaderValue),
    /// `https://*.city.example`: one or more labels below the host, with the same scheme and port.
    Subdomains {
        /// The scheme with its separator: `https://`.
        scheme: &'static str,
        /// The rest, with its first dot: `.city.example`, `.city.example:8443`.
        suffix: String,
    },
}

/// The methods or fields that a page may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedNames {
    /// All. With credentials, the response repeats what the preflight asks for, because `*` means nothing to browsers
    /// then.
    Any,
    /// A comma-separated list.
    Listed(HeaderValue),
}

impl OriginPattern {
    fn matches(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Exact(allowed) => allowed == origin,
            Self::Subdomains { scheme, suffix } => {
                let labels = origin.as_bytes().strip_prefix(scheme.as_bytes());
                labels.and_then(|rest| rest.strip_suffix(suffix.as_bytes())).is_some_and(are_labels)
            }
        }
    }
}

/// Whether the bytes are labels of a host name, with dots between them.
fn are_labels(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'.').all(|label| {
        !label.is_empty()
            && label.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
    })
}

const ANY: HeaderValue = HeaderValue::from_static("*");
const CREDENTIALS_TRUE: HeaderValue = HeaderValue::from_static("true");
/// The response fields that the gateway controls where CORS is configured.
const CORS_RESPONSE_HEADERS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

impl CorsPolicy {
    /// The most names in one list.
    pub const NAMES_MAX: usize = 64;

    /// The method that a preflight asks for; `None` if the request is no preflight.
    pub fn requested_method(method: &Method, headers: &HeaderMap) -> Option<Method> {
        let asked = (*method == Method::OPTIONS).then(|| headers.get(ACCESS_CONTROL_REQUEST_METHOD))??;
        Method::from_bytes(asked.as_bytes()).ok().filter(|_| headers.contains_key(ORIGIN))
    }

    /// Sets the CORS fields in the head of a response to a request from `origin`.
    pub fn apply(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
        for ours in CORS_RESPONSE_HEADERS {
            headers.remove(ours);
        }
        if self.depends_on_origin() {
            headers.append(VARY, HeaderValue::from_name(ORIGIN));
        }
        let Some(allowed) = self.allowed_origin(origin) else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.extend(self.credentials.then_some((ACCESS_CONTROL_ALLOW_CREDENTIALS, CREDENTIALS_TRUE)));
        headers.extend(self.expose.clone().map(|expose| (ACCESS_CONTROL_EXPOSE_HEADERS, expose)));
    }

    /// The head of the response to a preflight with these fields. An origin that is not allowed gets no CORS fields.
    pub fn preflight_headers(&self, request: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for asked in [ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_REQUEST_HEADERS] {
            headers.append(VARY, HeaderValue::from_name(asked));
        }
        let Some(allowed) = self.allowed_origin(request.get(ORIGIN)) else { return headers };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.extend(self.credentials.then_some((ACCESS_CONTROL_ALLOW_CREDENTIALS, CREDENTIALS_TRUE)));
        let asked = request.get(ACCESS_CONTROL_REQUEST_METHOD);
        let methods = self.methods.as_ref().map_or(asked.cloned(), |methods| self.allowed_names(methods, asked));
        headers.extend(methods.map(|methods| (ACCESS_CONTROL_ALLOW_METHODS, methods)));
        let asked = request.get(ACCESS_CONTROL_REQUEST_HEADERS);
        let names = self.headers.as_ref().and_then(|names| self.allowed_names(names, asked));
        headers.extend(names.map(|names| (ACCESS_CONTROL_ALLOW_HEADERS, names)));
        headers.extend(self.max_age.clone().map(|seconds| (ACCESS_CONTROL_MAX_AGE, seconds)));
        // Browsers read it from the response itself; the conformance suite of the Gateway API asks for it here too.
        headers.extend(self.expose.clone().map(|expose| (ACCESS_CONTROL_EXPOSE_HEADERS, expose)));
        headers
    }

    /// The value of `Access-Control-Allow-Origin` for a request from `origin`.
    fn allowed_origin(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match &self.origins {
            AllowedOrigins::Any if self.credentials => origin.cloned(),
            AllowedOrigins::Any => Some(ANY),
            AllowedOrigins::Listed(origins) => {
                origin.filter(|origin| origins.iter().any(|allowed| allowed.matches(origin))).cloned()
            }
        }
    }

    /// Whether responses differ by the origin of the request.
    fn depends_on_origin(&self) -> bool {
        self.credentials || matches!(self.origins, AllowedOrigins::Listed(_))
    }

    /// The value of a list in the response to a preflight that asks for `asked`.
    fn allowed_names(&self, names: &AllowedNames, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        match names {
            AllowedNames::Listed(names) => Some(names.clone()),
            AllowedNames::Any if self.credentials => asked.cloned(),
            AllowedNames::Any => Some(ANY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: AllowedOrigins, credentials: bool) -> CorsPolicy {
        let value = |text| Some(HeaderValue::from_static(text));
        let (expose, max_age) = (value("x-request-id"), value("600"));
        let headers = Some(AllowedNames::Listed(HeaderValue::from_static("x-key")));
        CorsPolicy { origins, methods: None, headers, expose, max_age, credentials }
    }

    fn fields(headers: &HeaderMap) -> String {
        let mut fields: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII"))).collect();
        fields.sort_unstable();
        fields.join("\n").replace("access-control-", "")
    }

    fn preflight_from(origin: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static(origin));
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT"));
        headers
    }

    #[test]
    fn preflight_is_options_with_an_origin_and_a_method() {
        let whole = preflight_from("https://a");
        assert_eq!(CorsPolicy::requested_method(&Method::OPTIONS, &whole), Some(Method::PUT));
        assert_eq!(CorsPolicy::requested_method(&Method::GET, &whole), None);
        for missing in [ORIGIN, ACCESS_CONTROL_REQUEST_METHOD] {
            let mut headers = whole.clone();
            headers.remove(missing);
            assert_eq!(CorsPolicy::requested_method(&Method::OPTIONS, &headers), None);
        }
    }

    #[test]
    fn only_allowed_origins_get_cors_fields() {
        let these = || AllowedOrigins::Listed(vec![OriginPattern::Exact(HeaderValue::from_static("https://a"))]);
        let sent_fields = fields(&cors(these(), true).preflight_headers(&preflight_from("https://a")));
        let expected = [
            "allow-credentials: true",
            "allow-headers: x-key",
            "allow-methods: PUT",
            "allow-origin: https://a",
            "expose-headers: x-request-id",
            "max-age: 600",
            "vary: origin",
            "vary: request-headers",
            "vary: request-method",
        ];
        let mut lines: Vec<_> = sent_fields.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, expected);
        for stranger in ["https://b", "https://a.b", "https://A", "null"] {
            let sent_fields = fields(&cors(these(), true).preflight_headers(&preflight_from(stranger)));
            assert!(!sent_fields.contains("allow-"), "{stranger}: {sent_fields}");
        }
        let sent_fields = fields(&cors(AllowedOrigins::Any, false).preflight_headers(&preflight_from("https://b")));
        assert!(sent_fields.contains("allow-origin: *") && !sent_fields.contains("credentials"), "{sent_fields}");
    }

    #[test]
    fn a_wildcard_origin_stands_for_subdomains_of_any_depth() {
        let pattern = OriginPattern::Subdomains { scheme: "https://", suffix: ".city.example".to_owned() };
        for (origin, matches) in [
            ("https://a.city.example", true),
            ("https://a.b-1.city.example", true),
            ("https://city.example", false),
            ("https://.city.example", false),
            ("https://a..city.example", false),
            ("http://a.city.example", false),
            ("https://a.city.example:8443", false),
            ("https://evilcity.example", false),
            ("https://evil.example/.city.example", false),
            ("https://u@a.city.example", false),
        ] {
            assert_eq!(pattern.matches(&HeaderValue::from_static(origin)), matches, "{origin}");
        }
    }

    #[test]
    fn with_credentials_wildcards_are_answered_by_what_the_request_names() {
        let policy = |credentials| CorsPolicy {
            methods: Some(AllowedNames::Any),
            headers: Some(AllowedNames::Any),
            ..cors(AllowedOrigins::Any, credentials)
        };
        let mut request = preflight_from("https://a");
        request.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-one, x-two"));
        let values = |headers: &HeaderMap| {
            [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_HEADERS]
                .map(|name| headers.get(name).cloned().unwrap_or(HeaderValue::from_static("none")))
        };
        assert_eq!(values(&policy(false).preflight_headers(&request)), ["*", "*", "*"]);
        assert_eq!(values(&policy(true).preflight_headers(&request)), ["https://a", "PUT", "x-one, x-two"]);
        let mut response = HeaderMap::new();
        policy(true).apply(&mut response, Some(&HeaderValue::from_static("https://a")));
        assert_eq!(
            (response.get(ACCESS_CONTROL_ALLOW_ORIGIN), response.get(VARY)),
            (Some(&HeaderValue::from_static("https://a")), Some(&HeaderValue::from_name(ORIGIN)))
        );
    }

    #[test]
    fn cors_fields_of_a_subsystem_are_removed() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://evil"));
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, CREDENTIALS_TRUE);
        headers.insert(VARY, HeaderValue::from_static("accept"));
        let mut from_any = headers.clone();
        let these =
            cors(AllowedOrigins::Listed(vec![OriginPattern::Exact(HeaderValue::from_static("https://a"))]), false);
        these.apply(&mut headers, Some(&HeaderValue::from_static("https://evil")));
        assert_eq!(fields(&headers), "vary: accept\nvary: origin");
        cors(AllowedOrigins::Any, false).apply(&mut from_any, None);
        assert_eq!(fields(&from_any), "allow-origin: *\nexpose-headers: x-request-id\nvary: accept");
    }
}
