//! Translated routes in pages: a translation shares the pages without a change with the translation before it.
//!
//! Guarantees:
//! - Routes are in the order of their places, within a page and over pages.
//! - A page has at most [`PAGE_ROUTES_MAX`] routes. Two neighbours that were changed have more than [`PAGE_ROUTES_MAX`]
//!   together, or one of them has at least [`PAGE_ROUTES_MIN`].
//! - What a page adds to the translation was summed up when the page was made.
//!
//! Leaves to others: which routes have changed (`route_memo`), and their translation (`routes`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::RouteOutcome;
use crate::kube::objects::{ObjectKey, ObjectKind};
use crate::kube::translate::backends::BackendUses;
use crate::kube::translate::named_document::NamedDocument;

/// The number of routes of a new page.
const PAGE_ROUTES: usize = 64;
/// The largest number of routes of a page.
const PAGE_ROUTES_MAX: usize = 128;
/// A page with fewer routes is joined to its neighbour, if both fit into one page.
const PAGE_ROUTES_MIN: usize = 16;

/// What a route was translated to.
#[derive(Debug, Default)]
pub(super) struct TranslatedRoute {
    /// `None` if it has no parent of this controller, or cannot be read.
    pub(super) outcome: Option<Arc<RouteOutcome>>,
    pub(super) document: Option<Arc<NamedDocument>>,
    /// The listeners that take it: positions of Gateways, and of listeners there.
    pub(super) attached: Vec<(usize, usize)>,
    pub(super) uses: BackendUses,
}

/// The place of a route among all others: of equal matches the older route wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RoutePlace {
    pub(super) created: Option<Timestamp>,
    pub(super) key: ObjectKey,
    pub(super) kind: ObjectKind,
}

impl RoutePlace {
    /// The kind and the key.
    pub(super) fn id(&self) -> (ObjectKind, ObjectKey) {
        (self.kind, self.key.clone())
    }
}

/// A route with its translation.
#[derive(Clone, Debug)]
pub(super) struct PlacedRoute {
    pub(super) place: RoutePlace,
    pub(super) translated: Arc<TranslatedRoute>,
}

/// Routes that follow each other, with the sums of their translations.
#[derive(Debug)]
pub(super) struct RoutePage {
    pub(super) routes: Vec<PlacedRoute>,
    pub(super) documents: Arc<[Arc<NamedDocument>]>,
    pub(super) outcomes: Arc<[Arc<RouteOutcome>]>,
    /// The routes without an outcome.
    pub(super) others: Vec<(ObjectKind, ObjectKey)>,
    /// The number of routes that each listener takes.
    pub(super) attached: BTreeMap<(usize, usize), usize>,
    /// What the routes use, each once.
    pub(super) uses: BackendUses,
}

impl RoutePage {
    fn new(routes: Vec<PlacedRoute>) -> Arc<Self> {
        let translated = || routes.iter().map(|route| &*route.translated);
        let others = routes.iter().filter(|route| route.translated.outcome.is_none());
        let mut attached = BTreeMap::new();
        for listener in translated().flat_map(|route| &route.attached) {
            *attached.entry(*listener).or_default() += 1;
        }
        Arc::new(Self {
            documents: translated().filter_map(|route| route.document.clone()).collect(),
            outcomes: translated().filter_map(|route| route.outcome.clone()).collect(),
            others: others.map(|route| route.place.id()).collect(),
            attached,
            uses: BackendUses::sum(translated().map(|route| &route.uses)),
            routes,
        })
    }

    fn last(&self) -> Option<&RoutePlace> {
        self.routes.last().map(|route| &route.place)
    }
}

/// The pages of routes in one order.
#[derive(Debug, Default)]
pub(super) struct RoutePages(Vec<Arc<RoutePage>>);

/// The changes of one page.
#[derive(Debug, Default)]
struct PageChange {
    has_removed: bool,
    added: Vec<PlacedRoute>,
}

impl RoutePages {
    /// New pages of routes, which are in their order.
    pub(super) fn new(routes: Vec<PlacedRoute>) -> Self {
        Self(routes.chunks(PAGE_ROUTES).map(|routes| RoutePage::new(routes.to_vec())).collect())
    }

    /// The pages in order.
    pub(super) fn pages(&self) -> &[Arc<RoutePage>] {
        &self.0
    }

    /// The routes in order.
    pub(super) fn routes(&self) -> impl Iterator<Item = &PlacedRoute> {
        self.0.iter().flat_map(|page| &page.routes)
    }

    /// The route at a place.
    pub(super) fn find(&self, place: &RoutePlace) -> Option<&PlacedRoute> {
        let page = self.0.get(self.page_of(place))?;
        let position = page.routes.binary_search_by(|route| route.place.cmp(place)).ok()?;
        Some(&page.routes[position])
    }

    /// The routes that have looked up one of these Services.
    pub(super) fn with_services<'a>(
        &'a self,
        services: &'a HashSet<ObjectKey>,
    ) -> impl Iterator<Item = &'a RoutePlace> {
        let pages = self.0.iter().filter(|page| page.uses.has_one_of(services));
        let routes = pages.flat_map(|page| &page.routes);
        routes.filter(|route| route.translated.uses.has_one_of(services)).map(|route| &route.place)
    }

    /// Removes the routes at some places, and adds others, which are at none of the remaining places.
    pub(super) fn replace(&mut self, removed: &HashSet<RoutePlace>, added: Vec<PlacedRoute>) {
        let mut changes: BTreeMap<usize, PageChange> = BTreeMap::new();
        for place in removed {
            changes.entry(self.page_of(place)).or_default().has_removed = true;
        }
        for route in added {
            changes.entry(self.page_of(&route.place)).or_default().added.push(route);
        }
        // From the last page on: the positions of those before it stay.
        for (position, change) in changes.into_iter().rev() {
            self.change_page(position, change, removed);
        }
    }

    /// The page that has a place, or would have it; 0 without pages.
    fn page_of(&self, place: &RoutePlace) -> usize {
        let position = self.0.partition_point(|page| page.last() < Some(place));
        position.min(self.0.len().saturating_sub(1))
    }

    fn change_page(&mut self, position: usize, change: PageChange, removed: &HashSet<RoutePlace>) {
        let mut end = (position + 1).min(self.0.len());
        let known = self.0.get(position).map(|page| &page.routes[..]).unwrap_or_default();
        let is_kept = |route: &&PlacedRoute| !(change.has_removed && removed.contains(&route.place));
        let mut routes: Vec<PlacedRoute> = known.iter().filter(is_kept).cloned().collect();
        routes.extend(change.added);
        routes.sort_by(|one, other| one.place.cmp(&other.place));
        if let Some(next) = self
            .0
            .get(end)
            .filter(|next| routes.len() < PAGE_ROUTES_MIN && routes.len() + next.routes.len() <= PAGE_ROUTES_MAX)
        {
            routes.extend(next.routes.iter().cloned());
            end += 1;
        }
        let size = if routes.len() > PAGE_ROUTES_MAX { PAGE_ROUTES } else { PAGE_ROUTES_MAX };
        let pages: Vec<_> = routes.chunks(size).map(|routes| RoutePage::new(routes.to_vec())).collect();
        self.0.splice(position..end, pages);
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn route(number: u32) -> PlacedRoute {
        let created = Timestamp::from_second(i64::from(number % 3)).ok();
        let place =
            RoutePlace { created, key: ObjectKey::new("shop", &format!("r{number}")), kind: ObjectKind::HttpRoute };
        PlacedRoute { place, translated: Arc::new(TranslatedRoute::default()) }
    }

    #[test]
    fn pages_have_the_routes_in_order_whatever_changes() {
        for seed in 0..20 {
            let mut rng = Rng::with_seed(seed);
            let mut expected: BTreeMap<RoutePlace, Arc<TranslatedRoute>> = BTreeMap::new();
            let mut pages = RoutePages::default();
            for _ in 0..60 {
                let known: Vec<RoutePlace> = expected.keys().cloned().collect();
                let share = rng.u32(1..8);
                let removed: HashSet<RoutePlace> = known.into_iter().filter(|_| rng.u32(..8) < share / 2).collect();
                expected.retain(|place, _| !removed.contains(place));
                let mut added = Vec::new();
                for _ in 0..rng.usize(..300) {
                    let route = route(rng.u32(..2000));
                    if !expected.contains_key(&route.place) {
                        expected.insert(route.place.clone(), Arc::clone(&route.translated));
                        added.push(route);
                    }
                }
                pages.replace(&removed, added);
                let same = |(route, (place, translated)): (&PlacedRoute, (&RoutePlace, &Arc<TranslatedRoute>))| {
                    route.place == *place && Arc::ptr_eq(&route.translated, translated)
                };
                assert_eq!(pages.routes().count(), expected.len());
                assert!(pages.routes().zip(&expected).all(same), "seed {seed}");
                assert!(pages.pages().iter().all(|page| (1..=PAGE_ROUTES_MAX).contains(&page.routes.len())));
                assert!(expected.keys().all(|place| pages.find(place).is_some_and(|route| route.place == *place)));
                assert!(pages.find(&route(5000).place).is_none());
            }
        }
    }

    #[test]
    fn pages_without_a_change_are_shared_and_small_ones_joined() {
        let mut routes: Vec<PlacedRoute> = (0..640).map(|number| route(number * 3)).collect();
        routes.sort_by(|one, other| one.place.cmp(&other.place));
        let mut pages = RoutePages::new(routes.clone());
        let before = pages.pages().to_vec();
        pages.replace(&HashSet::from([routes[70].place.clone()]), Vec::new());
        let shared = pages.pages().iter().filter(|page| before.iter().any(|known| Arc::ptr_eq(known, page)));
        assert_eq!((before.len(), pages.pages().len(), shared.count()), (10, 10, 9));
        let most = routes[..600].iter().map(|route| route.place.clone()).collect();
        pages.replace(&most, Vec::new());
        assert_eq!((pages.pages().len(), pages.routes().count()), (1, 40));
    }
}
