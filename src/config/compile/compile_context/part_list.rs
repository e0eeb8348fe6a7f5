//! Lists of compiled parts that a later document may use again.
//!
//! Guarantees:
//! - A part is used again only for the same value of its document, and only if it is current.
//! - Parts are in the order of their documents.
//! - Pages without a change are shared with the list before. The time is that of a comparison of two pointers for each
//!   document, and of a lookup for the documents of the other pages.
//!
//! Leaves to others: what makes a part current, and compilation.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// The largest number of parts of a page.
const PAGE_PARTS_MAX: usize = 128;
/// Fewer new parts are joined to the page before them, if both fit into one.
const PAGE_PARTS_MIN: usize = 16;
/// The largest number of new documents in a row behind which the next known page is found.
const NEW_DOCUMENTS_MAX: usize = 128;

/// Parts with their documents, in the order of the documents.
#[derive(Debug)]
pub(crate) struct PartList<D, T> {
    pages: Vec<Arc<PartPage<D, T>>>,
}

/// Parts that follow each other.
#[derive(Debug)]
struct PartPage<D, T> {
    documents: Vec<Arc<D>>,
    parts: Vec<T>,
}

/// A list that was made from the one before.
#[derive(Debug)]
pub(crate) struct RenewedParts<'b, D, T> {
    pub(crate) list: PartList<D, T>,
    /// The parts of the list before that are not used again.
    pub(crate) gone: Vec<&'b T>,
    /// The number of parts that were compiled, and not used again.
    pub(crate) compiled: usize,
}

/// What the list before gives for some documents: a page, by its position, or nothing yet.
enum Segment {
    Known(usize),
    Others(Range<usize>),
}

impl<D, T> Default for PartList<D, T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<D, T: Clone> PartList<D, T> {
    /// The parts of these documents: those of `before` that are current, and others as `compile` makes them from a
    /// position and a document. What it makes nothing from has no part.
    pub(crate) fn renewed<'b>(
        documents: &[Arc<D>],
        before: Option<&'b Self>,
        is_current: impl Fn(&T) -> bool,
        mut compile: impl FnMut(usize, &Arc<D>) -> Option<T>,
    ) -> RenewedParts<'b, D, T> {
        let known = before.map(|before| &before.pages[..]).unwrap_or_default();
        let segments = segments(documents, known, &is_current);
        let mut left = parts_beside(known, &segments);
        let (mut list, mut compiled) = (Self::default(), 0);
        for segment in segments {
            let range = match segment {
                Segment::Known(page) => {
                    list.pages.push(Arc::clone(&known[page]));
                    continue;
                }
                Segment::Others(range) => range,
            };
            let parts = range.filter_map(|position| {
                let document = &documents[position];
                let known = left.remove(&Arc::as_ptr(document));
                let part = match known.filter(|part| is_current(part)) {
                    Some(part) => part.clone(),
                    None => {
                        compiled += 1;
                        let part = compile(position, document)?;
                        left.extend(known.map(|known| (Arc::as_ptr(document), known))); // it is gone
                        part
                    }
                };
                Some((Arc::clone(document), part))
            });
            list.push_pages(parts.collect());
        }
        RenewedParts { list, gone: left.into_values().collect(), compiled }
    }

    fn push_pages(&mut self, items: Vec<(Arc<D>, T)>) {
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let (documents, parts) = items.by_ref().take(PAGE_PARTS_MAX).unzip();
            self.pages.push(Arc::new(PartPage { documents, parts }));
        }
    }
}

impl<D, T> PartList<D, T> {
    /// The parts in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| &page.parts)
    }

    /// The positions of the documents that have no part here.
    pub(crate) fn unknown(&self, documents: &[Arc<D>]) -> Vec<usize> {
        let segments = segments(documents, &self.pages, |_| true);
        let left = parts_beside(&self.pages, &segments);
        let others = segments.into_iter().flat_map(|segment| match segment {
            Segment::Known(_) => 0..0,
            Segment::Others(range) => range,
        });
        others.filter(|position| !left.contains_key(&Arc::as_ptr(&documents[*position]))).collect()
    }
}

/// Divides documents into known pages whose parts are all current, and others.
fn segments<D, T>(
    documents: &[Arc<D>],
    known: &[Arc<PartPage<D, T>>],
    is_current: impl Fn(&T) -> bool,
) -> Vec<Segment> {
    let (mut segments, mut begin, mut at) = (Vec::new(), 0, 0);
    for (position, page) in known.iter().enumerate() {
        let Some(found) = place_of(documents, at, page) else { continue };
        if !has_documents(page, &documents[found..]) || !page.parts.iter().all(&is_current) {
            continue; // the search for the next page begins at the same document
        }
        push_others(&mut segments, begin..found, known);
        segments.push(Segment::Known(position));
        at = found + page.documents.len();
        begin = at;
    }
    push_others(&mut segments, begin..documents.len(), known);
    segments
}

/// Where the first document of a page is, not far behind `from`.
fn place_of<D, T>(documents: &[Arc<D>], from: usize, page: &PartPage<D, T>) -> Option<usize> {
    let first = page.documents.first()?;
    let end = documents.len().min(from + PAGE_PARTS_MAX + NEW_DOCUMENTS_MAX);
    documents[from..end].iter().position(|document| Arc::ptr_eq(document, first)).map(|offset| from + offset)
}

fn has_documents<D, T>(page: &PartPage<D, T>, documents: &[Arc<D>]) -> bool {
    page.documents.len() <= documents.len()
        && page.documents.iter().zip(documents).all(|(one, other)| Arc::ptr_eq(one, other))
}

/// Adds other documents. A few are joined to the page before them: else each would become a page of its own.
fn push_others<D, T>(segments: &mut Vec<Segment>, mut range: Range<usize>, known: &[Arc<PartPage<D, T>>]) {
    if range.is_empty() {
        return;
    }
    if let Some(Segment::Known(page)) = segments.last() {
        let before = known[*page].documents.len();
        if range.len() < PAGE_PARTS_MIN && before + range.len() <= PAGE_PARTS_MAX {
            segments.pop();
            range.start -= before;
        }
    }
    segments.push(Segment::Others(range));
}

/// The parts of the pages that are in no segment, by their documents.
fn parts_beside<'b, D, T>(
    known: &'b [Arc<PartPage<D, T>>],
    segments: &[Segment],
) -> HashMap<*const D, &'b T, RandomState> {
    let mut is_used = vec![false; known.len()];
    for segment in segments {
        if let Segment::Known(page) = segment {
            is_used[*page] = true;
        }
    }
    let left = known.iter().zip(is_used).filter(|(_, is_used)| !is_used);
    let parts = left.flat_map(|(page, _)| page.documents.iter().map(Arc::as_ptr).zip(&page.parts));
    parts.collect()
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// A part that is its document's number. It is current unless its document is among these.
    fn renewed<'b>(
        documents: &[Arc<usize>],
        before: Option<&'b PartList<usize, usize>>,
        stale: &[usize],
    ) -> RenewedParts<'b, usize, usize> {
        PartList::renewed(documents, before, |part| !stale.contains(part), |_, document| Some(**document))
    }

    #[test]
    fn parts_are_those_of_the_documents_after_any_edit() {
        for seed in 0..40 {
            let mut rng = Rng::with_seed(seed);
            let (mut documents, mut next) = (Vec::new(), 0);
            let mut before: Option<PartList<usize, usize>> = None;
            for _ in 0..40 {
                let mut new = 0;
                for _ in 0..rng.usize(..4) {
                    let at = rng.usize(..=documents.len());
                    let count = [1, 1, 1, 20, 300][rng.usize(..5)];
                    match rng.usize(..4) {
                        0 => drop(documents.drain(at..documents.len().min(at + count))),
                        1 if at < documents.len() => documents[at..].rotate_left(1),
                        _ => {
                            let added: Vec<Arc<usize>> = (next..next + count).map(Arc::new).collect();
                            (next, new) = (next + count, new + count);
                            documents.splice(at..at, added);
                        }
                    }
                }
                let stale = if documents.is_empty() { vec![] } else { vec![*documents[rng.usize(..documents.len())]] };
                let known: Vec<usize> = before.iter().flat_map(PartList::parts).copied().collect();
                let unknown = before.as_ref().map(|before| before.unknown(&documents));
                let is_known = |document: &Arc<usize>| known.contains(document);
                let expected = (0..documents.len()).filter(|at| !is_known(&documents[*at])).collect::<Vec<_>>();
                assert!(unknown.is_none_or(|unknown| unknown == expected), "seed {seed}");
                let RenewedParts { list, mut gone, compiled } = renewed(&documents, before.as_ref(), &stale);
                assert!(list.parts().eq(documents.iter().map(|document| &**document)), "seed {seed}");
                let of_stale = stale.iter().filter(|stale| known.contains(stale)).count();
                assert_eq!(compiled, expected.len() + of_stale, "seed {seed}");
                let is_gone = |part: &&usize| stale.contains(part) || !documents.iter().any(|one| **one == **part);
                gone.sort_unstable();
                let mut expected: Vec<&usize> = known.iter().filter(is_gone).collect();
                expected.sort_unstable();
                assert_eq!(gone, expected, "seed {seed}");
                assert!(list.pages.iter().all(|page| (1..=PAGE_PARTS_MAX).contains(&page.parts.len())));
                before = Some(list);
            }
        }
    }

    #[test]
    fn pages_without_a_change_are_shared() {
        let mut documents: Vec<Arc<usize>> = (0..1280).map(Arc::new).collect();
        let first = renewed(&documents, None, &[]).list;
        documents[300] = Arc::new(5000);
        documents.insert(900, Arc::new(5001));
        documents.push(Arc::new(5002));
        documents.remove(2);
        let second = renewed(&documents, Some(&first), &[]);
        let shared = second.list.pages.iter().filter(|page| first.pages.iter().any(|known| Arc::ptr_eq(known, page)));
        assert_eq!((first.pages.len(), shared.count()), (10, 7));
        assert_eq!((second.compiled, second.gone.len()), (3, 2));
        // Documents that are added one after the other do not become pages of one part each.
        let mut last = second.list;
        for number in 6000..6200 {
            documents.push(Arc::new(number));
            last = renewed(&documents, Some(&last), &[]).list;
        }
        assert!(last.pages.len() <= 25, "{}", last.pages.len());
    }
}
