//! The ledger's rooms that threads share, on memory that can be asked, and what is claimed of them.

mod atomics;
#[path = "../../../src/ledger/balance.rs"]
mod balance;
#[path = "../../../src/ledger/counting.rs"]
mod counting;
pub mod models;
#[path = "../../../src/ledger/signals.rs"]
mod signals;
#[path = "../../../src/ledger/slot.rs"]
mod slot;
#[path = "../../../src/ledger/words.rs"]
mod words;

pub use atomics::{Forgotten, holds, holds_without};
