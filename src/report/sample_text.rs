//! Samples with timestamps as text: the Prometheus text format 0.0.4, and OpenMetrics 1.0.
//!
//! Sources: prometheus.io, "Exposition formats"; OpenMetrics 1.0, "Text format".
//!
//! Guarantees:
//! - Values are whole numbers, written without an exponent.
//! - Label values are escaped.
//!
//! Leaves to `hour_samples`: families and values.

use std::io::{self, Write};

/// The format of a page of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleFormat {
    /// The Prometheus text format 0.0.4: timestamps in milliseconds.
    Text,
    /// OpenMetrics 1.0: timestamps in seconds; the page ends with `# EOF`.
    OpenMetrics,
}

/// The declaration of a family of gauges.
#[derive(Debug)]
pub(crate) struct GaugeFamily {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
}

/// Label names with their values, in their order.
pub(crate) type SampleLabels<'a> = &'a [(&'static str, &'a str)];

/// Labels that every sample of a page has before its own. They make the samples of a file equal to those that a
/// Prometheus has scraped, which adds `job` and `instance`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommonLabels(Vec<(String, String)>);

/// The reason why texts are not [`CommonLabels`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommonLabel {
    /// The text is not a name and a value.
    #[error("{0:?} is not a label; write NAME=VALUE, with a name of letters, digits and _ that begins with a letter")]
    Malformed(String),
    /// The samples have a label of this name.
    #[error("the samples have a label {0} of their own; choose another name")]
    Taken(String),
    /// There are too many.
    #[error("there are more than {COMMON_LABELS_MAX} labels; name fewer")]
    TooMany,
}

/// The most labels that all samples of a page have in common.
const COMMON_LABELS_MAX: usize = 16;
/// The labels that samples have of their own.
const OWN_LABELS: [&str; 5] = ["department", "subsystem", "command", "period", "part"];

impl CommonLabels {
    /// Parses labels, each `NAME=VALUE`.
    pub fn parse(texts: &[String]) -> Result<Self, BadCommonLabel> {
        if texts.len() > COMMON_LABELS_MAX {
            return Err(BadCommonLabel::TooMany);
        }
        let mut labels: Vec<(String, String)> = Vec::new();
        for text in texts {
            let malformed = || BadCommonLabel::Malformed(text.clone());
            let (name, value) = text.split_once('=').filter(|(name, _)| is_label_name(name)).ok_or_else(malformed)?;
            if OWN_LABELS.contains(&name) || labels.iter().any(|(other, _)| other == name) {
                return Err(BadCommonLabel::Taken(name.to_owned()));
            }
            labels.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self(labels))
    }
}

/// Whether a text is the name of a label. A leading underscore is refused: Prometheus uses such names itself.
fn is_label_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Writes families and samples in one format.
#[derive(Debug)]
pub(crate) struct SampleWriter<'a, W> {
    format: SampleFormat,
    out: &'a mut W,
    common: CommonLabels,
}

impl<'a, W: Write> SampleWriter<'a, W> {
    pub(crate) fn new(format: SampleFormat, out: &'a mut W, common: CommonLabels) -> Self {
        Self { format, out, common }
    }

    /// Begins a family. `note` is added to its help.
    pub(crate) fn begin_family(&mut self, family: &GaugeFamily, note: Option<&str>) -> io::Result<()> {
        let GaugeFamily { name, help } = family;
        let (space, note) = note.map_or(("", ""), |note| (" ", note));
        write!(self.out, "# HELP {name} {help}{space}{note}\n# TYPE {name} gauge\n")
    }

    /// Writes one sample. `at` are Unix seconds. A page can have a million samples, so nothing is formatted twice.
    pub(crate) fn write_sample(
        &mut self,
        family: &GaugeFamily,
        labels: SampleLabels<'_>,
        (value, at): (impl itoa::Integer, i64),
    ) -> io::Result<()> {
        self.out.write_all(family.name.as_bytes())?;
        self.write_labels(labels)?;
        self.out.write_all(b" ")?;
        self.out.write_all(itoa::Buffer::new().format(value).as_bytes())?;
        self.out.write_all(b" ")?;
        self.out.write_all(itoa::Buffer::new().format(at).as_bytes())?;
        self.out.write_all(match self.format {
            SampleFormat::Text => b"000\n",
            SampleFormat::OpenMetrics => b"\n",
        })
    }

    fn write_labels(&mut self, labels: SampleLabels<'_>) -> io::Result<()> {
        let mut separator = b"{";
        let common = self.common.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in common.chain(labels.iter().copied()) {
            self.out.write_all(separator)?;
            self.out.write_all(name.as_bytes())?;
            self.out.write_all(b"=\"")?;
            write_escaped(self.out, value)?;
            self.out.write_all(b"\"")?;
            separator = b",";
        }
        if separator == b"," { self.out.write_all(b"}") } else { Ok(()) }
    }

    /// Ends the page.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self.format {
            SampleFormat::Text => Ok(()),
            SampleFormat::OpenMetrics => self.out.write_all(b"# EOF\n"),
        }
    }
}

fn write_escaped(out: &mut impl Write, value: &str) -> io::Result<()> {
    let mut parts = value.as_bytes().split_inclusive(|byte| matches!(byte, b'\\' | b'"' | b'\n'));
    parts.try_for_each(|part| match part.split_last() {
        Some((b'\n', begin)) => out.write_all(begin).and_then(|()| out.write_all(b"\\n")),
        Some((special @ (b'\\' | b'"'), begin)) => {
            out.write_all(begin)?;
            out.write_all(&[b'\\', *special])
        }
        _ => out.write_all(part),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: GaugeFamily = GaugeFamily { name: "a_b", help: "Help." };

    #[test]
    fn sample_is_written_in_both_formats() {
        for (format, expected) in [
            (
                SampleFormat::Text,
                "# HELP a_b Help.\n# TYPE a_b gauge\na_b{c=\"d\",e=\"f\"} -7 1793462340000\na_b 0 60000\n",
            ),
            (
                SampleFormat::OpenMetrics,
                "# HELP a_b Help.\n# TYPE a_b gauge\na_b{c=\"d\",e=\"f\"} -7 1793462340\na_b 0 60\n# EOF\n",
            ),
        ] {
            let mut page = Vec::new();
            let mut writer = SampleWriter::new(format, &mut page, CommonLabels::default());
            writer.begin_family(&FAMILY, None).expect("it is written");
            writer.write_sample(&FAMILY, &[("c", "d"), ("e", "f")], (-7, 1_793_462_340)).expect("it is written");
            writer.write_sample(&FAMILY, &[], (0, 60)).expect("it is written");
            writer.finish().expect("it is written");
            assert_eq!(String::from_utf8(page).expect("text"), expected);
        }
    }

    fn sample(common: &[&str], labels: SampleLabels<'_>) -> String {
        let common: Vec<_> = common.iter().map(|text| (*text).to_owned()).collect();
        let common = CommonLabels::parse(&common).expect("labels");
        let mut page = Vec::new();
        let mut writer = SampleWriter::new(SampleFormat::OpenMetrics, &mut page, common);
        writer.write_sample(&FAMILY, labels, (u64::MAX, 60)).expect("it is written");
        String::from_utf8(page).expect("text")
    }

    #[test]
    fn label_values_are_escaped() {
        for (value, expected) in [
            ("", r#"a_b{c=""} 18446744073709551615 60"#),
            ("交警", r#"a_b{c="交警"} 18446744073709551615 60"#),
            (r"\", r#"a_b{c="\\"} 18446744073709551615 60"#),
            ("x\"y\nz\\w", r#"a_b{c="x\"y\nz\\w"} 18446744073709551615 60"#),
            ("\n\n", r#"a_b{c="\n\n"} 18446744073709551615 60"#),
        ] {
            assert_eq!(sample(&[], &[("c", value)]), format!("{expected}\n"));
        }
    }

    #[test]
    fn common_labels_are_before_the_own_ones() {
        let expected = "a_b{job=\"hours\",instance=\"g:9090\",c=\"d\"} 18446744073709551615 60\n";
        assert_eq!(sample(&["job=hours", "instance=g:9090"], &[("c", "d")]), expected);
        assert_eq!(sample(&["x=a=b"], &[]), "a_b{x=\"a=b\"} 18446744073709551615 60\n");
    }

    #[test]
    fn invalid_common_labels_are_refused() {
        for (texts, reason) in [
            (vec!["job"], "\"job\" is not a label; write NAME=VALUE"),
            (vec!["=x"], "is not a label"),
            (vec!["9a=x"], "is not a label"),
            (vec!["__name__=x"], "is not a label"),
            (vec!["a-b=x"], "is not a label"),
            (vec!["department=x"], "the samples have a label department of their own"),
            (vec!["a=1", "a=2"], "the samples have a label a of their own"),
            (vec!["a=1"; 17], "there are more than 16 labels"),
        ] {
            let texts: Vec<_> = texts.into_iter().map(str::to_owned).collect();
            let refusal = CommonLabels::parse(&texts).expect_err(reason).to_string();
            assert!(refusal.contains(reason), "{refusal}");
        }
    }
}
