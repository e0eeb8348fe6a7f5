//! Explaining usage: reads the ledger, never the proxy.
