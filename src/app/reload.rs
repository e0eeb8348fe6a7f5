//! A new configuration, made live in one swap, or rejected whole.
//!
//! Guarantees: everything is read and built before anything is swapped; a rejected document changes nothing but what
//! `/config` shows. Limiter, quota and meter state is carried over, connections stay open. All of it happens on a thread that
//! carries no traffic: reading and compiling at a lower priority, and dropping the old snapshot, which a province has some
//! 100 MB of.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::config::{Configuration, Loaded, Loader, Problem, Problems, Settings, SubsystemTlsSettings, Watch};
use crate::identity::{Expiry, ServerTls, SubsystemTls, TlsProblem};
use crate::model::{Name, Numbers};
use crate::policy::{Snapshot, SnapshotDifference};
use crate::telemetry::{ConfigChanges, ConfigStatus, LiveConfig, RejectedConfig};

use super::threads::aside;
use super::tls_changes::{FileMarks, tls_changes};
use super::vanished;
use super::{Organs, RELOAD_PATIENCE, names_of, problem};

/// Asks the control thread for a reload; cheap to clone, may go to any thread.
#[derive(Clone, Debug)]
pub struct Reload(pub(super) mpsc::Sender<Reply>);

/// Where the result of a reload goes.
pub(super) type Reply = SyncSender<Result<(), Problems>>;

impl Reload {
    /// Reads the configuration again and waits for the result. On problems the old one stays live.
    pub fn request(&self) -> Result<(), Problems> {
        let (reply, answer) = sync_channel(1);
        self.0.try_send(reply).map_err(|_| not_done("a reload is already under way"))?;
        let answered = answer.recv_timeout(RELOAD_PATIENCE);
        answered.unwrap_or_else(|_| Err(not_done("the gateway did not answer; it may be stopping")))
    }
}

/// A reload that was not even tried; one that was tells its result itself.
fn not_done(why: &str) -> Problems {
    tracing::warn!(why, "the configuration was not read again");
    problem(why.to_owned())
}

/// Where a configuration comes from.
pub(super) struct Source {
    pub(super) loader: Loader,
    pub(super) numbers: Numbers,
    pub(super) watch: Watch,
}

/// Knows where the configuration comes from and what of it is live.
pub(super) struct Reloader {
    source: Source,
    /// What this gateway was started with.
    settings: Settings,
    /// Of the files that are live.
    marks: FileMarks,
    organs: Organs,
    /// Snapshots that some worker or command may still hold: kept, so that none of them is the last to drop one.
    retired: Vec<Arc<Snapshot>>,
    status: Arc<ArcSwap<ConfigStatus>>,
}

/// A configuration with everything it names, read and built.
pub(super) struct Read {
    pub(super) configuration: Configuration,
    pub(super) tls: Vec<(Name, ServerTls)>,
    pub(super) subsystem_tls: HashMap<Name, SubsystemTls>,
    pub(super) marks: FileMarks,
}

/// Reads a configuration and what it names; tells which files that were, or would have been.
pub(super) fn read(loader: &mut Loader, numbers: &Numbers, clock: &Clock) -> (Watch, Result<Read, Problems>) {
    let Loaded { configuration, mut watch } = loader.load(numbers);
    let configuration = match configuration {
        Ok(configuration) => configuration,
        Err(problems) => return (watch, Err(problems)),
    };
    watch = watch.and(configuration.settings.listeners.iter().flat_map(|listener| listener.tls.paths()));
    watch = watch.and(configuration.subsystem_tls.iter().flat_map(|subsystem| subsystem.files.paths()));
    (watch, with_tls(configuration, clock))
}

fn with_tls(configuration: Configuration, clock: &Clock) -> Result<Read, Problems> {
    let tls = load_tls(&configuration.settings, clock)?;
    let subsystem_tls = load_subsystem_tls(&configuration.subsystem_tls, clock)?;
    let marks = FileMarks::of(&configuration);
    Ok(Read { configuration, tls, subsystem_tls, marks })
}

impl Reloader {
    /// Looks after what `read` has read and `organs` carry out.
    pub(super) fn new(source: Source, read: Read, organs: Organs) -> Self {
        let live = LiveConfig { version: organs.published.load().version.clone(), since: organs.clock.wall() };
        let weakened = weakened(&organs);
        let status = ConfigStatus { live, weakened, restart_needed: Vec::new(), changes: None, rejected: None };
        let status = Arc::new(ArcSwap::from_pointee(status));
        let (settings, marks) = (read.configuration.settings, read.marks);
        Self { source, settings, marks, organs, retired: Vec::new(), status }
    }

    /// What `/config` shows.
    pub(super) fn status(&self) -> Arc<ArcSwap<ConfigStatus>> {
        Arc::clone(&self.status)
    }

    /// Whether a file has changed since the last look. Drops what nobody holds any more.
    pub(super) fn has_changed(&mut self) -> bool {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        self.source.watch.changed()
    }

    /// Reads, compiles, builds, swaps; or rejects.
    pub(super) fn reload(&mut self) -> Result<(), Problems> {
        let read = self.read();
        let result = read.map(|read| self.swap(read));
        if let Err(problems) = &result {
            self.reject(problems);
        }
        result
    }

    /// Reads what there is now, aside from traffic.
    fn read(&mut self) -> Result<Read, Problems> {
        let (Source { loader, numbers, watch }, clock) = (&mut self.source, &self.organs.clock);
        let (seen, read) = aside(|| read(loader, numbers, clock)).map_err(|error| problem(error.to_string()))?;
        match &read {
            Ok(_) => *watch = seen,
            Err(_) => watch.take_over(seen),
        }
        read
    }

    fn swap(&mut self, read: Read) {
        let before = self.organs.published.load_full();
        let difference = before.difference(&read.configuration.snapshot);
        let changes = tls_changes(&self.organs, &self.marks, &read);
        let changes = ConfigChanges::new(&difference, (self.organs.clock.wall(), before.version.clone()), changes);
        let Read { configuration, tls, subsystem_tls, marks } = read;
        for (name, tls) in tls {
            if let Some(live) = self.organs.tls.get(&name) {
                live.store(Arc::new(tls));
            }
        }
        self.organs.subsystem_tls.store(Arc::new(subsystem_tls)); // before the snapshot that needs them
        // Published first: each worker's next command finds its limits anew and carries over what was used; then what is
        // left of the old ones is dropped.
        self.retired.push(self.organs.published.swap(Arc::clone(&configuration.snapshot)));
        self.organs.limiters.enforce(&configuration.snapshot);
        self.organs.reader.note_department_names(names_of(&configuration.snapshot));
        self.marks = marks;
        self.show(&configuration, changes);
        warn_of_vanished(&self.organs, &difference);
    }

    /// Says what is live, what it changed, and what of it waits for a restart.
    fn show(&self, configuration: &Configuration, changes: ConfigChanges) {
        let version = configuration.snapshot.version.clone();
        tracing::info!(
            version,
            changed_departments = changes.departments.words(),
            changed_subsystems = changes.subsystems.words(),
            changed_commands = changes.commands.words(),
            changed_grants = changes.grants.words(),
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
        let live = LiveConfig { version, since: self.organs.clock.wall() };
        let weakened = weakened(&self.organs);
        // A file that changes and a SIGHUP for it are two reloads: the second must not hide what the first has changed.
        let changes =
            Some(changes).filter(|changes| !changes.is_empty()).or_else(|| self.status.load().changes.clone());
        self.status.store(Arc::new(ConfigStatus { live, weakened, restart_needed, changes, rejected: None }));
    }

    fn reject(&self, problems: &Problems) {
        tracing::error!(%problems, "configuration rejected; the previous one stays live");
        let rejected = RejectedConfig {
            version: self.source.loader.version().unwrap_or("unreadable").to_owned(),
            at: self.organs.clock.wall(),
            problems: problems.0.clone(),
        };
        let live = ConfigStatus::clone(&self.status.load());
        self.status.store(Arc::new(ConfigStatus { rejected: Some(rejected), ..live }));
    }
}

/// Warns of ids with usage this month that a reload has removed. Runs beside what else the control thread does, because it
/// reads the ledger.
fn warn_of_vanished(organs: &Organs, difference: &SnapshotDifference) {
    let vanished = vanished::of_reload(difference);
    if vanished.is_empty() {
        return;
    }
    let (reader, calendar) = (organs.reader.clone(), organs.calendar);
    let month = calendar.month_of(organs.clock.window());
    tokio::spawn(async move {
        match reader.usage_in_whole(calendar.windows_of(month)).await {
            Ok(rows) => vanished::warn_of(&vanished, &rows, month),
            Err(error) => tracing::warn!(%error, "could not tell whether ids that are gone have usage this month"),
        }
    });
}

/// Reads the keys and trust of every listener; names every problem.
fn load_tls(settings: &Settings, clock: &Clock) -> Result<Vec<(Name, ServerTls)>, Problems> {
    let (mut loaded, mut problems) = (Vec::new(), Vec::new());
    for (index, listener) in settings.listeners.iter().enumerate() {
        match listener.tls.load_with(clock) {
            Ok(tls) => {
                tls.warnings.iter().for_each(|warning| tracing::warn!(listener = %listener.name, "{warning}"));
                loaded.push((listener.name.clone(), tls));
            }
            Err(faults) => problems.extend(problems_at(&format!("listeners[{index}].tls"), &faults)),
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(Problems(problems)) }
}

/// Reads the trust in every subsystem that is met over TLS; names every problem.
fn load_subsystem_tls(
    subsystems: &[SubsystemTlsSettings],
    clock: &Clock,
) -> Result<HashMap<Name, SubsystemTls>, Problems> {
    let (mut loaded, mut problems) = (HashMap::new(), Vec::new());
    for SubsystemTlsSettings { index, name, files } in subsystems {
        match files.load(clock.wall()) {
            Ok(tls) => {
                tls.warnings.iter().for_each(|warning| tracing::warn!(subsystem = %name, "{warning}"));
                loaded.insert(name.clone(), tls);
            }
            Err(faults) => problems.extend(problems_at(&format!("subsystems[{index}].tls"), &faults)),
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(Problems(problems)) }
}

/// What is wrong with files, at the place that names them.
fn problems_at(path: &str, faults: &[TlsProblem]) -> Vec<Problem> {
    faults.iter().map(|fault| Problem::new(path, fault.to_string())).collect()
}

/// What expires when, on all listeners and towards all subsystems.
pub(super) fn expiries(organs: &Organs) -> Vec<Expiry> {
    let listeners = organs.tls.values().flat_map(|tls| tls.load().expiries.clone());
    let subsystem_tls = organs.subsystem_tls.load();
    let snapshot = organs.published.load();
    let own = listeners.chain(subsystem_tls.values().flat_map(|tls| tls.expiries.clone()));
    own.chain(organs.telemetry.callers().expiries(|caller| snapshot.claims(caller))).collect()
}

/// The listeners that believe revocation lists which have expired.
pub(super) fn believing(organs: &Organs) -> Vec<Name> {
    let believes = |(_, tls): &(&Name, &Arc<ArcSwap<ServerTls>>)| tls.load().believes_expired_lists;
    let mut names: Vec<Name> = organs.tls.iter().filter(believes).map(|(name, _)| name.clone()).collect();
    names.sort();
    names
}

/// What operators should know of at any time.
fn weakened(organs: &Organs) -> Vec<String> {
    let told =
        |name: Name| format!("listener {name}: expired revocation lists are believed (expiredRevocation: allow)");
    let told: Vec<_> = believing(organs).into_iter().map(told).collect();
    told.iter().for_each(|what| tracing::warn!("{what}"));
    told
}
