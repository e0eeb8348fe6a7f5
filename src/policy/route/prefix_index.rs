//! A map from path prefixes, with a lookup of all prefixes of a path, the longest first.
//!
//! Guarantees:
//! - A prefix ends where a segment ends.
//! - A lookup costs one hash for each segment boundary of the path within the length of the longest prefix, however
//!   many prefixes there are. It allocates nothing.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// Values by path prefix. A prefix is empty, or starts with `/` and has no trailing slash.
#[derive(Debug)]
pub(super) struct PrefixIndex<T> {
    values: HashMap<String, T, RandomState>,
    /// The length of the longest prefix, so that long paths of callers cost no more hashes than the configuration
    /// needs.
    longest: usize,
}

impl<T> Default for PrefixIndex<T> {
    fn default() -> Self {
        Self { values: HashMap::default(), longest: 0 }
    }
}

impl<T> PrefixIndex<T> {
    /// The value of a prefix, made if there is none.
    pub(super) fn entry(&mut self, prefix: &str) -> &mut T
    where
        T: Default,
    {
        self.longest = self.longest.max(prefix.len());
        self.values.entry(prefix.to_owned()).or_default()
    }

    pub(super) fn insert(&mut self, prefix: &str, value: T) {
        self.longest = self.longest.max(prefix.len());
        self.values.insert(prefix.to_owned(), value);
    }

    pub(super) fn get(&self, prefix: &str) -> Option<&T> {
        self.values.get(prefix)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.values_mut()
    }

    /// The values of the prefixes of a path, the longest prefix first, each with the length of its prefix.
    pub(super) fn prefixes_of(&self, path: &str) -> impl Iterator<Item = (&T, usize)> {
        let found = self.boundaries(path).map(|prefix| (self.values.get(prefix), prefix.len()));
        found.filter_map(|(value, length)| Some((value?, length)))
    }

    /// The path up to each end of a segment, the longest first, and at last nothing.
    fn boundaries<'p>(&self, path: &'p str) -> impl Iterator<Item = &'p str> {
        let mut next = match path.as_bytes().get(..=self.longest) {
            Some(reached) => reached.iter().rposition(|byte| *byte == b'/').map(|end| &path[..end]),
            None => Some(path),
        };
        std::iter::from_fn(move || {
            let prefix = next?;
            next = prefix.rfind('/').map(|end| &prefix[..end]);
            Some(prefix)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_found_from_the_longest_on() {
        let mut index = PrefixIndex::default();
        for prefix in ["", "/a", "/a/b", "/a/b/c/d", "/ab"] {
            *index.entry(prefix) = prefix;
        }
        for (path, expected) in [
            ("/a/b/c/d/e", &["/a/b/c/d", "/a/b", "/a", ""][..]),
            ("/a/b/c/d", &["/a/b/c/d", "/a/b", "/a", ""]),
            ("/a/b/c/dd", &["/a/b", "/a", ""]),
            ("/a/b/", &["/a/b", "/a", ""]),
            ("/abc/d", &[""]),
            ("/ab", &["/ab", ""]),
            ("/", &[""]),
            ("*", &[]),
        ] {
            let found: Vec<_> = index.prefixes_of(path).map(|(value, length)| (*value, length)).collect();
            let expected: Vec<_> = expected.iter().map(|prefix| (*prefix, prefix.len())).collect();
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn a_path_is_hashed_no_further_than_the_longest_prefix() {
        let mut index = PrefixIndex::default();
        *index.entry("/a/b") = ();
        let deep = "/a/b".repeat(2000);
        assert_eq!(index.boundaries(&deep).collect::<Vec<_>>(), ["/a/b", "/a", ""]);
    }
}
