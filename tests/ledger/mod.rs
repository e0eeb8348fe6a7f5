//! How much: counting, units, restarts, audit.

mod audit;
mod counting;
mod restarts_and_windows;
mod unit_charging;
