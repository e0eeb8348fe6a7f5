//! Metering: exact counts of commands and bytes per outcome, unit charging and waived units, restarts, hour and month
//! windows, `ledger.sync`, reports over several ledgers, and the audit (hash chain verification) by two programs.

mod audit;
mod counting;
mod restarts_and_windows;
mod several_ledgers;
mod unit_charging;
