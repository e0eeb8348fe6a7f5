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
    /// The value of `Access-Control-Allow-Methods`; without it, the method that a preflight asks for.
    pub methods: Option<HeaderValue>,
    /// The value of `Access-Control-Allow-Headers`.
    pub headers: Option<HeaderValue>,
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
    /// All origins. Never with credentials: browsers refuse that combination.
    Any,
    /// These origins, compared byte for byte.
    Listed(Vec<HeaderValue>),
}

const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
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
        if let AllowedOrigins::Listed(_) = self.origins {
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
        let methods = self.methods.clone().or_else(|| request.get(ACCESS_CONTROL_REQUEST_METHOD).cloned());
        headers.extend(methods.map(|methods| (ACCESS_CONTROL_ALLOW_METHODS, methods)));
        headers.extend(self.headers.clone().map(|names| (ACCESS_CONTROL_ALLOW_HEADERS, names)));
        headers.extend(self.max_age.clone().map(|seconds| (ACCESS_CONTROL_MAX_AGE, seconds)));
        headers
    }

    /// The value of `Access-Control-Allow-Origin` for a request from `origin`.
    fn allowed_origin(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match &self.origins {
            AllowedOrigins::Any => Some(ANY_ORIGIN),
            AllowedOrigins::Listed(origins) => origin.filter(|origin| origins.contains(origin)).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: AllowedOrigins, credentials: bool) -> CorsPolicy {
        let value = |text| Some(HeaderValue::from_static(text));
        let (headers, expose, max_age) = (value("x-key"), value("x-request-id"), value("600"));
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
        let these = || AllowedOrigins::Listed(vec![HeaderValue::from_static("https://a")]);
        let sent_fields = fields(&cors(these(), true).preflight_headers(&preflight_from("https://a")));
        let expected = [
            "allow-credentials: true",
            "allow-headers: x-key",
            "allow-methods: PUT",
            "allow-origin: https://a",
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
    fn cors_fields_of_a_subsystem_are_removed() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://evil"));
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, CREDENTIALS_TRUE);
        headers.insert(VARY, HeaderValue::from_static("accept"));
        let mut from_any = headers.clone();
        let these = cors(AllowedOrigins::Listed(vec![HeaderValue::from_static("https://a")]), false);
        these.apply(&mut headers, Some(&HeaderValue::from_static("https://evil")));
        assert_eq!(fields(&headers), "vary: accept\nvary: origin");
        cors(AllowedOrigins::Any, false).apply(&mut from_any, None);
        assert_eq!(fields(&from_any), "allow-origin: *\nexpose-headers: x-request-id\nvary: accept");
    }
}
