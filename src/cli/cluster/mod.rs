//! Commands for a Kubernetes cluster: `tallygate controller`, `tallygate crds` and `tallygate migrate`.
//!
//! Leaves to `kube`: objects, watches and statuses. Leaves to `serve`: running the gateway.

pub mod controller;
pub mod crds;
pub mod migrate;
