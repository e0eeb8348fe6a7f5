//! The thread of the Kubernetes controller. It has a runtime of its own, so that nothing of it delays traffic.
//!
//! Guarantees: the thread ends when it is stopped. The lease is released before it ends.
//!
//! Leaves to others: what the controller does (`kube::controller`).

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Builder;

use crate::clock::Clock;
use crate::kube::api::connect;
use crate::kube::controller::{ControllerSettings, run_controller};
use crate::lifecycle::{DrainTrigger, drain};

use super::app_error::AppError;
use super::cluster_data_plane::ClusterDataPlane;

/// A running controller.
pub struct ControllerThread {
    drain: DrainTrigger,
    thread: JoinHandle<()>,
}

impl ControllerThread {
    /// Connects to the API server and starts to follow the cluster.
    ///
    /// # Errors
    /// If there is no access to a cluster. An API server that does not answer is no error: it is tried again.
    pub fn start(settings: ControllerSettings, data_plane: ClusterDataPlane, clock: Clock) -> Result<Self, AppError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("controller").enable_all().build()?;
        let client = runtime.block_on(connect())?;
        let (trigger, watcher) = drain();
        let thread = std::thread::Builder::new().name("controller-main".to_owned()).spawn(move || {
            let gauge = data_plane.gauge();
            runtime.block_on(run_controller(client, settings, (Arc::new(data_plane), gauge, clock), watcher));
            runtime.shutdown_background(); // a reload that is still waited for ends with the data plane
        })?;
        Ok(Self { drain: trigger, thread })
    }

    /// Asks the controller to stop. It releases the lease meanwhile.
    pub fn begin_stop(&self) {
        self.drain.begin();
    }

    /// Waits for the end of the thread.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the thread of the controller ended with a panic");
        }
    }
}
