//! The forecasts of departments as table, CSV and JSON. Every format has the same rows.

use serde::Serialize;

use crate::model::{QuotaAction, Window};
use crate::report::render::fitted_table::{ColumnHeading, FittedTable};
use crate::report::render::{TableTarget, human_units::grouped_digits};
use crate::report::utc_seconds_text;

use super::{BASIS_HOURS_MAX, DepartmentForecast, ForecastBasis, ForecastMoment, UseRange};

/// The forecasts of departments.
#[derive(Clone, Debug)]
pub struct ForecastReport {
    /// The moment.
    pub moment: ForecastMoment,
    /// The hours that the forecasts stand on.
    pub basis: ForecastBasis,
    /// Up to when all usage is known.
    pub complete_to: Option<Window>,
    /// The forecasts, in the order of the departments.
    pub departments: Vec<DepartmentForecast>,
}

/// A forecast as it is shown.
#[derive(Clone, Debug, Serialize)]
struct ForecastRow<'a> {
    department: &'a str,
    /// `day` or `month`.
    per: &'static str,
    period: String,
    measure: &'static str,
    used: u64,
    forecast: Option<u64>,
    least: Option<u64>,
    greatest: Option<u64>,
    quota: Option<u64>,
    exceeded: Option<&'static str>,
    quota_met: Option<QuotaMet>,
    quota_met_at: Option<String>,
}

/// Whether a quota is or will be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum QuotaMet {
    Already,
    Expected,
    No,
}

impl ForecastReport {
    fn rows(&self) -> impl Iterator<Item = ForecastRow<'_>> {
        self.departments.iter().flat_map(forecast_rows)
    }

    fn basis_text(&self) -> String {
        format!("{} complete hours of the last {BASIS_HOURS_MAX} (four weeks)", self.basis.hours())
    }
}

/// The forecasts of a department as they are shown.
fn forecast_rows(of: &DepartmentForecast) -> impl Iterator<Item = ForecastRow<'_>> {
    of.forecasts.iter().map(|one| {
        let end = |part: fn(UseRange) -> u64| one.end.map(part);
        let quota_met = one.quota.map(|quota| match (quota.is_met, quota.met_in) {
            (true, _) => QuotaMet::Already,
            (false, Some(_)) => QuotaMet::Expected,
            (false, None) => QuotaMet::No,
        });
        ForecastRow {
            department: of.department.as_str(),
            per: one.period.length().name(),
            period: one.period.to_string(),
            measure: one.measure.name(),
            used: one.used,
            forecast: end(|end| end.expected),
            least: end(|end| end.least),
            greatest: end(|end| end.greatest),
            quota: one.quota.map(|quota| quota.granted),
            exceeded: one.quota.map(|quota| match quota.exceeded {
                QuotaAction::Refuse => "refuse",
                QuotaAction::Allow => "allow",
            }),
            // Without a complete hour nothing is known about the end.
            quota_met: quota_met.filter(|met| *met == QuotaMet::Already || one.end.is_some()),
            quota_met_at: one.quota.and_then(|quota| quota.met_in).map(|window| window.to_string()),
        }
    })
}

/// Renders a heading, and a line for each forecast.
pub fn render_forecast_table(report: &ForecastReport, look: TableTarget) -> String {
    let mut table = FittedTable::new([
        ColumnHeading::text("department"),
        ColumnHeading::text("period"),
        ColumnHeading::text("measure"),
        ColumnHeading::number("used"),
        ColumnHeading::number("forecast"),
        ColumnHeading::number("least").droppable(3),
        ColumnHeading::number("greatest").droppable(2),
        ColumnHeading::number("quota"),
        ColumnHeading::number("used %").droppable(1),
        ColumnHeading::text("quota met"),
    ]);
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), grouped_digits);
    for row in report.rows() {
        let met = match (row.quota_met, &row.quota_met_at) {
            (Some(QuotaMet::Already), _) => "already",
            (Some(QuotaMet::No), _) => "no",
            (_, at) => at.as_deref().unwrap_or("-"),
        };
        let percent = row.quota.map(|quota| used_percent(row.used, quota));
        table.add_row([
            row.department.to_string(),
            row.period,
            row.measure.to_owned(),
            grouped_digits(row.used),
            number(row.forecast),
            number(row.least),
            number(row.greatest),
            number(row.quota),
            number(percent),
            met.to_owned(),
        ]);
    }
    let moment = report.moment;
    let complete_to = report.complete_to.map_or_else(|| "no hour yet".to_owned(), |window| window.to_string());
    let heading = format!(
        "made at     {}\ncalendar    UTC{}\ncomplete to {complete_to}\nstands on   {}\n\n",
        utc_seconds_text(moment.now),
        moment.calendar,
        report.basis_text()
    );
    let empty = if report.departments.is_empty() { "No department has usage in these weeks.\n" } else { "" };
    format!("{heading}{}{empty}", table.render(look))
}

/// The used part of a quota in percent, rounded down.
pub(crate) fn used_percent(used: u64, granted: u64) -> u64 {
    u64::try_from(u128::from(used) * 100 / u128::from(granted.max(1))).unwrap_or(u64::MAX)
}

/// Renders a header and a line for each forecast. Empty cells are unknown, or have no quota.
pub fn render_forecast_csv(report: &ForecastReport) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "department",
        "per",
        "period",
        "measure",
        "used",
        "forecast",
        "least",
        "greatest",
        "quota",
        "exceeded",
        "quota_met",
        "quota_met_at",
        "calendar",
        "complete_to",
        "basis_hours",
        "made_at",
    ])?;
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    for row in report.rows() {
        let met = row.quota_met.map_or("", |met| match met {
            QuotaMet::Already => "already",
            QuotaMet::Expected => "expected",
            QuotaMet::No => "no",
        });
        writer.write_record([
            row.department.to_string(),
            row.per.to_owned(),
            row.period,
            row.measure.to_owned(),
            row.used.to_string(),
            number(row.forecast),
            number(row.least),
            number(row.greatest),
            number(row.quota),
            row.exceeded.unwrap_or_default().to_owned(),
            met.to_owned(),
            row.quota_met_at.unwrap_or_default(),
            format!("UTC{}", report.moment.calendar),
            report.complete_to.map(|window| window.to_string()).unwrap_or_default(),
            report.basis.hours().to_string(),
            utc_seconds_text(report.moment.now),
        ])?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Renders one object: `made_at`, `calendar`, `complete_to`, `basis` (`hours`, `hours_max`), `forecasts`.
pub fn render_forecast_json(report: &ForecastReport) -> Result<String, serde_json::Error> {
    let object = serde_json::json!({
        "made_at": utc_seconds_text(report.moment.now),
        "calendar": report.moment.calendar.to_string(),
        "complete_to": report.complete_to.map(|window| window.to_string()),
        "basis": { "hours": report.basis.hours(), "hours_max": BASIS_HOURS_MAX },
        "forecasts": report.rows().collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&object)? + "\n")
}
