//! The connection to the API server.
//!
//! Guarantees:
//! - Inside a cluster the credentials are those of the service account; the token file is read again every minute.
//!   Outside, those of the kubeconfig.
//! - The client retries nothing by itself: every caller has its own pauses, and a retry of up to 1000 s would hide a
//!   fault.
//!
//! Leaves to others:
//! - requests: `watch`, `status`, `lease`.

use kube::{Client, Config};

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum KubeClientError {
    /// Neither a service account nor a kubeconfig.
    #[error(
        "no access to a Kubernetes API server: {0}. Inside a pod, mount the token of a service account \
         (automountServiceAccountToken); outside, set KUBECONFIG"
    )]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The configuration is not usable.
    #[error("the access to the Kubernetes API server cannot be used: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// Makes a client from the service account or the kubeconfig.
///
/// # Errors
///
/// [`KubeClientError`], with what was tried.
pub async fn connect() -> Result<Client, KubeClientError> {
    let mut config = Config::infer().await.map_err(|error| KubeClientError::Config(Box::new(error)))?;
    config.default_retry = false;
    Client::try_from(config).map_err(|error| KubeClientError::Client(Box::new(error)))
}
