//! Tallygate: the gateway that counts exactly.
//!
//! Departments call commands of a city's subsystems over mTLS; Tallygate says who calls, whether they may, how fast,
//! counts every command exactly and durably, forwards it, and tells Prometheus and the finance office what each
//! department used. One order decides every trade-off: counted right, then safe, then fast, then featureful.
//!
//! The modules stand in reading order, ground floor first; imports go downwards only. Read [`proxy::exchange`] first:
//! it tells the life of a command in one function. `ARCHITECTURE.md` holds the plan of the house.

// Ground: nouns, time, begin and end.
pub mod clock;
pub mod lifecycle;
pub mod model;

// Engines: who, may they, how fast, how much.
pub mod identity;
pub mod ledger;
pub mod limit;
pub mod policy;

// Studies: the meaning of words, showing, explaining.
pub mod config;
pub mod report;
pub mod telemetry;

// Doors: traffic, operator.
pub mod admin;
pub mod proxy;

// Roof: composition and commands.
pub mod app;
pub mod cli;
