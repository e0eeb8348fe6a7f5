//! The memory of the models: loom's atomics under the names of `src/ledger/tally/atomics.rs`, with orderings that can
//! be switched off.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

pub(crate) use std::sync::atomic::Ordering;

use loom::sync::atomic as asked;
use loom::thread::{self, ThreadId};

/// Words in a slot.
pub(crate) const WORDS: usize = 64;

/// An ordering that is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Release stores are relaxed: they publish only their own value.
    Releases,
    /// Acquire loads are relaxed: they synchronise only their own value.
    Acquires,
    /// Fences have no effect.
    Fences,
}

thread_local! {
    /// A thread-local is sufficient, because loom runs all threads of a model on one thread.
    static FORGOTTEN: Cell<Option<Forgotten>> = const { Cell::new(None) };
}

/// Bound of preemptions in loom's search. Larger bounds have found nothing new in these models.
const PREEMPTIONS: usize = 4;

/// Runs a model in every order; panics with the model's message if an order violates it.
pub fn holds(model: fn()) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// Whether a model holds on memory with one kind of ordering switched off.
pub fn holds_without(forgotten: Forgotten, model: fn()) -> bool {
    FORGOTTEN.set(Some(forgotten));
    let held = catch_unwind(AssertUnwindSafe(|| holds(model)));
    FORGOTTEN.set(None);
    held.is_ok()
}

fn of_load(ordering: Ordering) -> Ordering {
    if FORGOTTEN.get() == Some(Forgotten::Acquires) { Ordering::Relaxed } else { ordering }
}

fn of_store(ordering: Ordering) -> Ordering {
    if FORGOTTEN.get() == Some(Forgotten::Releases) { Ordering::Relaxed } else { ordering }
}

fn of_both(ordering: Ordering) -> Ordering {
    match FORGOTTEN.get() {
        Some(Forgotten::Releases | Forgotten::Acquires) => Ordering::Relaxed,
        _ => ordering,
    }
}

pub(crate) fn fence(ordering: Ordering) {
    if FORGOTTEN.get() != Some(Forgotten::Fences) {
        asked::fence(ordering);
    }
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        #[derive(Debug)]
        pub(crate) struct $name(asked::$name);

        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                Self(asked::$name::new(value))
            }

            pub(crate) fn load(&self, ordering: Ordering) -> $value {
                self.0.load(of_load(ordering))
            }

            pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                self.0.store(value, of_store(ordering));
            }

            pub(crate) fn swap(&self, value: $value, ordering: Ordering) -> $value {
                self.0.swap(value, of_both(ordering))
            }
        }
    };
}

atomic!(AtomicBool, bool);
atomic!(AtomicI64, i64);
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

impl AtomicU64 {
    pub(crate) fn fetch_add(&self, by: u64, ordering: Ordering) -> u64 {
        self.0.fetch_add(by, of_both(ordering))
    }
}

/// A slot in which only the words at some positions are modelled with loom. Every other word has a single value, which
/// all threads see.
///
/// The owner is the only thread that writes the slot. Its reads return the last written value without an access of
/// loom: no other value is possible. An access of loom would reduce the coverage. loom stores one access per word, so
/// the owner's read would hide another thread's read from the following store, and relevant orders would not be tried.
#[derive(Debug)]
pub(crate) struct Slot {
    words: [Word; WORDS],
    owner: Mutex<Option<ThreadId>>,
}

#[derive(Debug)]
enum Word {
    Asked { word: AtomicU64, latest: Known },
    Plain(Known),
}

/// The value of a word, the same for all threads.
#[derive(Debug, Default)]
struct Known(std::sync::atomic::AtomicU64);

impl Known {
    fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }
}

impl Slot {
    /// An empty slot without an owner, in which the words at `positions` are modelled with loom.
    pub(crate) fn asking(positions: &[usize]) -> Self {
        let words = std::array::from_fn(|at| match positions.contains(&at) {
            true => Word::Asked { word: AtomicU64::new(0), latest: Known::default() },
            false => Word::Plain(Known::default()),
        });
        Self { words, owner: Mutex::default() }
    }

    /// Used by the unit tests inside the included modules. These tests run in the main crate.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self::asking(&[])
    }

    /// Makes the current thread the owner.
    pub(crate) fn take_over(&self) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current().id());
    }

    fn is_owned(&self) -> bool {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) == Some(thread::current().id())
    }

    pub(crate) fn load(&self, at: usize, ordering: Ordering) -> u64 {
        match &self.words[at] {
            Word::Asked { latest, .. } if self.is_owned() => latest.get(),
            Word::Asked { word, .. } => word.load(ordering),
            Word::Plain(word) => word.get(),
        }
    }

    pub(crate) fn store(&self, at: usize, value: u64, ordering: Ordering) {
        match &self.words[at] {
            Word::Asked { word, latest } => {
                latest.set(value);
                word.store(value, ordering);
            }
            Word::Plain(word) => word.set(value),
        }
    }
}
