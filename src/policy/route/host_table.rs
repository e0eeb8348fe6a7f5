//! From host and path prefix to the commands there.
//!
//! Guarantees:
//! - An exact name comes before wildcards, a wildcard with a longer suffix before one with a shorter, `*.` before `**.`
//!   of the same suffix, and any host comes last. Among the prefixes of one host the longest comes first.
//! - A lookup allocates nothing. It takes one search for each label of the host, and none for wildcards if there are
//!   none.
//!
//! Leaves to others: the commands (`path_table`).

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::prefix_index::PrefixIndex;

/// The number of prefixes of a host up to which they are compared one after the other: no hash is needed.
const COMPARED_PREFIXES_MAX: usize = 8;

/// The longest host that a wildcard can match, in bytes: that of a name in DNS (RFC 1035 section 2.3.4). It bounds the
/// number of labels that are looked up.
const WILDCARD_HOST_MAX: usize = 253;

/// Hosts, each with its prefixes.
#[derive(Debug, Default)]
pub(super) struct HostTable {
    /// Exact names, lower case, in byte order.
    names: Vec<(String, HostPrefixes)>,
    /// The suffixes of wildcards with their first dot, lower case, in byte order.
    suffixes: Vec<(String, WildcardPrefixes)>,
    any_host: HostPrefixes,
}

/// The prefixes of `*.suffix` and of `**.suffix`.
#[derive(Debug, Default)]
struct WildcardPrefixes {
    one_label: HostPrefixes,
    any_labels: HostPrefixes,
}

/// The prefixes of one host, each with the position of its table.
#[derive(Debug)]
enum HostPrefixes {
    /// The longest first.
    Few(Vec<(String, usize)>),
    Many(PrefixIndex<usize>),
}

impl HostTable {
    /// Builds the table from hosts (`None` for any) with their prefixes and the position of the table of each.
    pub(super) fn build(hosts: impl IntoIterator<Item = (Option<String>, Vec<(String, usize)>)>) -> Self {
        let mut table = Self::default();
        let mut suffixes: BTreeMap<String, WildcardPrefixes> = BTreeMap::new();
        for (host, prefixes) in hosts {
            let prefixes = HostPrefixes::build(prefixes);
            let Some(host) = host else {
                table.any_host = prefixes;
                continue;
            };
            if let Some(suffix) = host.strip_prefix("**") {
                suffixes.entry(suffix.to_owned()).or_default().any_labels = prefixes;
            } else if let Some(suffix) = host.strip_prefix('*') {
                suffixes.entry(suffix.to_owned()).or_default().one_label = prefixes;
            } else {
                table.names.push((host, prefixes));
            }
        }
        table.names.sort_by(|(a, _), (b, _)| a.cmp(b));
        table.suffixes = suffixes.into_iter().collect();
        table
    }

    /// Calls `visit` with the position of each table that a host and path belong to, the most specific first, and with
    /// the path below its prefix, until it breaks.
    pub(super) fn visit_tables<'p, B>(
        &self,
        host: &str,
        path: &'p str,
        mut visit: impl FnMut(usize, &'p str) -> ControlFlow<B>,
    ) -> Option<B> {
        let host = bare_host(host);
        let visited = match find_name(&self.names, host) {
            Some(prefixes) => prefixes.visit(path, &mut visit),
            None => ControlFlow::Continue(()),
        };
        let visited = match visited {
            ControlFlow::Continue(()) if !self.suffixes.is_empty() => self.visit_wildcards(host, path, &mut visit),
            other => other,
        };
        let visited = match visited {
            ControlFlow::Continue(()) => self.any_host.visit(path, &mut visit),
            other => other,
        };
        visited.break_value()
    }

    fn visit_wildcards<'p, B>(
        &self,
        host: &str,
        path: &'p str,
        visit: &mut impl FnMut(usize, &'p str) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if host.len() > WILDCARD_HOST_MAX || host.starts_with('.') {
            return ControlFlow::Continue(());
        }
        for (labels, (dot, _)) in host.match_indices('.').enumerate() {
            let Some(wildcard) = find_name(&self.suffixes, &host[dot..]) else { continue };
            if labels == 0 {
                wildcard.one_label.visit(path, visit)?;
            }
            wildcard.any_labels.visit(path, visit)?;
        }
        ControlFlow::Continue(())
    }
}

impl Default for HostPrefixes {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl HostPrefixes {
    fn build(mut prefixes: Vec<(String, usize)>) -> Self {
        if prefixes.len() <= COMPARED_PREFIXES_MAX {
            prefixes.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
            return Self::Few(prefixes);
        }
        let mut index = PrefixIndex::default();
        prefixes.into_iter().for_each(|(prefix, table)| *index.entry(&prefix) = table);
        Self::Many(index)
    }

    fn visit<'p, B>(&self, path: &'p str, visit: &mut impl FnMut(usize, &'p str) -> ControlFlow<B>) -> ControlFlow<B> {
        match self {
            Self::Few(prefixes) => {
                for (prefix, table) in prefixes {
                    if let Some(below) = path_below(prefix, path) {
                        visit(*table, below)?;
                    }
                }
            }
            Self::Many(index) => {
                for (table, length) in index.prefixes_of(path) {
                    visit(*table, if length == path.len() { "/" } else { &path[length..] })?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

fn find_name<'t, T>(names: &'t [(String, T)], host: &str) -> Option<&'t T> {
    names.binary_search_by(|(known, _)| compare_lower(known, host)).ok().map(|position| &names[position].1)
}

/// The path below a prefix; `None` unless the prefix ends at the end of a segment.
fn path_below<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    }
}

/// A host without its port and without the trailing dot of a fully qualified name.
fn bare_host(authority: &str) -> &str {
    let address_end = if authority.starts_with('[') { authority.find(']') } else { None };
    let host_end = address_end.map(|bracket| bracket + 1).or_else(|| authority.bytes().position(|byte| byte == b':'));
    let host = &authority[..host_end.unwrap_or(authority.len())];
    host.strip_suffix('.').unwrap_or(host)
}

/// Compares a lower-case name with a name in any case.
fn compare_lower(known: &str, host: &str) -> Ordering {
    if known == host {
        return Ordering::Equal; // most callers write it in lower case
    }
    known.bytes().cmp(host.bytes().map(|byte| byte.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        for (prefix, path, expected) in [
            ("/cameras", "/cameras/v1", Some("/v1")),
            ("/cameras", "/cameras", Some("/")),
            ("/cameras", "/cameras/", Some("/")),
            ("/cameras", "/camerasx", None),
            ("/cameras", "/signals", None),
            ("", "/anything", Some("/anything")),
            ("", "*", None),
        ] {
            assert_eq!(path_below(prefix, path), expected, "{prefix} {path}");
        }
    }

    #[test]
    fn many_prefixes_are_found_as_few_are() {
        let prefixes = |count: usize| (0..count).map(|at| (format!("/p{at}"), at)).chain([(String::new(), 99)]);
        for count in [3, COMPARED_PREFIXES_MAX, 5000] {
            let table = HostTable::build([(None, prefixes(count).collect())]);
            for (path, expected) in [
                ("/p1/x", &[(1, "/x"), (99, "/p1/x")][..]),
                ("/p1", &[(1, "/"), (99, "/p1")]),
                ("/p1/", &[(1, "/"), (99, "/p1/")]),
                ("/px", &[(99, "/px")]),
                ("/", &[(99, "/")]),
                ("*", &[]),
            ] {
                assert_eq!(tables(&table, "any", path), expected, "{count} {path}");
            }
        }
    }

    fn tables<'p>(table: &HostTable, host: &str, path: &'p str) -> Vec<(usize, &'p str)> {
        let mut visited = Vec::new();
        let broken: Option<()> = table.visit_tables(host, path, |position, below| {
            visited.push((position, below));
            ControlFlow::Continue(())
        });
        assert_eq!(broken, None);
        visited
    }

    #[test]
    fn hosts_come_from_the_exact_name_to_any() {
        let hosts = [
            Some("a.b.city.example"),
            Some("*.b.city.example"),
            Some("**.b.city.example"),
            Some("*.city.example"),
            Some("**.city.example"),
            Some("city.example"),
            None,
        ];
        let places =
            |(position, host): (usize, Option<&str>)| (host.map(str::to_owned), vec![(String::new(), position)]);
        let table = HostTable::build(hosts.into_iter().enumerate().map(places));
        for (host, expected) in [
            ("a.b.city.example", &[0, 1, 2, 4, 6][..]),
            ("A.B.City.Example.:8443", &[0, 1, 2, 4, 6]),
            ("x.b.city.example", &[1, 2, 4, 6]),
            ("x.y.b.city.example", &[2, 4, 6]),
            ("b.city.example", &[3, 4, 6]),
            ("x.city.example", &[3, 4, 6]),
            ("x.y.city.example", &[4, 6]),
            ("city.example", &[5, 6]),
            (".city.example", &[6]),
            ("xcity.example", &[6]),
            ("[::1]:8443", &[6]),
            ("", &[6]),
        ] {
            let found: Vec<_> = tables(&table, host, "/").into_iter().map(|(position, _)| position).collect();
            assert_eq!(found, expected, "{host}");
        }
    }

    #[test]
    fn a_host_is_read_without_port_and_last_dot() {
        for (authority, host) in [
            ("city.example", "city.example"),
            ("city.example:8443", "city.example"),
            ("city.example.:8443", "city.example"),
            ("[::1]:8443", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(bare_host(authority), host, "{authority}");
        }
    }

    #[test]
    fn hosts_are_compared_in_any_case() {
        assert_eq!(compare_lower("city.example", "City.EXAMPLE"), Ordering::Equal);
        assert_eq!(compare_lower("a.example", "B.example"), Ordering::Less);
    }
}
