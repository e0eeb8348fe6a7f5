//! Hostnames of the Gateway API: exact names, and `*.` with a suffix for one or more labels.
//!
//! Guarantees: names are compared without case.
//!
//! Leaves to others: the order of matches (`policy`).

/// The host of the configuration: `*.` of the Gateway API is `**.` there.
pub(super) fn configured_host(hostname: &str) -> String {
    let hostname = hostname.to_ascii_lowercase();
    match hostname.strip_prefix("*.") {
        Some(suffix) => format!("**.{suffix}"),
        None => hostname,
    }
}

/// Whether some host matches both. A missing hostname matches every host.
pub(super) fn intersect(listener: Option<&str>, route: &[Box<str>]) -> bool {
    let Some(listener) = listener.filter(|hostname| !hostname.is_empty()) else { return true };
    route.is_empty()
        || route.iter().any(|hostname| overlap(&listener.to_ascii_lowercase(), &hostname.to_ascii_lowercase()))
}

fn overlap(one: &str, other: &str) -> bool {
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (None, None) => one == other,
        (Some(suffix), None) => is_below(other, suffix),
        (None, Some(suffix)) => is_below(one, suffix),
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
    }
}

/// Whether a name has one or more labels before a suffix, which begins with a dot.
fn is_below(name: &str, suffix: &str) -> bool {
    name.len() > suffix.len() && name.ends_with(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intersections() {
        for (listener, route, expected) in [
            (None, &["a.example"][..], true),
            (Some(""), &["a.example"], true),
            (Some("a.example"), &[], true),
            (Some("a.example"), &["A.Example"], true),
            (Some("a.example"), &["b.example"], false),
            (Some("*.example"), &["a.example"], true),
            (Some("*.example"), &["a.b.example"], true),
            (Some("*.example"), &["example"], false),
            (Some("*.example"), &["badexample"], false),
            (Some("a.example"), &["*.example"], true),
            (Some("*.b.example"), &["*.example"], true),
            (Some("*.example"), &["*.b.example"], true),
            (Some("*.a.example"), &["*.b.example"], false),
            (Some("a.example"), &["x.test", "a.example"], true),
        ] {
            let route: Vec<Box<str>> = route.iter().map(|hostname| (*hostname).into()).collect();
            assert_eq!(intersect(listener, &route), expected, "{listener:?} {route:?}");
        }
        assert_eq!(configured_host("*.Shop.example"), "**.shop.example");
        assert_eq!(configured_host("Shop.example"), "shop.example");
    }
}
