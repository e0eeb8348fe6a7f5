//! `GET /api/v1/usage?from=&to=&by=`: the same answer as `report usage --format json`.

use http::StatusCode;

use crate::model::{CalendarOffset, Window};
use crate::report::{By, Range, Usage, render};

use super::AdminState;
use super::answer::{Answer, JSON, answer, problem};
use super::endpoint::unavailable;

/// The longest range one request may ask for: a leap year and a day on either side. Longer ones are for `report usage`,
/// which does not share its memory with traffic.
const WINDOWS_MAX: u32 = 368 * 24;

/// What a query asks for.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    range: Range,
    by: By,
}

pub(super) async fn usage(state: &AdminState, query: &str) -> Answer {
    let view = (state.view)();
    let question = match Question::parse(query, view.calendar, view.window) {
        Ok(question) => question,
        Err(problems) => return problem(StatusCode::BAD_REQUEST, &problems),
    };
    match answered(state, question, view.calendar).await {
        Ok(text) => answer(StatusCode::OK, JSON, text),
        Err(error) => unavailable(&error),
    }
}

async fn answered(state: &AdminState, question: Question, calendar: CalendarOffset) -> anyhow::Result<String> {
    let windows = question.range.windows();
    let rows = match question.by.knows_no_time() {
        true => state.ledger.usage_in_whole(windows).await,
        false => state.ledger.usage_by_day(windows).await,
    }?;
    let usage = Usage::group(&rows, question.range, calendar, question.by)?;
    Ok(render::json(&usage.with_adjustments(state.ledger.adjustments().await?))?)
}

impl Question {
    fn parse(query: &str, calendar: CalendarOffset, now: Window) -> Result<Self, String> {
        let (mut from, mut to, mut by) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "from" => &mut from,
                "to" => &mut to,
                "by" => &mut by,
                _ => return Err(format!("{name:?} is not asked for here; there are from, to and by")),
            };
            let value = decoded(value).ok_or_else(|| format!("the value of {name} is not percent-encoded text"))?;
            if place.replace(value).is_some() {
                return Err(format!("{name} stands twice; write it once"));
            }
        }
        let by = by.map_or(Ok(By::default()), |text: String| By::parse(&text)).map_err(|error| error.to_string())?;
        let range = Range::parse(from.as_deref(), to.as_deref(), calendar, now).map_err(|error| error.to_string())?;
        if range.to.0 - range.from.0 > WINDOWS_MAX {
            return Err("the range is longer than a year; ask year by year, or use tallygate report usage".to_owned());
        }
        Ok(Self { range, by })
    }
}

/// Undoes percent-encoding (RFC 3986 section 2.1). A `+` stays one: here it stands in offsets, and no value has a space.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (pair, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<String, String> {
        let now = Window(498_700); // 2026-11-22T04:00:00Z
        let question = Question::parse(query, CalendarOffset::default(), now)?;
        Ok(format!("{} {} {}", question.range.from, question.range.to, question.by))
    }

    #[test]
    fn a_query_asks_as_the_command_line_does() {
        const KEYS: &str = "department,subsystem,command,outcome";
        for (query, expected) in [
            ("", format!("2026-10-31T16:00:00Z 2026-11-30T16:00:00Z {KEYS}")),
            ("from=2026-10-01&to=2026-10-02", format!("2026-09-30T16:00:00Z 2026-10-01T16:00:00Z {KEYS}")),
            (
                "from=2026-10-01T00:00:00%2B08:00&to=2026-10-01T01:00:00+08:00&by=day%2Coutcome",
                "2026-09-30T16:00:00Z 2026-09-30T17:00:00Z day,outcome".to_owned(),
            ),
        ] {
            assert_eq!(parse(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn a_wrong_query_is_told_what_is_wrong() {
        for (query, said) in [
            ("since=2026-10-01", "is not asked for here"),
            ("by=price", "cannot group by"),
            ("by=", "cannot group by"),
            ("from=2026-10-01&from=2026-10-02", "stands twice"),
            ("from=%zz", "not percent-encoded"),
            ("from=%2", "not percent-encoded"),
            ("from=yesterday", "is not a date"),
            ("from=2020-01-01", "longer than a year"),
        ] {
            let problem = parse(query).expect_err(query);
            assert!(problem.contains(said), "{query}: {problem}");
        }
    }
}
