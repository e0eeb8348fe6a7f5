//! Samples with timestamps as text: the Prometheus text format 0.0.4, and OpenMetrics 1.0.
//!
//! Sources: prometheus.io, "Exposition formats"; OpenMetrics 1.0, "Text format".
//!
//! Guarantees:
//! - Values are whole numbers, written without an exponent.
//! - Label values are escaped.
//!
//! Leaves to `hour_samples`: families and values.

use std::fmt::{self, Display, Formatter};
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleLabels<'a>(pub(crate) &'a [(&'static str, &'a str)]);

impl Display for SampleLabels<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut separator = "{";
        for (name, value) in self.0 {
            f.write_str(separator)?;
            write!(f, "{name}=\"")?;
            write_escaped(f, value)?;
            f.write_str("\"")?;
            separator = ",";
        }
        f.write_str(if self.0.is_empty() { "" } else { "}" })
    }
}

fn write_escaped(f: &mut Formatter<'_>, value: &str) -> fmt::Result {
    let mut parts = value.split_inclusive(['\\', '"', '\n']);
    parts.try_for_each(|part| match part.char_indices().next_back() {
        Some((end, '\n')) => write!(f, "{}\\n", &part[..end]),
        Some((end, special @ ('\\' | '"'))) => write!(f, "{}\\{special}", &part[..end]),
        _ => f.write_str(part),
    })
}

/// Writes families and samples in one format.
#[derive(Debug)]
pub(crate) struct SampleWriter<'a, W> {
    format: SampleFormat,
    out: &'a mut W,
}

impl<'a, W: Write> SampleWriter<'a, W> {
    pub(crate) fn new(format: SampleFormat, out: &'a mut W) -> Self {
        Self { format, out }
    }

    /// Begins a family. `note` is added to its help.
    pub(crate) fn begin_family(&mut self, family: &GaugeFamily, note: Option<&str>) -> io::Result<()> {
        let GaugeFamily { name, help } = family;
        let (space, note) = note.map_or(("", ""), |note| (" ", note));
        write!(self.out, "# HELP {name} {help}{space}{note}\n# TYPE {name} gauge\n")
    }

    /// Writes one sample. `at` are Unix seconds.
    pub(crate) fn write_sample(
        &mut self,
        family: &GaugeFamily,
        labels: SampleLabels<'_>,
        (value, at): (impl Display, i64),
    ) -> io::Result<()> {
        let milliseconds = match self.format {
            SampleFormat::Text => "000",
            SampleFormat::OpenMetrics => "",
        };
        writeln!(self.out, "{}{labels} {value} {at}{milliseconds}", family.name)
    }

    /// Ends the page.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self.format {
            SampleFormat::Text => Ok(()),
            SampleFormat::OpenMetrics => self.out.write_all(b"# EOF\n"),
        }
    }
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
            let mut writer = SampleWriter::new(format, &mut page);
            writer.begin_family(&FAMILY, None).expect("it is written");
            let labels = SampleLabels(&[("c", "d"), ("e", "f")]);
            writer.write_sample(&FAMILY, labels, (-7, 1_793_462_340)).expect("it is written");
            writer.write_sample(&FAMILY, SampleLabels(&[]), (0, 60)).expect("it is written");
            writer.finish().expect("it is written");
            assert_eq!(String::from_utf8(page).expect("text"), expected);
        }
    }

    #[test]
    fn label_values_are_escaped() {
        for (value, expected) in [
            ("", r#"{a=""}"#),
            ("交警", r#"{a="交警"}"#),
            (r"\", r#"{a="\\"}"#),
            ("x\"y\nz\\w", r#"{a="x\"y\nz\\w"}"#),
            ("\n\n", r#"{a="\n\n"}"#),
        ] {
            assert_eq!(SampleLabels(&[("a", value)]).to_string(), expected);
        }
    }
}
