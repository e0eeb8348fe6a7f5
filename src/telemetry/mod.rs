//! Showing: metrics and logs. Knows the ledger's sums, counts nothing that is billed.
