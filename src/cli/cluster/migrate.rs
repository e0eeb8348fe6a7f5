//! `tallygate migrate --from ingress-nginx`: what becomes of Ingresses that another controller has served.
//!
//! Guarantees:
//! - Each annotation has one line: what becomes of it, its value, and one sentence.
//! - Values are escaped, and colours are on terminals only.
//! - The exit code is 0 if nothing is lost, 1 if something is, and 2 for input that cannot be read.
//!
//! Leaves to others: the meaning of annotations (`kube::translate::nginx`).

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::config::parse_values;
use crate::kube::objects::{ConfigMap, Ingress, Metadata, ObjectKey, parse_object, without_nulls};
use crate::kube::translate::nginx::{
    AnnotationMap, FindingVerdict, NginxFinding, PREFIX, global_findings, read_annotations,
};

use crate::cli::check::plural;
use crate::cli::{BadUsage, NOT_SO, OutputFormat};

/// The most bytes of one input. A cluster of 5,000 Ingresses has about 20 MiB.
const INPUT_BYTES_MAX: u64 = 256 << 20;
/// The name for standard input.
const STDIN: &str = "-";
/// The longest value in a line, in bytes; JSON has the whole value.
const VALUE_BYTES_MAX: usize = 120;

/// The controller that Ingresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrationSource {
    /// kubernetes/ingress-nginx
    IngressNginx,
}

/// Arguments of `tallygate migrate`.
#[derive(Debug, clap::Args)]
pub struct MigrateArgs {
    /// The controller that the Ingresses come from
    #[arg(long, value_enum)]
    from: MigrationSource,
    /// YAML or JSON with Ingresses and the controller's ConfigMap, as kubectl prints them; - for standard input
    #[arg(long, value_name = "FILE", default_value = STDIN)]
    file: Vec<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
}

/// What becomes of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MigratedObject {
    kind: &'static str,
    key: ObjectKey,
    class: Option<String>,
    findings: Vec<NginxFinding>,
    /// Defaults of the other controller that are missing here.
    notes: Vec<String>,
}

/// What was read.
#[derive(Debug, Default)]
struct MigrationReport {
    objects: Vec<MigratedObject>,
    /// The number of objects of other kinds.
    others: usize,
}

/// Reads objects and prints what becomes of them.
pub fn migrate(args: &MigrateArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let MigrationSource::IngressNginx = args.from;
    let mut report = MigrationReport::default();
    for path in &args.file {
        let text = read_input(path)?;
        let name = shown_name(path);
        let documents = parse_values(&text).map_err(|problem| BadUsage(format!("{name}: {problem}")))?;
        for document in documents {
            report.add(document).map_err(|why| BadUsage(format!("{name}: {why}")))?;
        }
    }
    match args.format {
        OutputFormat::Json => writeln!(out, "{:#}", report.json())?,
        OutputFormat::Table => write!(out, "{}", report.text(io::stdout().is_terminal()))?,
    }
    Ok(if report.count(FindingVerdict::Lost) == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) })
}

fn shown_name(path: &Path) -> String {
    if path.as_os_str() == STDIN { "standard input".to_owned() } else { path.display().to_string() }
}

fn read_input(path: &Path) -> Result<String, BadUsage> {
    let name = shown_name(path);
    let unreadable = |error: io::Error| BadUsage(format!("{name} cannot be read: {error}"));
    let source: Box<dyn Read> = match path.as_os_str() == STDIN {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(path).map_err(unreadable)?),
    };
    let mut text = String::new();
    source.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > INPUT_BYTES_MAX {
        return Err(BadUsage(format!("{name} has more than {INPUT_BYTES_MAX} bytes; split it into several files")));
    }
    Ok(text)
}

impl MigrationReport {
    /// Adds an object, or the items of a list.
    ///
    /// # Errors
    /// The place of the fault of an object that cannot be read.
    fn add(&mut self, mut object: Value) -> Result<(), String> {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(item) = kind.strip_suffix("List") {
            let items = object.get_mut("items").map(Value::take).unwrap_or_default();
            let Value::Array(items) = items else { return Err(format!("{kind}: items is not a list")) };
            for mut object in items {
                if let (Some(fields), false) = (object.as_object_mut(), item.is_empty()) {
                    fields.entry("kind").or_insert_with(|| json!(item)); // lists of one kind leave it out
                }
                self.add(object)?;
            }
            return Ok(());
        }
        match kind.as_str() {
            "Ingress" => self.add_ingress(object),
            "ConfigMap" => self.add_config_map(object),
            "" => Err("an object has no kind; expected what kubectl get ingress -A -o yaml prints".to_owned()),
            _ => {
                self.others += 1;
                Ok(())
            }
        }
    }

    fn add_ingress(&mut self, mut object: Value) -> Result<(), String> {
        let meta = take_metadata(&mut object)?;
        let key = meta.key();
        let ingress: Ingress = parse_object(object).map_err(|fault| format!("Ingress {key}: {fault}"))?;
        let plan = read_annotations(&key.namespace, &ingress, &meta.annotations);
        let old_class = meta.annotation("kubernetes.io/ingress.class");
        let class = ingress.ingress_class_name.as_deref().or(old_class).map(str::to_owned);
        let notes = missing_defaults(&ingress, &meta.annotations);
        self.objects.push(MigratedObject { kind: "Ingress", key, class, findings: plan.findings, notes });
        Ok(())
    }

    /// Adds the ConfigMap of the controller. Others, such as those of `custom-headers`, have no global value.
    fn add_config_map(&mut self, mut object: Value) -> Result<(), String> {
        let meta = take_metadata(&mut object)?;
        let key = meta.key();
        let map: ConfigMap = parse_object(object).map_err(|fault| format!("ConfigMap {key}: {fault}"))?;
        let looks_global = key.name.contains("nginx") || key.name.contains("ingress");
        if !looks_global {
            self.others += 1;
            return Ok(());
        }
        let findings = global_findings(map.data.iter().map(|(name, value)| (&**name, &**value)));
        self.objects.push(MigratedObject { kind: "ConfigMap", key, class: None, findings, notes: Vec::new() });
        Ok(())
    }

    fn findings(&self) -> impl Iterator<Item = &NginxFinding> {
        self.objects.iter().flat_map(|object| &object.findings)
    }

    fn count(&self, verdict: FindingVerdict) -> usize {
        self.findings().filter(|finding| finding.verdict == verdict).count()
    }

    fn refused(&self) -> usize {
        let is_refused = |object: &&MigratedObject| {
            object.kind == "Ingress" && object.findings.iter().any(|finding| finding.refuses)
        };
        self.objects.iter().filter(is_refused).count()
    }

    fn ingresses(&self) -> usize {
        self.objects.iter().filter(|object| object.kind == "Ingress").count()
    }

    fn text(&self, is_terminal: bool) -> String {
        let mut text: String = self.objects.iter().map(|object| object_text(object, is_terminal)).collect();
        let count = |verdict| self.count(verdict);
        text += &format!(
            "{}: {} taken, {} differ, {} lost; {} would be refused\n",
            plural_ingresses(self.ingresses()),
            count(FindingVerdict::Taken),
            count(FindingVerdict::Differs),
            count(FindingVerdict::Lost),
            plural_ingresses(self.refused()),
        );
        if self.others > 0 {
            text += &format!("{} of other kinds not read\n", plural(self.others, "object"));
        }
        text
    }

    fn json(&self) -> Value {
        let finding = |finding: &NginxFinding| {
            json!({
                "annotation": finding.annotation,
                "value": finding.value,
                "verdict": finding.verdict.word(),
                "refuses": finding.refuses,
                "sentence": finding.sentence,
            })
        };
        let object = |object: &MigratedObject| {
            json!({
                "kind": object.kind,
                "namespace": &*object.key.namespace,
                "name": &*object.key.name,
                "class": object.class,
                "findings": object.findings.iter().map(finding).collect::<Vec<_>>(),
                "notes": object.notes,
            })
        };
        json!({
            "objects": self.objects.iter().map(object).collect::<Vec<_>>(),
            "summary": {
                "ingresses": self.ingresses(),
                "taken": self.count(FindingVerdict::Taken),
                "differs": self.count(FindingVerdict::Differs),
                "lost": self.count(FindingVerdict::Lost),
                "refused": self.refused(),
                "others": self.others,
            },
        })
    }
}

fn plural_ingresses(count: usize) -> String {
    if count == 1 { "1 Ingress".to_owned() } else { format!("{count} Ingresses") }
}

fn take_metadata(object: &mut Value) -> Result<Metadata, String> {
    let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_default();
    serde_path_to_error::deserialize(without_nulls(metadata))
        .map_err(|error| format!("metadata.{}: {}", error.path(), error.inner()))
}

/// Defaults of ingress-nginx that an Ingress relies on, and that are not those here.
fn missing_defaults(ingress: &Ingress, annotations: &AnnotationMap) -> Vec<String> {
    let has = |name: &str| annotations.contains_key(format!("{PREFIX}{name}").as_str());
    let mut notes = Vec::new();
    let has_tls = ingress.tls.iter().any(|tls| !tls.hosts.is_empty());
    if has_tls && !has("ssl-redirect") && !has("force-ssl-redirect") {
        let note = "ingress-nginx redirects hosts with TLS to HTTPS by default; write ssl-redirect: \"true\"";
        notes.push(note.to_owned());
    }
    if !has("proxy-body-size") {
        notes.push("ingress-nginx refuses bodies above 1m by default; here they may have 1 GiB".to_owned());
    }
    notes
}

fn object_text(object: &MigratedObject, is_terminal: bool) -> String {
    let class = object.class.as_ref().map(|class| format!(" (class {})", escaped(class))).unwrap_or_default();
    let mut text = format!("{} {}{class}\n", object.kind, escaped(&object.key.to_string()));
    for finding in &object.findings {
        let word = coloured(finding.verdict, is_terminal);
        let value = shortened(&escaped(&finding.value));
        text += &format!("  {word} {}: \"{value}\"  {}\n", escaped(&finding.annotation), finding.sentence);
    }
    if object.findings.is_empty() {
        text += "  no annotations of ingress-nginx\n";
    }
    for note in &object.notes {
        text += &format!("  default {note}\n");
    }
    text + "\n"
}

/// The word in a column of its own.
fn coloured(verdict: FindingVerdict, is_terminal: bool) -> String {
    let word = format!("{:<7}", verdict.word());
    let colour = match verdict {
        FindingVerdict::Taken => 32,
        FindingVerdict::Differs => 33,
        FindingVerdict::Lost => 31,
    };
    if is_terminal { format!("\u{1b}[{colour}m{word}\u{1b}[0m") } else { word }
}

/// Without line ends and control characters: a value may hold anything.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|letter| if letter.is_control() { letter.escape_default().collect() } else { vec![letter] })
        .collect()
}

fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(VALUE_BYTES_MAX);
    if end < text.len() { format!("{}...", &text[..end]) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Result<MigrationReport, String> {
        let mut report = MigrationReport::default();
        for document in parse_values(text).map_err(|problem| problem.to_string())? {
            report.add(document)?;
        }
        Ok(report)
    }

    #[test]
    fn objects_come_alone_and_in_lists() {
        let one = r#"{"kind": "Ingress", "metadata": {"name": "a", "namespace": "n"}, "spec": null}"#;
        for (text, ingresses, others) in [
            (one.to_owned(), 1, 0),
            (format!("{one}\n---\n{one}\n---\n"), 2, 0),
            (format!("{{\"kind\": \"List\", \"items\": [{one}, {{\"kind\": \"Pod\"}}]}}"), 1, 1),
            ("{kind: IngressList, items: [{metadata: {name: a}, spec: {}}]}".to_owned(), 1, 0),
            ("{kind: IngressList, items: []}".to_owned(), 0, 0),
        ] {
            let report = report(&text).expect("readable");
            assert_eq!((report.ingresses(), report.others), (ingresses, others), "{text}");
        }
    }

    #[test]
    fn unreadable_objects_are_named() {
        for (text, why) in [
            ("{a: 1}", "no kind"),
            ("{kind: List, items: 3}", "items is not a list"),
            ("{kind: Ingress, metadata: {name: a, namespace: shop}, spec: {rules: 3}}", "Ingress shop/a: spec.rules"),
            ("{kind: Ingress, metadata: {name: [a]}}", "metadata.name"),
            ("{kind: Ingress", "the text"),
        ] {
            let error = report(text).map(|_| ()).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn values_are_escaped_and_shortened() {
        assert_eq!(escaped("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(shortened(&"ü".repeat(100)).len(), 123);
        assert_eq!(coloured(FindingVerdict::Lost, false), "lost   ");
        assert!(coloured(FindingVerdict::Lost, true).starts_with('\u{1b}'));
    }

    #[test]
    fn defaults_that_an_ingress_relies_on_are_noted() {
        let text = "{kind: Ingress, metadata: {name: a}, spec: {tls: [{hosts: [a.example]}]}}";
        assert_eq!(report(text).expect("readable").objects[0].notes.len(), 2);
    }
}
