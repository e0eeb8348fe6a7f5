//! `tallygate controller`: runs the gateway as a Kubernetes ingress. Its configuration comes from the objects of a
//! cluster.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::app::{self, ClusterDocuments, ControllerThread, StartOptions};
use crate::clock::Clock;
use crate::kube::controller::{ControllerSettings, LastGoodSettings, LastGoodStore};
use crate::kube::lease::{LeaseSettings, LeaseTimes};
use crate::kube::translate::ServiceSettings;
use crate::kube::watch::WatchScope;

use crate::cli::BadUsage;
use crate::cli::serve::{ServeArgs, ServeSession};

/// The environment variables that a pod gets by `fieldRef`.
const POD_NAME: &str = "POD_NAME";
const POD_NAMESPACE: &str = "POD_NAMESPACE";

/// Arguments of `tallygate controller`.
#[derive(Debug, Args)]
pub struct ControllerArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// The namespace of the data plane [default: $POD_NAMESPACE, else default]
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// A range of load balancers that begin each connection with a PROXY protocol header; may be repeated
    #[arg(long, value_name = "RANGE")]
    proxy_protocol: Vec<String>,
    /// The name of the Lease by which one of several gateways is chosen to write
    #[arg(long, value_name = "NAME", default_value = "tallygate-controller")]
    lease: String,
    /// A namespace whose Secrets are watched; may be repeated. Without it those of the whole cluster are. Certificates
    /// and authorities in Secrets of other namespaces are then not known
    #[arg(long, value_name = "NAMESPACE")]
    secret_namespace: Vec<String>,
    /// Keep no copy of the live configuration beside the ledger, which has keys of certificates. A gateway that starts
    /// while the API server is away then serves nothing until it is back. A copy that is there is removed
    #[arg(long)]
    no_last_good: bool,
}

/// Runs the gateway with the controller in one process.
pub fn controller(args: &ControllerArgs) -> anyhow::Result<ExitCode> {
    args.serve.run_logged(|| run(args))
}

fn run(args: &ControllerArgs) -> anyhow::Result<ExitCode> {
    let settings = settings(args)?;
    let mut session = ServeSession::install()?;
    let cluster = ClusterDocuments::default();
    let options = StartOptions {
        cluster: Some(cluster.clone()),
        ..StartOptions::new(args.serve.config().to_path_buf(), Clock::system())
    };
    let running = app::start(options)?;
    let data_plane = running.cluster_data_plane(cluster);
    let settings = ControllerSettings { last_good: last_good(args, running.ledger_path()), ..settings };
    let controller = ControllerThread::start(settings, data_plane, Clock::system())?;
    session.run_until_stopped(&args.serve, &running);
    controller.begin_stop();
    running.shutdown()?;
    controller.join();
    args.serve.log_line("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The last good configuration beside the ledger, if it is kept. Otherwise one that is there is removed.
fn last_good(args: &ControllerArgs, ledger: &Path) -> Option<LastGoodSettings> {
    if !args.no_last_good {
        return Some(LastGoodSettings::beside(ledger));
    }
    match LastGoodStore::beside(ledger).remove() {
        Ok(true) => tracing::info!("the last good configuration was removed (--no-last-good)"),
        Ok(false) => {}
        Err(error) => tracing::error!("the last good configuration is still on the disk, with keys: {error}"),
    }
    None
}

fn settings(args: &ControllerArgs) -> Result<ControllerSettings, BadUsage> {
    let from_environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let namespace = args.namespace.clone().or_else(|| from_environment(POD_NAMESPACE));
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let pod = from_environment(POD_NAME).unwrap_or_else(|| "tallygate".to_owned());
    let scope = WatchScope::with_secrets_in(args.secret_namespace.iter().cloned());
    Ok(ControllerSettings {
        services: ServiceSettings { namespace: namespace.clone(), proxy_protocol: args.proxy_protocol.clone() },
        lease: LeaseSettings {
            namespace,
            name: args.lease.clone(),
            identity: format!("{pod}_{:016x}", fastrand::u64(..)),
            times: LeaseTimes::default(),
        },
        last_good: None,
        scope: scope.map_err(|why| BadUsage(format!("--secret-namespace: {why}")))?,
    })
}
