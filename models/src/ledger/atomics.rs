//! Memory that can be asked: loom's atomics under the names of `src/ledger/tally/atomics.rs`, with orderings that can be forgotten.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

pub(crate) use std::sync::atomic::Ordering;

use loom::sync::atomic as asked;
use loom::thread::{self, ThreadId};

/// Words in a slot.
pub(crate) const WORDS: usize = 64;

/// An ordering that the memory does not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Stores publish nothing but themselves.
    Releases,
    /// Loads learn nothing but their value.
    Acquires,
    /// Fences do nothing.
    Fences,
}

thread_local! {
    /// loom runs all threads of a model on this one.
    static FORGOTTEN: Cell<Option<Forgotten>> = const { Cell::new(None) };
}

/// How often the threads of a model may be interrupted where they need not be; models of more than that find nothing new.
const PREEMPTIONS: usize = 4;

/// Tries a model in every order; panics with what the model says where it does not hold.
pub fn holds(model: fn()) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// Whether a model holds on memory that has forgotten an ordering.
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

/// A slot of which a few words are asked about; the others have the one value that everybody sees.
///
/// Its owner, the only thread that writes it, reads back what it wrote without asking: no other value is possible. It would
/// do harm to ask: loom remembers one access to a word, so an owner's reading would hide the reading of another thread
/// from the store that follows, and orders that matter would not be tried.
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

/// A word as it is, whoever asks.
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
    /// An empty slot in which the words at these positions are asked about. Nobody owns it.
    pub(crate) fn asking(positions: &[usize]) -> Self {
        let words = std::array::from_fn(|at| match positions.contains(&at) {
            true => Word::Asked { word: AtomicU64::new(0), latest: Known::default() },
            false => Word::Plain(Known::default()),
        });
        Self { words, owner: Mutex::default() }
    }

    /// For the tests that the rooms bring along; they run where the rooms live.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self::asking(&[])
    }

    /// From now on this thread is the owner.
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
