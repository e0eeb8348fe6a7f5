//! A new configuration, made live in one swap, or rejected whole.
//!
//! Guarantees: everything is read and built before anything is swapped; a rejected document changes nothing but what
//! `/config` shows. Limiter, quota and meter state is carried over, connections stay open. All of it happens on a thread that
//! carries no traffic: reading and compiling at a lower priority, and dropping the old snapshot, which a province has some
//! 100 MB of.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::config::{
    ConfigLoader, ConfigProblem, ConfigProblems, Configuration, FileWatcher, GatewaySettings, LoadResult,
    SubsystemTlsSettings,
};
use crate::identity::{ExpiringItem, ServerTls, SubsystemTls, TlsProblem};
use crate::model::{Name, NameInterner};
use crate::policy::{PolicySnapshot, SnapshotDifference};
use crate::telemetry::{ConfigChanges, ConfigStatus, LiveConfig, RejectedConfig};

use super::removed_ids;
use super::threads::run_low_priority;
use super::tls_changes::{FileDigests, tls_changes};

use super::components::SharedComponents;

/// Asks the control thread for a reload; cheap to clone, may go to any thread.
#[derive(Clone, Debug)]
pub struct ReloadHandle(pub(crate) mpsc::Sender<ReloadReply>);

/// Where the result of a reload goes.
pub(crate) type ReloadReply = SyncSender<Result<(), ConfigProblems>>;

impl ReloadHandle {
    /// Reads the configuration again and waits for the result. On problems the old one stays live.
    pub fn request(&self) -> Result<(), ConfigProblems> {
        let (reply, answer) = sync_channel(1);
        self.0.try_send(reply).map_err(|_| reload_failed("a reload is already under way"))?;
        let answered = answer.recv_timeout(RELOAD_TIMEOUT);
        answered.unwrap_or_else(|_| Err(reload_failed("the gateway did not answer; it may be stopping")))
    }
}

/// A reload that was not even tried; one that was tells its result itself.
fn reload_failed(why: &str) -> ConfigProblems {
    tracing::warn!(why, "the configuration was not read again");
    file_problem(why.to_owned())
}

/// Where a configuration comes from.
pub(crate) struct ConfigSource {
    pub(crate) loader: ConfigLoader,
    pub(crate) interner: NameInterner,
    pub(crate) watch: FileWatcher,
}

/// Knows where the configuration comes from and what of it is live.
pub(crate) struct ConfigReloader {
    source: ConfigSource,
    /// What this gateway was started with.
    settings: GatewaySettings,
    /// Of the files that are live.
    digests: FileDigests,
    components: SharedComponents,
    /// Snapshots that some worker or command may still hold: kept, so that none of them is the last to drop one.
    retired: Vec<Arc<PolicySnapshot>>,
    status: Arc<ArcSwap<ConfigStatus>>,
}

/// A configuration with everything it names, read and built.
pub(crate) struct LoadedConfig {
    pub(crate) configuration: Configuration,
    pub(crate) tls: Vec<(Name, ServerTls)>,
    pub(crate) subsystem_tls: HashMap<Name, SubsystemTls>,
    pub(crate) digests: FileDigests,
}

/// Reads a configuration and what it names; tells which files that were, or would have been.
pub(crate) fn load_config(
    loader: &mut ConfigLoader,
    numbers: &NameInterner,
    clock: &Clock,
) -> (FileWatcher, Result<LoadedConfig, ConfigProblems>) {
    let LoadResult { configuration, mut watch } = loader.load(numbers);
    let configuration = match configuration {
        Ok(configuration) => configuration,
        Err(problems) => return (watch, Err(problems)),
    };
    watch = watch.with_files(configuration.settings.listeners.iter().flat_map(|listener| listener.tls.paths()));
    watch = watch.with_files(configuration.subsystem_tls.iter().flat_map(|subsystem| subsystem.files.paths()));
    (watch, load_with_tls(configuration, clock))
}

fn load_with_tls(configuration: Configuration, clock: &Clock) -> Result<LoadedConfig, ConfigProblems> {
    let tls = load_tls(&configuration.settings, clock)?;
    let subsystem_tls = load_subsystem_tls(&configuration.subsystem_tls, clock)?;
    let digests = FileDigests::read_digests(&configuration);
    Ok(LoadedConfig { configuration, tls, subsystem_tls, digests })
}

impl ConfigReloader {
    /// Looks after what `read` has read and `components` carry out.
    pub(crate) fn new(source: ConfigSource, read: LoadedConfig, components: SharedComponents) -> Self {
        let live = LiveConfig { version: components.published.load().version.clone(), since: components.clock.wall() };
        let weakened = insecure_settings(&components);
        let status = ConfigStatus { live, weakened, restart_needed: Vec::new(), changes: None, rejected: None };
        let status = Arc::new(ArcSwap::from_pointee(status));
        let (settings, digests) = (read.configuration.settings, read.digests);
        Self { source, settings, digests, components, retired: Vec::new(), status }
    }

    /// What `/config` shows.
    pub(crate) fn status(&self) -> Arc<ArcSwap<ConfigStatus>> {
        Arc::clone(&self.status)
    }

    /// Whether a file has changed since the last look. Drops what nobody holds any more.
    pub(crate) fn has_changed(&mut self) -> bool {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        self.source.watch.has_changed()
    }

    /// Reads, compiles, builds, swaps; or rejects.
    pub(crate) fn reload(&mut self) -> Result<(), ConfigProblems> {
        let read = self.load();
        let result = read.map(|read| self.publish(read));
        if let Err(problems) = &result {
            self.reject(problems);
        }
        result
    }

    /// Reads what there is now, aside from traffic.
    fn load(&mut self) -> Result<LoadedConfig, ConfigProblems> {
        let (ConfigSource { loader, interner: numbers, watch }, clock) = (&mut self.source, &self.components.clock);
        let (seen, read) = run_low_priority(|| load_config(loader, numbers, clock))
            .map_err(|error| file_problem(error.to_string()))?;
        match &read {
            Ok(_) => *watch = seen,
            Err(_) => watch.merge(seen),
        }
        read
    }

    fn publish(&mut self, read: LoadedConfig) {
        let before = self.components.published.load_full();
        let difference = before.difference(&read.configuration.snapshot);
        let changes = tls_changes(&self.components, &self.digests, &read);
        let changes = ConfigChanges::new(&difference, (self.components.clock.wall(), before.version.clone()), changes);
        let LoadedConfig { configuration, tls, subsystem_tls, digests } = read;
        for (name, tls) in tls {
            if let Some(live) = self.components.listener_tls.get(&name) {
                live.store(Arc::new(tls));
            }
        }
        self.components.subsystem_tls.store(Arc::new(subsystem_tls)); // before the snapshot that needs them
        // Published first: each worker's next command finds its limits anew and carries over what was used; then what is
        // left of the old ones is dropped.
        self.retired.push(self.components.published.swap(Arc::clone(&configuration.snapshot)));
        self.components.limiters.enforce(&configuration.snapshot);
        self.components.reader.update_department_names(department_names(&configuration.snapshot));
        self.digests = digests;
        self.publish_status(&configuration, changes);
        warn_of_removed_ids(&self.components, &difference);
    }

    /// Says what is live, what it changed, and what of it waits for a restart.
    fn publish_status(&self, configuration: &Configuration, changes: ConfigChanges) {
        let version = configuration.snapshot.version.clone();
        tracing::info!(
            version,
            changed_departments = changes.departments.to_text(),
            changed_subsystems = changes.subsystems.to_text(),
            changed_commands = changes.commands.to_text(),
            changed_grants = changes.grants.to_text(),
            changed_limits = changes.total_limit.then_some("limits.total"),
            changed_tls = (!changes.tls.is_empty()).then(|| changes.tls.to_string()),
            "configuration is live"
        );
        let restart_needed = self.settings.needs_restart(&configuration.settings);
        for setting in &restart_needed {
            let (live, file) = (setting.live.as_deref(), setting.file.as_deref());
            tracing::warn!(
                setting = setting.path,
                live,
                file,
                "this setting is read once; restart the gateway to change it"
            );
        }
        let live = LiveConfig { version, since: self.components.clock.wall() };
        let weakened = insecure_settings(&self.components);
        // A file that changes and a SIGHUP for it are two reloads: the second must not hide what the first has changed.
        let changes =
            Some(changes).filter(|changes| !changes.is_empty()).or_else(|| self.status.load().changes.clone());
        self.status.store(Arc::new(ConfigStatus { live, weakened, restart_needed, changes, rejected: None }));
    }

    fn reject(&self, problems: &ConfigProblems) {
        tracing::error!(%problems, "configuration rejected; the previous one stays live");
        let rejected = RejectedConfig {
            version: self.source.loader.version().unwrap_or("unreadable").to_owned(),
            at: self.components.clock.wall(),
            problems: problems.0.clone(),
        };
        let live = ConfigStatus::clone(&self.status.load());
        self.status.store(Arc::new(ConfigStatus { rejected: Some(rejected), ..live }));
    }
}

/// Warns of ids with usage this month that a reload has removed. Runs beside what else the control thread does, because it
/// reads the ledger.
fn warn_of_removed_ids(components: &SharedComponents, difference: &SnapshotDifference) {
    let vanished = removed_ids::removed_by_reload(difference);
    if vanished.is_empty() {
        return;
    }
    let (reader, calendar) = (components.reader.clone(), components.calendar);
    let month = calendar.month_of(components.clock.window());
    tokio::spawn(async move {
        match reader.usage_total(calendar.windows_of(month)).await {
            Ok(rows) => removed_ids::warn_if_used(&vanished, &rows, month),
            Err(error) => tracing::warn!(%error, "could not tell whether ids that are gone have usage this month"),
        }
    });
}

/// Reads the keys and trust of every listener; names every problem.
fn load_tls(settings: &GatewaySettings, clock: &Clock) -> Result<Vec<(Name, ServerTls)>, ConfigProblems> {
    let (mut loaded, mut problems) = (Vec::new(), Vec::new());
    for (index, listener) in settings.listeners.iter().enumerate() {
        match listener.tls.load_with(clock) {
            Ok(tls) => {
                tls.warnings.iter().for_each(|warning| tracing::warn!(listener = %listener.name, "{warning}"));
                loaded.push((listener.name.clone(), tls));
            }
            Err(faults) => problems.extend(tls_problems(&format!("listeners[{index}].tls"), &faults)),
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(ConfigProblems(problems)) }
}

/// Reads the trust in every subsystem that is met over TLS; names every problem.
fn load_subsystem_tls(
    subsystems: &[SubsystemTlsSettings],
    clock: &Clock,
) -> Result<HashMap<Name, SubsystemTls>, ConfigProblems> {
    let (mut loaded, mut problems) = (HashMap::new(), Vec::new());
    for SubsystemTlsSettings { index, name, files } in subsystems {
        match files.load(clock.wall()) {
            Ok(tls) => {
                tls.warnings.iter().for_each(|warning| tracing::warn!(subsystem = %name, "{warning}"));
                loaded.insert(name.clone(), tls);
            }
            Err(faults) => problems.extend(tls_problems(&format!("subsystems[{index}].tls"), &faults)),
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(ConfigProblems(problems)) }
}

/// What is wrong with files, at the place that names them.
fn tls_problems(path: &str, faults: &[TlsProblem]) -> Vec<ConfigProblem> {
    faults.iter().map(|fault| ConfigProblem::new(path, fault.to_string())).collect()
}

/// What expires when, on all listeners and towards all subsystems.
pub(crate) fn all_expiries(components: &SharedComponents) -> Vec<ExpiringItem> {
    let listeners = components.listener_tls.values().flat_map(|tls| tls.load().expiries.clone());
    let subsystem_tls = components.subsystem_tls.load();
    let snapshot = components.published.load();
    let own = listeners.chain(subsystem_tls.values().flat_map(|tls| tls.expiries.clone()));
    own.chain(components.telemetry.callers().expiries(|caller| snapshot.is_claimed(caller))).collect()
}

/// The listeners that believe revocation lists which have expired.
pub(crate) fn accepts_expired_crl(components: &SharedComponents) -> Vec<Name> {
    let believes = |(_, tls): &(&Name, &Arc<ArcSwap<ServerTls>>)| tls.load().accepts_expired_crls;
    let mut names: Vec<Name> = components.listener_tls.iter().filter(believes).map(|(name, _)| name.clone()).collect();
    names.sort();
    names
}

/// What operators should know of at any time.
fn insecure_settings(components: &SharedComponents) -> Vec<String> {
    let told =
        |name: Name| format!("listener {name}: expired revocation lists are believed (expiredRevocation: allow)");
    let told: Vec<_> = accepts_expired_crl(components).into_iter().map(told).collect();
    told.iter().for_each(|what| tracing::warn!("{what}"));
    told
}

/// The names of departments, for the book.
pub(crate) fn department_names(snapshot: &PolicySnapshot) -> Vec<(Name, String)> {
    let departments = snapshot.departments.iter().map(|policy| &policy.department);
    departments.map(|department| (department.id.clone(), department.name.clone())).collect()
}

/// A problem of the file as a whole.
pub(crate) fn file_problem(message: String) -> ConfigProblems {
    ConfigProblems::of_whole_file(message)
}

/// How long [`RunningGateway::reload`] waits for the control thread.
pub(crate) const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
