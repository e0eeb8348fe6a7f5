//! Usage reports: exact usage, grouped and rendered.
//!
//! Guarantees:
//! - Sums are whole numbers and checked for overflow.
//! - Ranges are half-open and consist of whole windows.
//! - Every format shows the same rows.
//! - The module is pure: it does no I/O. `hour_samples` is the exception: it reads the sealed hours of a ledger one by
//!   one while it writes them, so that memory holds one.
//!
//! Leaves to `cli` and `admin`: reading the ledger and writing the text.

mod forecast;
mod grouping;
mod hour_samples;
mod ledger_sum;
mod measure_columns;
mod own_usage;
mod reconciled;
pub mod render;
mod report_query;
mod report_range;
mod sample_text;
mod scraped;
mod usage_report;

pub use self::forecast::{
    BASIS_HOURS_MAX, DepartmentForecast, DepartmentHours, Forecast, ForecastBasis, ForecastMoment, ForecastReport,
    PeriodUse, QuotaForecast, UseRange, render_forecast_csv, render_forecast_json, render_forecast_table,
};
pub use self::grouping::{BadGroupKey, GroupKey, GroupKeys, ReportResolution};
pub use self::own_usage::{
    OwnLimit, OwnLimitScope, OwnUsage, OwnUsageFacts, QuotaUsed, USAGE_PAGE_POLICY, UsagePageFormat,
};
pub use hour_samples::{BadHourGrouping, HourSamplesError, parse_hour_grouping, write_empty_hours, write_hour_samples};
pub use ledger_sum::{LedgerPart, LedgerSum, listed};
pub use measure_columns::{BadMeasure, ChosenMeasures, MeasureColumns};
pub use reconciled::{
    BadSubsystemCounts, CauseHours, CauseShare, ContradictoryHour, DayOutcomes, DayReconciliation, DifferingValue,
    HourCause, SignedUsage, SpanFacts, SubsystemCause, SubsystemComparison, SubsystemCounts, SubsystemDay, UpHistory,
    UsageReconciliation, UsageTable, source_labels,
};
pub use report_query::{LedgerFacts, ReportCoverage, ReportQuery, utc_seconds_text};
pub use report_range::{BadReportRange, ReportRange};
pub use sample_text::{BadCommonLabel, CommonLabels, SampleFormat};
pub use scraped::{
    ScrapedError, ScrapedHour, ScrapedHours, ScrapedReport, ScrapedSample, ScrapedSeries, ScrapedSum, UsageLabels,
    head_families_matcher, hour_families_matcher, window_ranges, window_ranges_text,
};
pub use usage_report::{ReportAdjustment, ReportLedger, ReportRow, SumOverflow, UsageReport};
