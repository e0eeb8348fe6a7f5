//! Makes usage pages from the ledger, and keeps each for a while.
//!
//! Guarantees: at most [`KEPT_MAX`] departments are kept.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::MonotonicTime;
use crate::ledger::LedgerError;
use crate::ledger::audit::ledger_coverage;
use crate::model::{Department, PeriodLength};
use crate::policy::{DepartmentPolicy, PolicySnapshot};
use crate::report::{
    ForecastBasis, ForecastMoment, OwnLimit, OwnLimitScope, OwnUsage, OwnUsageFacts, QuotaUsed, UsagePageFormat,
};

use super::{PAGE_TIME, UsagePageText, UsageQuestion, UsageSources, UsageUnavailable};

/// The most departments whose usage is kept. Beyond it all of them are read anew.
const KEPT_MAX: usize = 1000;
/// The most commands whose limits a page lists.
const LIMITED_COMMANDS_MAX: usize = 200;

/// Makes pages, one after the other.
pub(super) struct PageMaker {
    sources: UsageSources,
    /// By department number, with the time at which each was made.
    kept: HashMap<u32, (MonotonicTime, Arc<OwnUsage>)>,
}

impl PageMaker {
    pub(super) fn new(sources: UsageSources) -> Self {
        Self { sources, kept: HashMap::new() }
    }

    /// The page that answers a question.
    pub(super) async fn page_for(&mut self, question: UsageQuestion) -> Result<UsagePageText, UsageUnavailable> {
        let UsageQuestion { department, certificate_ends, format } = question;
        let usage = self.usage_of(&department).await.map_err(|error| {
            tracing::warn!(department = %department.id, %error, "the usage page of a department could not be made");
            UsageUnavailable::Unreadable
        })?;
        let text = match format {
            UsagePageFormat::Json => usage.to_json(certificate_ends),
            UsagePageFormat::Html => usage.to_html(certificate_ends),
        };
        Ok(UsagePageText { body: text.into(), format })
    }

    async fn usage_of(&mut self, department: &Department) -> Result<Arc<OwnUsage>, LedgerError> {
        let now = self.sources.clock.monotonic();
        if let Some((made, usage)) = self.kept.get(&department.number)
            && now.since(*made) < PAGE_TIME
        {
            return Ok(Arc::clone(usage));
        }
        let usage = Arc::new(OwnUsage::new(self.read(department).await?));
        self.kept.retain(|_, (made, _)| now.since(*made) < PAGE_TIME);
        if self.kept.len() >= KEPT_MAX {
            self.kept.clear();
        }
        self.kept.insert(department.number, (now, Arc::clone(&usage)));
        Ok(usage)
    }

    /// Reads one department. The coverage is read first: what is complete then has all its rows afterwards.
    async fn read(&self, department: &Department) -> Result<OwnUsageFacts, LedgerError> {
        let UsageSources { ledger, limiters, published, calendar, clock } = &self.sources;
        let moment = ForecastMoment { now: clock.wall(), calendar: *calendar };
        let now = moment.window();
        let month = PeriodLength::Month.containing(now, *calendar).windows(*calendar);
        // Whole days, because a range must not cut a day that is compacted.
        let start = calendar.day_of(ForecastBasis::weeks_before(now).start).min(month.start);
        let coverage = ledger_coverage(ledger.path(), &(start..now.next()), moment.now)?;
        let compacted_before = ledger.compacted_before().await?;
        let rows = ledger.department_usage_by_hour(&department.id, start..now.next()).await?;
        let snapshot = published.load();
        let policy = snapshot.departments.iter().find(|policy| policy.department.number == department.number);
        let states = limiters.quotas_of(department.number, now).into_iter();
        Ok(OwnUsageFacts {
            department: department.clone(),
            moment,
            valid_for: PAGE_TIME,
            coverage,
            compacted_before,
            rows,
            limits: policy.map(|policy| limits_of(&snapshot, policy)).unwrap_or_default(),
            quotas: policy.map(|policy| policy.quotas.clone()).unwrap_or_default(),
            quotas_used: states.map(|state| QuotaUsed { kind: state.kind, used: state.used }).collect(),
        })
    }
}

/// The limits of a department, and those on the commands that it may run.
fn limits_of(snapshot: &PolicySnapshot, department: &DepartmentPolicy) -> Vec<OwnLimit> {
    let commands = snapshot.subsystems.iter().flat_map(|subsystem| subsystem.commands.iter().chain(&subsystem.other));
    let of_commands = commands.filter_map(|command| {
        let limits = snapshot.limits_on(department, command);
        let is_limited = limits.rate.is_some() || limits.concurrent.is_some();
        let is_shown = is_limited && snapshot.find_grant(department, command).is_some();
        let scope = OwnLimitScope::Command(command.key.subsystem.clone(), command.key.command.clone());
        is_shown.then_some(OwnLimit { scope, limits })
    });
    let own = OwnLimit { scope: OwnLimitScope::Department, limits: department.limits };
    [own].into_iter().chain(of_commands.take(LIMITED_COMMANDS_MAX)).collect()
}
