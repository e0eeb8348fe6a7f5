//! A page of metrics in the Prometheus text format 0.0.4, from text to samples.
//!
//! Guarantees: values are exact to a millionth; a page is used whole or not at all.
//! Source of the format: prometheus.io, "Exposition formats".

use std::collections::BTreeMap;

/// The unit of values.
pub(super) const ONE: i128 = 1_000_000;

/// A sample of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExposedSample {
    pub(super) labels: BTreeMap<String, String>,
    /// The value in millionths. Digits beyond them are cut off.
    pub(super) millionths: i128,
}

/// The samples of a page, by the names of their series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exposition {
    series: BTreeMap<String, Vec<ExposedSample>>,
}

/// A line that is no sample.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number} is not a sample: {line}")]
pub(super) struct BadExposition {
    number: usize,
    pub(super) line: String,
}

impl Exposition {
    /// Parses a page.
    pub(super) fn parse(page: &str) -> Result<Self, BadExposition> {
        let mut series: BTreeMap<String, Vec<ExposedSample>> = BTreeMap::new();
        for (number, line) in (1..).zip(page.lines()) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, sample) = parse_sample(line).ok_or_else(|| BadExposition { number, line: line.to_owned() })?;
            match series.get_mut(name) {
                Some(samples) => samples.push(sample),
                None => drop(series.insert(name.to_owned(), vec![sample])),
            }
        }
        Ok(Self { series })
    }

    /// The samples of a name.
    pub(super) fn samples(&self, name: &str) -> &[ExposedSample] {
        self.series.get(name).map_or(&[], Vec::as_slice)
    }

    /// The sum of all samples of a name, in millionths; `None` without samples.
    pub(super) fn sum(&self, name: &str) -> Option<i128> {
        let samples = self.samples(name);
        (!samples.is_empty()).then(|| samples.iter().map(|sample| sample.millionths).sum())
    }

    /// The sums of a name by one label, in millionths.
    pub(super) fn sums_by(&self, name: &str, label: &str) -> BTreeMap<&str, i128> {
        let mut sums = BTreeMap::new();
        for sample in self.samples(name) {
            *sums.entry(sample.label(label)).or_default() += sample.millionths;
        }
        sums
    }

    /// A label of the first sample of a name.
    pub(super) fn label(&self, name: &str, label: &str) -> Option<&str> {
        self.samples(name).first().map(|sample| sample.label(label))
    }
}

impl ExposedSample {
    /// The value of a label; empty without it.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

fn parse_sample(line: &str) -> Option<(&str, ExposedSample)> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => parse_labels(inside)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?;
    Some((name, ExposedSample { labels, millionths: parse_millionths(value)? }))
}

/// Parses labels up to the closing brace. Returns what follows it.
fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = parse_quoted(quoted)?;
        labels.insert(name.to_owned(), value);
        rest = after;
    }
}

/// Parses a label value up to its closing quote. Returns what follows it.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return text.get(place + 1..).map(|after| (value, after)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}

/// Parses a decimal number as millionths, without a float.
pub(super) fn parse_millionths(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, places) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !(whole.bytes().chain(places.bytes()).all(|digit| digit.is_ascii_digit())) {
        return None;
    }
    let places = places.get(..places.len().min(6))?;
    let fraction: i128 = format!("{places:0<6}").parse().ok()?;
    Some(sign * (whole.parse::<i128>().ok()?.checked_mul(ONE)? + fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_samples_with_labels() {
        let page = "# HELP a A thing.\n# TYPE a counter\na{b=\"c\",d=\"say \\\"x\\\\y\\\"\\n\"} 12\na{b=\"c\"} 0.5 1793462340000\n\
                    e -3\nf{} 1700000000.1234567\n";
        let page = Exposition::parse(page).expect("a page");
        assert_eq!(page.samples("a")[0].label("d"), "say \"x\\y\"\n");
        assert_eq!(page.sums_by("a", "b"), [("c", 12_500_000)].into());
        assert_eq!((page.sum("e"), page.sum("f"), page.sum("g")), (Some(-3 * ONE), Some(1_700_000_000_123_456), None));
        assert_eq!((page.label("a", "b"), page.label("a", "x"), page.label("g", "b")), (Some("c"), Some(""), None));
    }

    #[test]
    fn text_that_is_no_sample_is_refused() {
        for line in ["<html>", "a", "a x", "a{b=\"c} 1", "a{b} 1", "a 1.2.3", "a 1e5", "a NaN", "a .5"] {
            let error = Exposition::parse(&format!("a 1\n{line}\n")).expect_err(line);
            assert_eq!(error.to_string(), format!("line 2 is not a sample: {line}"));
        }
    }
}
