//! Every order in which the threads of the ledger may see each other's stores, tried by loom.
//!
//! The code that is tried is the gateway's own: `slot.rs`, `words.rs`, `counting.rs`, `balance.rs` and `signals.rs` are taken as
//! they are, only the memory behind `atomics` is another. Guarantees of a model that passes: no interleaving and no
//! reordering that the memory model allows breaks it, within the few steps it takes. Each one also runs on memory that
//! has forgotten an ordering, and must fail there. Leaves to the ledger's own tests: files, mapping, channels.
#![allow(dead_code, reason = "of the rooms that are taken as they are, a model uses only what crosses threads")]

pub mod ledger;

/// The nouns that the ledger's rooms speak of.
mod model {
    pub(crate) use tallygate::model::{Finished, Name, Refused, Window};
}
