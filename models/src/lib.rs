//! Loom models of the ledger: every order in which its threads can see each other's stores.
//!
//! The code under test is the gateway's own: `conservation.rs`, `seal_protocol.rs`, `slot.rs`, `slot_copy.rs` and
//! `stores.rs` are included unchanged. Only the memory behind `atomics` is replaced.
//!
//! Guarantees of a model that passes:
//! - No interleaving and no reordering that the memory model allows violates it, within its few steps.
//! - The model also runs on memory with an ordering switched off, and must fail there.
//!
//! Leaves to the ledger's own tests: files, mapping, channels.
#![allow(dead_code, reason = "of the rooms that are taken as they are, a model uses only what crosses threads")]

pub mod ledger;

/// The types that the included modules import from `model`.
mod model {
    pub(crate) use tallygate::model::{Finished, Name, Refused, Window};
}
