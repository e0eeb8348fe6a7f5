//! The usage API: `GET /api/v1/usage?from=&to=&by=&period=&department=`. The response equals the output of
//! `report usage --format json`.
//!
//! Guarantees: a request covers at most [`WINDOWS_MAX`] windows and names at most [`DEPARTMENTS_MAX`] departments.
//!
//! Leaves to others: the aggregation (`ledger`), and the report (`report`).

use http::StatusCode;
use jiff::Timestamp;

use crate::model::{CalendarOffset, Name, Window};
use crate::report::{
    GroupKeys, LedgerFacts, ReportCoverage, ReportQuery, ReportRange, ReportResolution, UsageReport, render,
    utc_seconds_text,
};

use super::query_text::{read_parameters, store_once};
use super::response::{AdminResponse, JSON_TYPE, problem_response, respond, unavailable};
use super::state::AdminState;

/// The longest range of one request: a leap year and a day on either side. Longer ranges are for `report usage`, which
/// does not share its memory with traffic.
const WINDOWS_MAX: u32 = 368 * 24;

/// The maximum of departments in one request.
const DEPARTMENTS_MAX: usize = 100;

pub(crate) async fn usage_response(state: &AdminState, query: &str) -> AdminResponse {
    let view = (state.view)();
    let query = match parse_query(query, view.calendar, view.window) {
        Ok(query) => query,
        Err(problems) => return problem_response(StatusCode::BAD_REQUEST, &problems),
    };
    match query_usage(state, query, (view.calendar, view.now)).await {
        Ok(text) => respond(StatusCode::OK, JSON_TYPE, text),
        Err(error) => unavailable(&error),
    }
}

async fn query_usage(
    state: &AdminState,
    query: ReportQuery,
    (calendar, now): (CalendarOffset, Timestamp),
) -> anyhow::Result<String> {
    let (ledger, windows) = (&state.ledger, || query.range.windows());
    let rows = match query.group_by.resolution() {
        ReportResolution::Whole => ledger.usage_total(windows()).await,
        ReportResolution::Day => ledger.usage_by_day(windows()).await,
        ReportResolution::Hour => ledger.usage_by_hour(windows()).await,
    }?;
    let coverage =
        ReportCoverage { made_at: utc_seconds_text(now), completeness: ledger.completeness(windows(), now).await? };
    let (adjustments, names) = (ledger.adjustments().await?, ledger.department_names().await?);
    let facts = LedgerFacts { rows, calendar, adjustments, names, coverage };
    Ok(render::render_json(&UsageReport::from_facts(query, facts)?)?)
}

/// Parses a query string.
fn parse_query(text: &str, calendar: CalendarOffset, now: Window) -> Result<ReportQuery, String> {
    let (mut from, mut to, mut by, mut period, mut departments) = (None, None, None, None, Vec::new());
    read_parameters(text, &["from", "to", "period", "by", "department"], |name, value| match name {
        "from" => store_once(&mut from, name, value),
        "to" => store_once(&mut to, name, value),
        "period" => store_once(&mut period, name, value),
        "by" => store_once(&mut by, name, value),
        _ => {
            departments.push(Name::parse(&value).map_err(|error| format!("department: {error}"))?);
            Ok(())
        }
    })?;
    if departments.len() > DEPARTMENTS_MAX {
        return Err(format!("there are more than {DEPARTMENTS_MAX} departments; leave out department to get all"));
    }
    let by = by
        .map_or(Ok(GroupKeys::default()), |text: String| GroupKeys::parse(&text))
        .map_err(|error| error.to_string())?;
    let range = parse_range([from, to, period], calendar, now)?;
    Ok(ReportQuery { range, group_by: by, departments })
}

fn parse_range(
    [from, to, period]: [Option<String>; 3],
    calendar: CalendarOffset,
    now: Window,
) -> Result<ReportRange, String> {
    let range = match period {
        Some(_) if from.is_some() || to.is_some() => return Err("give either period, or from and to".to_owned()),
        Some(period) => ReportRange::from_period(&period, calendar),
        None => ReportRange::parse(from.as_deref(), to.as_deref(), calendar, now),
    };
    let range = range.map_err(|error| error.to_string())?;
    if range.to.0 - range.from.0 > WINDOWS_MAX {
        return Err("the range is longer than a year; request at most a year, or use tallygate report usage".to_owned());
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<String, String> {
        let now = Window(498_700); // 2026-11-22T04:00:00Z
        let query = super::parse_query(query, CalendarOffset::default(), now)?;
        let departments: String = query.departments.iter().map(|name| format!(" {name}")).collect();
        Ok(format!("{} {} {}{departments}", query.range.from, query.range.to, query.group_by))
    }

    #[test]
    fn query_parameters_equal_the_command_line_options() {
        const KEYS: &str = "department,subsystem,command,outcome";
        for (query, expected) in [
            ("", format!("2026-10-31T16:00:00Z 2026-11-30T16:00:00Z {KEYS}")),
            ("from=2026-10-01&to=2026-10-02", format!("2026-09-30T16:00:00Z 2026-10-01T16:00:00Z {KEYS}")),
            (
                "from=2026-10-01T00:00:00%2B08:00&to=2026-10-01T01:00:00+08:00&by=day%2Coutcome",
                "2026-09-30T16:00:00Z 2026-09-30T17:00:00Z day,outcome".to_owned(),
            ),
            (
                "period=2026-10&department=police&department=fire&by=month",
                "2026-09-30T16:00:00Z 2026-10-31T16:00:00Z month police fire".to_owned(),
            ),
        ] {
            assert_eq!(parse(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn invalid_query_is_refused_with_its_reason() {
        for (query, reason) in [
            ("since=2026-10-01", "unknown parameter"),
            ("by=price", "cannot group by"),
            ("by=", "cannot group by"),
            ("from=2026-10-01&from=2026-10-02", "is repeated"),
            ("period=2026-10&from=2026-10-01", "either period, or"),
            ("period=october", "is not a period"),
            ("department=%20", "department"),
            ("from=%zz", "not percent-encoded"),
            ("from=%2", "not percent-encoded"),
            ("from=%+5", "not percent-encoded"),
            ("from=%ff", "not percent-encoded"),
            ("from=yesterday", "is not a date"),
            ("from=2020-01-01", "longer than a year"),
        ] {
            let problem = parse(query).expect_err(query);
            assert!(problem.contains(reason), "{query}: {problem}");
        }
    }
}
