//! The modules of the ledger that threads share, compiled for loom's memory, and the models of their properties.

mod atomics;
#[path = "../../../src/ledger/tally/conservation.rs"]
mod conservation;
pub mod models;
#[path = "../../../src/ledger/tally/seal_protocol.rs"]
mod seal_protocol;
#[path = "../../../src/ledger/tally/slot.rs"]
mod slot;
#[path = "../../../src/ledger/tally/slot_copy.rs"]
mod slot_copy;
#[path = "../../../src/ledger/tally/stores.rs"]
mod stores;

/// The plain values that the included modules import.
mod values {
    pub(crate) mod measures {
        pub(crate) use tallygate::ledger::Measures;
    }
}

pub use atomics::{Forgotten, holds, holds_without};
