//! The reload of the configuration: a new configuration goes live in one atomic swap, or is rejected as a whole.
//!
//! Guarantees:
//! - Everything is read and built, every new address is bound, and the access log is open, before anything is swapped.
//!   A rejected document changes only the output of `/config`.
//! - A listener that goes has closed its socket before the configuration is reported as live.
//! - The state of limiters, quotas and meters is carried over, and connections of listeners that stay remain open.
//! - All work happens on a thread without traffic: reading and compiling at a lower priority, and dropping the old
//!   snapshot, which has about 100 MB for a province.
//!
//! Leaves to others: the check for changed files (`config`), and the schedule (`control_thread`).

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::{
    AccessLogSettings, ConfigLoader, ConfigProblems, Configuration, ExcludedSource, FileWatcher, GatewaySettings,
    LoadResult, LoadedTls, UNVERIFIED_ACCEPTED,
};
use crate::identity::{ExpiringItem, ServerTls, SubsystemTls};
use crate::model::{Name, NameInterner};
use crate::policy::{PolicySnapshot, SnapshotDifference};
use crate::telemetry::{ConfigChanges, ConfigCounts, ConfigStatus, ListenerChanges, LiveConfig, RejectedConfig};

use super::access_log;
use super::binding::{AdminSocket, BindProblem, BindProblems, bind_sockets};
use super::components::SharedComponents;
use super::listener_control::{Activation, ListenerControl, Retirement};
use super::listener_plan::{admin_changes, listener_changes};
use super::live_listeners::{LiveAddresses, LiveListener};
use super::removed_ids;
use super::threads::run_low_priority;
use super::tls_changes::tls_changes;

/// How long [`ReloadHandle::request`] waits for the result.
pub(crate) const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A handle that requests a reload. Cheap to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct ReloadHandle(pub(crate) mpsc::Sender<ReloadReply>);

/// The channel for the result of a reload.
pub(crate) type ReloadReply = SyncSender<Result<(), ConfigProblems>>;

impl ReloadHandle {
    /// Requests a reload and waits for its result. If the configuration has problems, the old one stays live.
    pub fn request(&self) -> Result<(), ConfigProblems> {
        let (reply, answer) = sync_channel(1);
        self.0.try_send(reply).map_err(|_| reload_failed("a reload is already in progress"))?;
        let answered = answer.recv_timeout(RELOAD_TIMEOUT);
        answered.unwrap_or_else(|_| Err(reload_failed("no reply from the gateway; it may be shutting down")))
    }
}

/// The error of a reload that was not tried. A reload that was tried logs its own result.
fn reload_failed(why: &str) -> ConfigProblems {
    tracing::warn!(why, "reload not started");
    file_problem(why.to_owned())
}

/// The source of the configuration.
pub(crate) struct ConfigSource {
    pub(crate) loader: ConfigLoader,
    pub(crate) interner: NameInterner,
    pub(crate) watch: FileWatcher,
}

/// The reloader: the source of the configuration, and the parts of it that are live.
pub(crate) struct ConfigReloader {
    source: ConfigSource,
    listeners: ListenerControl,
    /// The settings of the start, for those that are read once.
    settings: GatewaySettings,
    /// The settings that are live as far as a reload applies them.
    live_settings: GatewaySettings,
    components: SharedComponents,
    status: Arc<ArcSwap<ConfigStatus>>,
}

/// What a reload has replaced.
struct ReplacedPolicy {
    before: Arc<PolicySnapshot>,
    /// The changes beside the policy.
    listeners: ListenerChanges,
    at: Timestamp,
}

/// Loads a configuration with the files that it names, and logs the oddities of these files. Also returns a watcher of
/// all files, even on failure.
pub(crate) fn load_config(
    loader: &mut ConfigLoader,
    numbers: &NameInterner,
) -> (FileWatcher, Result<Configuration, ConfigProblems>) {
    let LoadResult { configuration, watch } = loader.load(numbers);
    if let Ok(configuration) = &configuration {
        log_tls_warnings(&configuration.tls);
    }
    (watch, configuration)
}

fn log_tls_warnings(tls: &LoadedTls) {
    for (listener, tls) in &tls.listeners {
        tls.warnings.iter().for_each(|warning| tracing::warn!(%listener, "{warning}"));
    }
    for (subsystem, tls) in &tls.subsystems {
        tls.warnings.iter().for_each(|warning| tracing::warn!(%subsystem, "{warning}"));
    }
}

/// The new TLS settings towards subsystems. Those that are the same stay as they are: a reload of something else keeps
/// the open connections.
fn kept_or_new(live: &HashMap<Name, SubsystemTls>, new: Vec<(Name, SubsystemTls)>) -> HashMap<Name, SubsystemTls> {
    let one = |(name, new): (Name, SubsystemTls)| {
        let kept = live.get(&name).filter(|live| live.is_same(&new)).cloned();
        (name, kept.unwrap_or(new))
    };
    new.into_iter().map(one).collect()
}

/// The live configuration as `/config` shows it. Of `settings`, those of the start are in effect where they are read
/// once, else those of the reload.
fn live_config(
    snapshot: &PolicySnapshot,
    (start, reloaded): (&GatewaySettings, &GatewaySettings),
    (source, components): (&Path, &SharedComponents),
) -> LiveConfig {
    LiveConfig {
        version: snapshot.version.clone(),
        since: components.traffic.clock.wall(),
        source: source.to_path_buf(),
        contains: ConfigCounts {
            departments: snapshot.departments.len(),
            subsystems: snapshot.subsystems.len(),
            commands: snapshot.subsystems.iter().map(|subsystem| subsystem.commands.len()).sum(),
            backends: snapshot.backends.len(),
            granted: snapshot.granted_series(),
        },
        settings: Arc::new(start.effective_values(reloaded)),
    }
}

impl ConfigReloader {
    /// A reloader for the running `components`, which were started with `settings`.
    pub(crate) fn new(
        (source, listeners): (ConfigSource, ListenerControl),
        (settings, excluded): (GatewaySettings, Vec<ExcludedSource>),
        components: SharedComponents,
    ) -> Self {
        let snapshot = components.traffic.published.load_full();
        let live = live_config(&snapshot, (&settings, &settings), (source.loader.path(), &components));
        let weakened = insecure_settings(&components);
        let status = ConfigStatus {
            live,
            weakened,
            restart_needed: Vec::new(),
            excluded,
            changes: None,
            rejected: None,
            last_good: None,
        };
        let status = Arc::new(ArcSwap::from_pointee(status));
        let live_settings = settings.clone();
        Self { source, listeners, settings, live_settings, components, status }
    }

    /// The status that `/config` shows.
    pub(crate) fn status(&self) -> Arc<ArcSwap<ConfigStatus>> {
        Arc::clone(&self.status)
    }

    /// Whether a file has changed since the last check. Also drops snapshots without other references.
    pub(crate) fn has_changed(&mut self) -> bool {
        self.components.publisher.drop_unused();
        self.source.watch.has_changed()
    }

    /// Loads, builds, binds and publishes the configuration, or rejects it.
    pub(crate) async fn reload(&mut self) -> Result<(), ConfigProblems> {
        let result = match self.load() {
            Ok(configuration) => self.apply(configuration).await,
            Err(problems) => Err(problems),
        };
        if let Err(problems) = &result {
            self.reject(problems);
        }
        result
    }

    /// Binds the new addresses, and swaps listeners and policy. The listeners that go are retired before the new policy
    /// is live, and those that come accept connections after that. So a department of callers without a certificate
    /// never lacks its listener. If no listener goes, the policy waits for nothing.
    async fn apply(&mut self, configuration: Configuration) -> Result<(), ConfigProblems> {
        let live = self.components.live.current();
        let bound = bind_sockets(&configuration.settings, &live);
        let bound = bound.map_err(|problems| bind_rejection(&problems, &configuration))?;
        let access_log = access_log::prepare(&self.components.traffic.access_log, &configuration)?;
        let addresses = bound.addresses(&configuration.settings, &live);
        let retirement = Retirement {
            fates: bound.plan.fates.clone(),
            deadline: Instant::now() + self.settings.shutdown.grace,
            stops_admin: !matches!(bound.admin, AdminSocket::Unchanged),
        };
        if !retirement.is_empty() {
            self.listeners.retire(retirement).await.map_err(|_| file_problem(GATEWAY_STOPS.to_owned()))?;
        }
        self.components.traffic.access_log.switch(access_log).map_err(|error| file_problem(error.to_string()))?;
        let replaced = self.publish_policy(&configuration);
        let Configuration { settings, snapshot, excluded, .. } = configuration;
        // Once the new policy is live: only new listeners wait for it.
        let changes = self.finish_policy(&snapshot, replaced);
        let tls = self.components.listener_tls.load();
        let activation = Activation::new(bound, &settings, &tls, &self.source.interner);
        self.listeners.activate(activation).await.map_err(|_| file_problem(GATEWAY_STOPS.to_owned()))?;
        log_new_addresses(&live, &addresses);
        self.components.live.publish(addresses);
        log_excluded_changes(&self.status.load().excluded, &excluded);
        self.publish_status(&snapshot, (&settings, excluded), changes);
        self.live_settings = settings;
        Ok(())
    }

    /// Loads the current files at a lower priority than traffic.
    fn load(&mut self) -> Result<Configuration, ConfigProblems> {
        let ConfigSource { loader, interner: numbers, watch } = &mut self.source;
        let (seen, read) =
            run_low_priority(|| load_config(loader, numbers)).map_err(|error| file_problem(error.to_string()))?;
        match &read {
            Ok(_) => *watch = seen,
            Err(_) => watch.merge(seen),
        }
        read
    }

    /// Publishes TLS settings, hosts and policy. Returns what they replace.
    fn publish_policy(&mut self, configuration: &Configuration) -> ReplacedPolicy {
        let Configuration { settings, snapshot, tls, .. } = configuration;
        let before = self.components.traffic.published.load_full();
        let listeners = ListenerChanges {
            listeners: listener_changes(&self.live_settings.listeners, &settings.listeners),
            admin: admin_changes(&self.live_settings, settings),
            access_log: AccessLogSettings::changed_keys(
                self.live_settings.access_log.as_ref(),
                settings.access_log.as_ref(),
            ),
            tls: tls_changes(&self.components, tls),
        };
        self.components.admin_hosts.store(Arc::new(settings.admin_hosts.clone()));
        self.publish_listener_tls(tls);
        self.publish_subsystem_tls(tls); // before the snapshot that needs them
        let at = self.components.traffic.clock.wall();
        // The snapshot is published first: the next command of each worker looks up its limits again and carries over
        // their use. Then the remaining old limits are dropped.
        self.components.publisher.publish(snapshot);
        self.components.traffic.limiters.enforce(snapshot);
        ReplacedPolicy { before, listeners, at }
    }

    /// The work on a new policy that is live. Returns what has changed with it.
    fn finish_policy(&self, snapshot: &PolicySnapshot, replaced: ReplacedPolicy) -> ConfigChanges {
        let ReplacedPolicy { before, listeners, at } = replaced;
        if !Arc::ptr_eq(&before.departments, &snapshot.departments) {
            self.components.reader.update_department_names(department_names(snapshot));
        }
        let difference = before.difference(snapshot);
        warn_of_removed_ids(&self.components, &difference);
        ConfigChanges::new(&difference, (at, before.version.clone()), listeners)
    }

    /// Publishes the TLS settings towards subsystems, if they are not the same.
    fn publish_subsystem_tls(&self, tls: &LoadedTls) {
        let published = &self.components.traffic.subsystem_tls;
        let live = published.load();
        let is_live = |(name, new): &(Name, SubsystemTls)| live.get(name).is_some_and(|live| live.is_same(new));
        if live.len() != tls.subsystems.len() || !tls.subsystems.iter().all(is_live) {
            published.store(Arc::new(kept_or_new(&live, tls.subsystems.clone())));
        }
    }

    /// Publishes the TLS settings of listeners. The connections of a name see its new settings, also those that drain.
    fn publish_listener_tls(&self, tls: &LoadedTls) {
        let live = self.components.listener_tls.load();
        let renewed = tls.listeners.iter().map(|(name, tls)| {
            let slot = live.get(name).map_or_else(|| Arc::new(ArcSwap::new(Arc::clone(tls))), Arc::clone);
            slot.store(Arc::clone(tls));
            (name.clone(), slot)
        });
        self.components.listener_tls.store(Arc::new(renewed.collect()));
    }

    /// Publishes the live version, the changes, and the settings that need a restart.
    fn publish_status(
        &self,
        snapshot: &PolicySnapshot,
        (settings, excluded): (&GatewaySettings, Vec<ExcludedSource>),
        changes: ConfigChanges,
    ) {
        tracing::info!(
            version = snapshot.version,
            changed_departments = changes.departments.to_text(),
            changed_subsystems = changes.subsystems.to_text(),
            changed_backends = changes.backends.to_text(),
            changed_commands = changes.commands.to_text(),
            changed_grants = changes.grants.to_text(),
            changed_limits = changes.total_limit.then_some("limits.total"),
            changed_listeners = changes.listeners.to_text(),
            changed_admin = (!changes.admin.is_empty()).then(|| changes.admin.to_short_text()),
            changed_access_log = (!changes.access_log.is_empty()).then(|| changes.access_log.to_short_text()),
            changed_tls = (!changes.tls.is_empty()).then(|| changes.tls.to_short_text()),
            excluded_sources = (!excluded.is_empty()).then_some(excluded.len()),
            "configuration is live"
        );
        let restart_needed = self.settings.needs_restart(settings);
        for setting in &restart_needed {
            let (live, file) = (setting.live.as_deref(), setting.file.as_deref());
            tracing::warn!(
                setting = setting.path,
                live,
                file,
                "this setting is read only at start; restart the gateway to change it"
            );
        }
        let live = live_config(snapshot, (&self.settings, settings), (self.source.loader.path(), &self.components));
        let weakened = insecure_settings(&self.components);
        // A file change and a SIGHUP for it are two reloads. The second one must not hide the changes of the first.
        let changes =
            Some(changes).filter(|changes| !changes.is_empty()).or_else(|| self.status.load().changes.clone());
        let (rejected, last_good) = (None, None); // the controller adds the latter
        let status = ConfigStatus { live, weakened, restart_needed, excluded, changes, rejected, last_good };
        self.status.store(Arc::new(status));
    }

    fn reject(&self, problems: &ConfigProblems) {
        tracing::error!(%problems, "configuration rejected; the previous one stays live");
        let rejected = RejectedConfig {
            version: self.source.loader.version().unwrap_or("unreadable").to_owned(),
            at: self.components.traffic.clock.wall(),
            problems: problems.0.clone(),
        };
        let live = ConfigStatus::clone(&self.status.load());
        self.status.store(Arc::new(ConfigStatus { rejected: Some(rejected), ..live }));
    }
}

/// Logs the sources that a configuration leaves out, and those that the configuration before it left out.
///
/// A source with the same problems as before is not logged again: with 1,000 faulty routes in a cluster, each change of
/// an endpoint would otherwise log 1,000 lines.
pub(crate) fn log_excluded_changes(before: &[ExcludedSource], now: &[ExcludedSource]) {
    for ExcludedSource { source, problems } in in_first_only(now, before) {
        let problems = ConfigProblems(problems.clone());
        tracing::warn!(source, %problems, "this source has problems and is left out; all others are live");
    }
    let names = |sources: &[ExcludedSource]| sources.iter().map(|one| one.source.clone()).collect::<HashSet<_>>();
    for source in names(before).difference(&names(now)) {
        tracing::info!(source, "this source is no longer left out: it is live or was removed");
    }
}

/// The sources of `first` that are not in `second` with the same problems, in the order of `first`.
fn in_first_only<'a>(first: &'a [ExcludedSource], second: &[ExcludedSource]) -> Vec<&'a ExcludedSource> {
    let known: HashMap<_, _> = second.iter().map(|one| (&one.source, &one.problems)).collect();
    first.iter().filter(|one| known.get(&one.source) != Some(&&one.problems)).collect()
}

/// The problem of a reload that comes while the gateway stops.
const GATEWAY_STOPS: &str = "the gateway is shutting down";

/// The problems of addresses that could not be bound, at their places in the configuration.
fn bind_rejection(problems: &BindProblems, configuration: &Configuration) -> ConfigProblems {
    let mut problems: Vec<_> = problems.0.iter().map(BindProblem::to_config_problem).collect();
    configuration.locate_problems(&mut problems);
    ConfigProblems(problems)
}

/// Logs the addresses that are new.
fn log_new_addresses(before: &LiveAddresses, now: &LiveAddresses) {
    let is_new = |listener: &&LiveListener| !before.listeners.contains(listener);
    for LiveListener { name, address, .. } in now.listeners.iter().filter(is_new) {
        tracing::info!(listener = %name, address = %address.bound, "listening");
    }
    if let Some(admin) = now.admin.filter(|admin| before.admin.is_none_or(|before| before.bound != admin.bound)) {
        tracing::info!(address = %admin.bound, "admin listener started");
    }
}

/// Warns of ids with usage this month that a reload removed. Runs as a separate task, because it reads the ledger.
fn warn_of_removed_ids(components: &SharedComponents, difference: &SnapshotDifference) {
    let vanished = removed_ids::removed_by_reload(difference);
    if vanished.is_empty() {
        return;
    }
    let (reader, calendar) = (components.reader.clone(), components.calendar);
    let month = calendar.month_of(components.traffic.clock.window());
    tokio::spawn(async move {
        match reader.usage_total(calendar.windows_of(month)).await {
            Ok(rows) => removed_ids::warn_if_used(&vanished, &rows, month),
            Err(error) => tracing::warn!(%error, "could not check whether removed ids have usage this month"),
        }
    });
}

/// The expiry dates of all listeners, subsystems and callers.
pub(crate) fn all_expiries(components: &SharedComponents) -> Vec<ExpiringItem> {
    let listener_tls = components.listener_tls.load();
    let listeners = listener_tls.values().flat_map(|tls| tls.load().expiries.clone());
    let subsystem_tls = components.traffic.subsystem_tls.load();
    let snapshot = components.traffic.published.load();
    let own = listeners.chain(subsystem_tls.values().flat_map(|tls| tls.expiries.clone()));
    own.chain(components.traffic.telemetry.callers().expiries(|caller| snapshot.is_claimed(caller))).collect()
}

/// The listeners that accept expired revocation lists.
pub(crate) fn accepts_expired_crl(components: &SharedComponents) -> Vec<Name> {
    listeners_that(components, ServerTls::accepts_expired_crls)
}

/// The names of the listeners with a property.
fn listeners_that(components: &SharedComponents, has: impl Fn(&ServerTls) -> bool) -> Vec<Name> {
    let believes = |(_, tls): &(&Name, &Arc<ArcSwap<ServerTls>>)| has(&tls.load());
    let listener_tls = components.listener_tls.load();
    let mut names: Vec<Name> = listener_tls.iter().filter(believes).map(|(name, _)| name.clone()).collect();
    names.sort();
    names
}

/// Warnings of insecure settings; logged and shown at any time.
fn insecure_settings(components: &SharedComponents) -> Vec<String> {
    let expired =
        |name: Name| format!("listener {name}: expired revocation lists are accepted (expiredRevocation: allow)");
    let unverified = |name: Name| format!("listener {name}: {UNVERIFIED_ACCEPTED}");
    let warnings = accepts_expired_crl(components).into_iter().map(expired);
    let unverified = listeners_that(components, ServerTls::accepts_unverified).into_iter().map(unverified);
    let warnings: Vec<_> = warnings.chain(unverified).collect();
    warnings.iter().for_each(|what| tracing::warn!("{what}"));
    warnings
}

/// The names of departments, for the ledger's book.
pub(crate) fn department_names(snapshot: &PolicySnapshot) -> Vec<(Name, String)> {
    let departments = snapshot.departments.iter().map(|policy| &policy.department);
    departments.map(|department| (department.id.clone(), department.name.clone())).collect()
}

/// A problem of the file as a whole.
pub(crate) fn file_problem(message: String) -> ConfigProblems {
    ConfigProblems::of_whole_file(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(source: &str, message: &str) -> ExcludedSource {
        ExcludedSource { source: source.to_owned(), problems: file_problem(message.to_owned()).0 }
    }

    #[test]
    fn only_sources_with_new_problems_are_logged_again() {
        let before = [excluded("a", "old"), excluded("b", "old"), excluded("c", "old")];
        let now = [excluded("a", "old"), excluded("b", "new"), excluded("d", "new")];

        assert_eq!(in_first_only(&now, &before), [&now[1], &now[2]]);
        assert!(in_first_only(&now, &now).is_empty());
    }
}
