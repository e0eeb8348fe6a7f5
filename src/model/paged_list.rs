//! Long lists of which most stays the same: pages of values, shared with other lists.
//!
//! Guarantees:
//! - A list is its values in order. Equality and iteration do not depend on where pages begin.
//! - A clone costs one reference for each page. Whoever has seen a page knows all its values by its address.
//!
//! Leaves to others: where pages begin, and what is kept for a page.

use std::sync::Arc;

/// A list of values, in shared pages.
#[derive(Clone, Debug)]
pub struct PagedList<T> {
    pages: Vec<Arc<[T]>>,
}

impl<T> PagedList<T> {
    /// The number of values.
    pub fn len(&self) -> usize {
        self.pages.iter().map(|page| page.len()).sum()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// The values in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }

    /// The pages in order; none of them is empty.
    pub fn pages(&self) -> &[Arc<[T]>] {
        &self.pages
    }

    /// Adds the values of a page at the end.
    pub fn push_page(&mut self, page: Arc<[T]>) {
        if !page.is_empty() {
            self.pages.push(page);
        }
    }

    /// Adds the pages of another list at the end.
    pub fn append(&mut self, other: Self) {
        self.pages.extend(other.pages);
    }
}

impl<T> Default for PagedList<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T> FromIterator<T> for PagedList<T> {
    /// A list of one page.
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut list = Self::default();
        list.push_page(values.into_iter().collect());
        list
    }
}

impl<T> From<Vec<T>> for PagedList<T> {
    /// A list of one page.
    fn from(values: Vec<T>) -> Self {
        values.into_iter().collect()
    }
}

impl<T: PartialEq> PartialEq for PagedList<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Eq> Eq for PagedList<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_does_not_depend_on_pages() {
        let one: PagedList<u32> = [1, 2, 3].into_iter().collect();
        let mut other: PagedList<u32> = [1].into_iter().collect();
        assert_ne!(one, other);
        other.push_page([].into());
        other.append([2, 3].into_iter().collect());
        assert_eq!((&one, other.pages().len(), other.len()), (&other, 2, 3));
        assert!(PagedList::<u32>::default().is_empty() && !other.is_empty());
        assert_eq!(other.iter().rev().copied().collect::<Vec<_>>(), [3, 2, 1]);
        assert!(Arc::ptr_eq(&other.clone().pages()[1], &other.pages()[1]));
    }
}
