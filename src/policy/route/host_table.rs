//! From host and path prefix to the commands there.
//!
//! Guarantees:
//! - An exact name comes before wildcards, a wildcard with a longer suffix before one with a shorter, `*.` before `**.`
//!   of the same suffix, and any host comes last. Among the prefixes of one host the longest comes first.
//! - A lookup allocates nothing. It takes one search for each label of the host, and none for wildcards if there are
//!   none.
//! - A table shares with the table before it the hosts that are the same.
//!
//! Leaves to others: the commands (`path_table`).

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::prefix_index::PrefixIndex;

/// The number of prefixes of a host up to which they are compared one after the other: no hash is needed.
const COMPARED_PREFIXES_MAX: usize = 8;

/// The longest host that a wildcard can match, in bytes: that of a name in DNS (RFC 1035 section 2.3.4). It bounds the
/// number of labels that are looked up.
const WILDCARD_HOST_MAX: usize = 253;

/// Hosts, each with its prefixes. The value of a prefix is a table of commands, or what else the host decides.
#[derive(Debug)]
pub(super) struct HostTable<T> {
    /// Exact names, lower case, in byte order.
    names: NamedPrefixes<T>,
    /// The suffixes of `*.suffix` and of `**.suffix` with their first dot, lower case, in byte order.
    suffixes: Vec<(Arc<str>, WildcardPrefixes<T>)>,
    any_host: Arc<HostPrefixes<T>>,
}

/// Prefixes by host, in byte order of the hosts.
type NamedPrefixes<T> = Vec<(Arc<str>, Arc<HostPrefixes<T>>)>;

/// The prefixes of `*.suffix` and of `**.suffix`.
#[derive(Debug)]
struct WildcardPrefixes<T> {
    one_label: Arc<HostPrefixes<T>>,
    any_labels: Arc<HostPrefixes<T>>,
}

/// The prefixes of one host, each with its value.
#[derive(Debug)]
enum HostPrefixes<T> {
    /// The longest first.
    Few(Vec<(Box<str>, T)>),
    Many(PrefixIndex<T>),
}

/// The new prefixes of a host (`None` for any), each with its value; without prefixes the host is removed.
pub(super) type HostChange<'a, T> = (Option<&'a str>, Vec<(&'a str, T)>);

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self { names: Vec::new(), suffixes: Vec::new(), any_host: Arc::default() }
    }
}

impl<T> Clone for WildcardPrefixes<T> {
    fn clone(&self) -> Self {
        Self { one_label: Arc::clone(&self.one_label), any_labels: Arc::clone(&self.any_labels) }
    }
}

impl<T> Default for WildcardPrefixes<T> {
    fn default() -> Self {
        Self { one_label: Arc::default(), any_labels: Arc::default() }
    }
}

impl<T> HostTable<T> {
    /// Builds the table of these hosts.
    pub(super) fn build<'a>(hosts: impl IntoIterator<Item = HostChange<'a, T>>) -> Self {
        Self::default().with_changes(hosts)
    }

    /// This table with other prefixes of some hosts. Each host is named once.
    pub(super) fn with_changes<'a>(&self, changes: impl IntoIterator<Item = HostChange<'a, T>>) -> Self {
        let mut names: BTreeMap<&str, Arc<HostPrefixes<T>>> = BTreeMap::new();
        let mut suffixes: BTreeMap<Arc<str>, WildcardPrefixes<T>> =
            self.suffixes.iter().map(|(suffix, prefixes)| (Arc::clone(suffix), prefixes.clone())).collect();
        let mut any_host = Arc::clone(&self.any_host);
        for (host, prefixes) in changes {
            let prefixes = Arc::new(HostPrefixes::build(prefixes));
            let Some(host) = host else {
                any_host = prefixes;
                continue;
            };
            if let Some(suffix) = host.strip_prefix("**") {
                suffixes.entry(suffix.into()).or_default().any_labels = prefixes;
            } else if let Some(suffix) = host.strip_prefix('*') {
                suffixes.entry(suffix.into()).or_default().one_label = prefixes;
            } else {
                names.insert(host, prefixes);
            }
        }
        suffixes.retain(|_, wildcard| !(wildcard.one_label.is_empty() && wildcard.any_labels.is_empty()));
        Self { names: merged_names(&self.names, names), suffixes: suffixes.into_iter().collect(), any_host }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.suffixes.is_empty() && self.any_host.is_empty()
    }

    /// The value of a prefix of a host.
    pub(super) fn value_at(&self, host: Option<&str>, prefix: &str) -> Option<&T> {
        let Some(host) = host else { return self.any_host.value_at(prefix) };
        let prefixes = match (host.strip_prefix("**"), host.strip_prefix('*')) {
            (Some(suffix), _) => &find_name(&self.suffixes, suffix)?.any_labels,
            (None, Some(suffix)) => &find_name(&self.suffixes, suffix)?.one_label,
            (None, None) => find_name(&self.names, host)?,
        };
        prefixes.value_at(prefix)
    }

    /// Calls `visit` with each value that a host and path belong to, the most specific first, and with the path below
    /// its prefix, until it breaks.
    pub(super) fn visit_values<'t, 'p, B>(
        &'t self,
        host: &str,
        path: &'p str,
        mut visit: impl FnMut(&'t T, &'p str) -> ControlFlow<B>,
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

    fn visit_wildcards<'t, 'p, B>(
        &'t self,
        host: &str,
        path: &'p str,
        visit: &mut impl FnMut(&'t T, &'p str) -> ControlFlow<B>,
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

impl<T> Default for HostPrefixes<T> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<T> HostPrefixes<T> {
    fn build(prefixes: Vec<(&str, T)>) -> Self {
        if prefixes.len() <= COMPARED_PREFIXES_MAX {
            let mut few: Vec<_> = prefixes.into_iter().map(|(prefix, value)| (prefix.into(), value)).collect();
            few.sort_by_key(|(prefix, _): &(Box<str>, T)| Reverse(prefix.len()));
            return Self::Few(few);
        }
        let mut index = PrefixIndex::default();
        prefixes.into_iter().for_each(|(prefix, value)| index.insert(prefix, value));
        Self::Many(index)
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Few(few) if few.is_empty())
    }

    fn value_at(&self, prefix: &str) -> Option<&T> {
        match self {
            Self::Few(few) => few.iter().find(|(known, _)| **known == *prefix).map(|(_, value)| value),
            Self::Many(index) => index.get(prefix),
        }
    }

    fn visit<'t, 'p, B>(
        &'t self,
        path: &'p str,
        visit: &mut impl FnMut(&'t T, &'p str) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match self {
            Self::Few(prefixes) => {
                for (prefix, value) in prefixes {
                    if let Some(below) = path_below(prefix, path) {
                        visit(value, below)?;
                    }
                }
            }
            Self::Many(index) => {
                for (value, length) in index.prefixes_of(path) {
                    visit(value, if length == path.len() { "/" } else { &path[length..] })?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The names of `before` with these changes.
fn merged_names<T>(before: &NamedPrefixes<T>, changes: BTreeMap<&str, Arc<HostPrefixes<T>>>) -> NamedPrefixes<T> {
    let mut merged = Vec::with_capacity(before.len() + changes.len());
    let mut rest = &before[..];
    for (host, prefixes) in changes {
        let (smaller, others) = rest.split_at(rest.partition_point(|(known, _)| **known < *host));
        merged.extend_from_slice(smaller);
        let known = others.first().filter(|(known, _)| **known == *host).map(|(known, _)| known);
        rest = if known.is_some() { &others[1..] } else { others };
        if !prefixes.is_empty() {
            merged.push((known.map_or_else(|| host.into(), Arc::clone), prefixes));
        }
    }
    merged.extend_from_slice(rest);
    merged
}

fn find_name<'t, T>(names: &'t [(Arc<str>, T)], host: &str) -> Option<&'t T> {
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
        let names: Vec<String> = (0..5000).map(|at| format!("/p{at}")).collect();
        for count in [3, COMPARED_PREFIXES_MAX, 5000] {
            let prefixes = names[..count].iter().map(String::as_str).zip(0..).chain([("", 99)]);
            let table = HostTable::build([(None, prefixes.collect())]);
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

    fn tables<'p>(table: &HostTable<usize>, host: &str, path: &'p str) -> Vec<(usize, &'p str)> {
        let mut visited = Vec::new();
        let broken: Option<()> = table.visit_values(host, path, |position, below| {
            visited.push((*position, below));
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
        let places = |(position, host)| (host, vec![("", position)]);
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
    fn changes_replace_add_and_remove_hosts() {
        let one = |position| vec![("", position)];
        let first = [(Some("b"), one(0)), (Some("d"), one(1)), (Some("*.x"), one(2)), (None, one(3))];
        let table = HostTable::build(first);
        let changes =
            [(Some("a"), one(4)), (Some("b"), one(5)), (Some("d"), vec![]), (Some("**.x"), one(6)), (None, vec![])];
        let changed = table.with_changes(changes);
        for (host, before, after) in
            [("a", &[3][..], &[4][..]), ("b", &[0, 3], &[5]), ("d", &[1, 3], &[]), ("e.x", &[2, 3], &[2, 6])]
        {
            let found = |table| tables(table, host, "/").into_iter().map(|(position, _)| position).collect::<Vec<_>>();
            assert_eq!((found(&table), found(&changed)), (before.to_vec(), after.to_vec()), "{host}");
        }
        assert_eq!((changed.value_at(Some("*.x"), ""), changed.value_at(Some("**.x"), "")), (Some(&2), Some(&6)));
        assert_eq!((changed.value_at(None, ""), changed.value_at(Some("d"), "")), (None, None));
        let emptied = changed.with_changes([(Some("*.x"), vec![]), (Some("**.x"), vec![])]);
        assert!(emptied.suffixes.is_empty(), "no search for wildcards that are gone");
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
