//! Compiles the section `accessLog`.
//!
//! Guarantees: an outcome has one sample rate, that of its own name, or else that of its kind.
//!
//! Leaves to others: opening the output (`app`).

use std::path::Path;

use crate::config::document::{AccessLogDocument, AccessLogQueueDocument};
use crate::config::settings::access_log::{
    AccessLogFormat, AccessLogOutput, AccessLogSettings, AccessQueueLimits, SampleRates,
};
use crate::model::{Finished, Outcome, Refused};

use crate::config::compile::doc_path::DocPath;
use crate::config::compile::scalars;
use crate::config::compile::values::count_or;

/// The keywords of `accessLog.format`.
const FORMAT_KEYWORDS: [(&str, AccessLogFormat); 2] =
    [("json", AccessLogFormat::Json), ("logfmt", AccessLogFormat::Logfmt)];

/// The limits of `accessLog.queue.lines`: more lines than that are minutes of traffic.
const QUEUE_LINES_MAX: u64 = 1024 * 1024;
/// The limits of `accessLog.queue.bytes`. The smallest value holds a few long lines.
const QUEUE_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;

/// The smallest part of the commands that may have lines is one of so many.
const SAMPLE_MAX: u64 = 1_000_000_000;

/// Compiles `accessLog`; `None` if there is no such section.
pub(crate) fn compile_access_log(
    document: Option<&AccessLogDocument>,
    folder: &Path,
    place: &DocPath<'_>,
) -> Option<AccessLogSettings> {
    let document = document?;
    let format = document.format.as_deref().and_then(|text| {
        let parsed = scalars::parse_keyword(text, &FORMAT_KEYWORDS);
        place.key("format").value_or_problem(parsed)
    });
    Some(AccessLogSettings {
        output: compile_output(&document.output, folder, &place.key("output")),
        format: format.unwrap_or_default(),
        has_query: document.query.unwrap_or(false),
        sampling: compile_sampling(document, &place.key("sample")),
        queue: compile_queue(document.queue.as_ref(), &place.key("queue")),
    })
}

fn compile_output(text: &str, folder: &Path, place: &DocPath<'_>) -> AccessLogOutput {
    match text {
        "stdout" => AccessLogOutput::Stdout,
        "stderr" => {
            place.problem_with_hint("stderr has the log of the gateway itself", "write stdout, or the path of a file");
            AccessLogOutput::Stdout
        }
        "" => {
            place.problem("a path is missing; write stdout, or the path of a file");
            AccessLogOutput::Stdout
        }
        path => AccessLogOutput::File(folder.join(path)),
    }
}

/// The sample rates: first those of the kinds, then those of single outcomes.
fn compile_sampling(document: &AccessLogDocument, place: &DocPath<'_>) -> SampleRates {
    let rate = |key: &str| {
        let text = document.sample.get(key)?;
        place.key(key).value_or_problem(parse_sample(text))
    };
    let (finished, refused) = (rate("finished").unwrap_or(1), rate("refused").unwrap_or(1));
    let mut rates = SampleRates { finished: [finished; Finished::ALL.len()], refused: [refused; Refused::ALL.len()] };
    for name in document.sample.keys().filter(|name| !["finished", "refused"].contains(&name.as_str())) {
        let Some(outcome) = Outcome::all().find(|outcome| outcome.name() == name) else {
            unknown_outcome(name, place);
            continue;
        };
        let one_of = rate(name).unwrap_or(1);
        match outcome {
            Outcome::Finished(finished) => rates.finished[finished.index()] = one_of,
            Outcome::Refused(refused) => rates.refused[refused.index()] = one_of,
        }
    }
    rates
}

fn unknown_outcome(name: &str, place: &DocPath<'_>) {
    let names: Vec<_> = ["finished", "refused"].into_iter().chain(Outcome::all().map(Outcome::name)).collect();
    place.key(name).problem_with_hint(format!("{name:?} is no outcome"), format!("write one of {}", names.join(", ")));
}

/// Parses `all`, `none` or `1/N` into N; 0 stands for none.
pub(super) fn parse_sample(text: &str) -> Result<u32, String> {
    let bad = || format!("{text:?} is not a part of the commands; write all, none, or 1/N such as 1/100");
    match text {
        "all" => Ok(1),
        "none" => Ok(0),
        _ => {
            let one_of = text.strip_prefix("1/").filter(|digits| !digits.is_empty()).ok_or_else(bad)?;
            let is_plain = one_of.bytes().all(|byte| byte.is_ascii_digit()) && !one_of.starts_with('0');
            let one_of = is_plain.then(|| one_of.parse::<u64>().ok()).flatten().ok_or_else(bad)?;
            let one_of = (one_of <= SAMPLE_MAX).then_some(one_of).and_then(|one_of| u32::try_from(one_of).ok());
            one_of.ok_or_else(|| format!("{text:?} is too small; the smallest part is 1/{SAMPLE_MAX}"))
        }
    }
}

fn compile_queue(document: Option<&AccessLogQueueDocument>, place: &DocPath<'_>) -> AccessQueueLimits {
    let default = AccessQueueLimits::default();
    let Some(document) = document else { return default };
    if document.lines.is_some_and(|lines| lines > QUEUE_LINES_MAX) {
        place.key("lines").problem(format!("at most {QUEUE_LINES_MAX} lines may wait"));
    }
    let bytes = document.bytes.as_deref().and_then(|text| {
        let place = place.key("bytes");
        let bytes = place.value_or_problem(scalars::parse_size(text))?;
        if !QUEUE_BYTES.contains(&bytes) {
            place.problem(format!("{text} is not between 64KiB and 1GiB"));
        }
        usize::try_from(bytes).ok()
    });
    AccessQueueLimits {
        lines: count_or(document.lines, default.lines, &place.key("lines")),
        bytes: bytes.unwrap_or(default.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile_text;
    use crate::model::NameInterner;

    /// The result of a configuration with this section.
    fn compile(section: &str) -> Result<AccessLogSettings, Vec<(String, String)>> {
        let text = format!(
            r#"{{
                "listeners": [{{ "name": "a", "address": "127.0.0.1:1", "protocol": "http" }}],
                "ledger": {{ "path": "a.db" }}, "accessLog": {section},
                "departments": [{{ "id": "police", "callers": [{{ "dns": "police.example" }}] }}]
            }}"#
        );
        match compile_text(&text, Path::new("/etc/tallygate"), &NameInterner::default()) {
            Ok(read) => Ok(read.settings.access_log.expect("a section")),
            Err(problems) => Err(problems.0.into_iter().map(|one| (one.path, one.message)).collect()),
        }
    }

    #[test]
    fn a_section_with_its_output_alone_has_defaults() {
        let settings = compile(r#"{ "output": "log/access.log" }"#).expect("it is valid");
        assert_eq!(settings.output, AccessLogOutput::File("/etc/tallygate/log/access.log".into()));
        assert_eq!((settings.format, settings.has_query), (AccessLogFormat::Json, false));
        assert_eq!(settings.sampling, SampleRates::default());
        assert_eq!((settings.queue.lines, settings.queue.bytes), (16_384, 16_777_216));
    }

    #[test]
    fn every_key_is_taken() {
        let settings = compile(
            r#"{ "output": "stdout", "format": "logfmt", "query": true, "queue": { "lines": 8, "bytes": "64KiB" },
                 "sample": { "finished": "1/10", "ok": "1/100", "timeout": "all", "refused": "none", "forbidden": "1/1" } }"#,
        )
        .expect("it is valid");
        assert_eq!(settings.output, AccessLogOutput::Stdout);
        assert_eq!((settings.format, settings.has_query), (AccessLogFormat::Logfmt, true));
        assert_eq!(settings.queue, AccessQueueLimits { lines: 8, bytes: 65_536 });
        assert_eq!(settings.sampling.finished, [100, 10, 10, 10, 10, 1, 10, 10]);
        assert_eq!(settings.sampling.refused, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn each_fault_is_a_problem_at_its_path() {
        for (section, path, message) in [
            (r#"{ "output": "" }"#, "output", "a path is missing"),
            (r#"{ "output": "stderr" }"#, "output", "stderr has the log"),
            (r#"{ "output": "a", "format": "xml" }"#, "format", "\"xml\""),
            (r#"{ "output": "a", "sample": { "okay": "all" } }"#, "sample.okay", "\"okay\" is no outcome"),
            (r#"{ "output": "a", "sample": { "ok": "2/3" } }"#, "sample.ok", "\"2/3\" is not a part"),
            (r#"{ "output": "a", "sample": { "ok": "1/0" } }"#, "sample.ok", "\"1/0\" is not a part"),
            (r#"{ "output": "a", "sample": { "ok": "1/-3" } }"#, "sample.ok", "\"1/-3\" is not a part"),
            (r#"{ "output": "a", "sample": { "ok": "1/9999999999" } }"#, "sample.ok", "too small"),
            (r#"{ "output": "a", "queue": { "lines": 0 } }"#, "queue.lines", "at least 1"),
            (r#"{ "output": "a", "queue": { "lines": 1048577 } }"#, "queue.lines", "at most 1048576"),
            (r#"{ "output": "a", "queue": { "bytes": "63KiB" } }"#, "queue.bytes", "not between 64KiB and 1GiB"),
        ] {
            let problems = compile(section).expect_err(section);
            assert_eq!(problems.len(), 1, "{section}: {problems:?}");
            assert_eq!(problems[0].0, format!("accessLog.{path}"), "{section}");
            assert!(problems[0].1.contains(message), "{section}: {problems:?}");
        }
    }
}
