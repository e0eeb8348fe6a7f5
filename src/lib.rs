//! Tallygate: an mTLS API gateway that counts exactly.
//!
//! Departments call commands of a city's subsystems over mTLS. Tallygate does the following with every command:
//!
//! - identifies and authorises the caller, and applies the limits;
//! - counts the command exactly and durably;
//! - forwards the request to the subsystem and the response to the caller;
//! - reports the usage of each department to Prometheus and to the finance office.
//!
//! One order decides every trade-off: counted right, then safe, then fast, then featureful.
//!
//! The modules stand in reading order, the lowest layer first. Imports go downwards only. Read [`proxy::exchange`]
//! first: one function there takes a command from arrival to outcome. `ARCHITECTURE.md` describes the whole structure.

// Base layer: the nouns of the domain, the clock, readiness and graceful shutdown.
pub mod clock;
pub mod lifecycle;
pub mod model;

// Engines: identity, authorisation policy, limits and the ledger.
pub mod identity;
pub mod ledger;
pub mod limit;
pub mod policy;

// Configuration, reports and telemetry.
pub mod config;
pub mod report;
pub mod telemetry;

// Entry points: the traffic proxy, the Kubernetes controller and the admin API.
pub mod admin;
pub mod kube;
pub mod proxy;

// Top layer: composition and the command line.
pub mod app;
pub mod cli;
