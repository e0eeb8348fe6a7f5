//! `tallygate migrate`: what becomes of the Ingresses of ingress-nginx.

use std::fs::{self, File};
use std::process::Output;

use serde_json::Value;

use crate::world::{World, run, stderr, stdout};

const SAMPLE: &str = include_str!("../data/ingress-nginx.yaml");

/// Runs `tallygate migrate` on files of a world whose gateway is never started.
async fn migrate(files: &[(&str, &str)], more: &[&str]) -> Output {
    let mut world = World::city().build();
    let mut arguments = vec!["migrate", "--from", "ingress-nginx"];
    for (name, text) in files {
        fs::write(world.folder().join(name), text).unwrap();
        arguments.extend(["--file", name]);
    }
    arguments.extend(more);
    let output = run(world.tallygate(&arguments)).await;
    world.abandon();
    output
}

#[tokio::test]
async fn each_annotation_has_a_line_with_what_becomes_of_it() {
    let migrated = migrate(&[("sample.yaml", SAMPLE)], &[]).await;
    let text = stdout(&migrated);
    assert_eq!(migrated.status.code(), Some(1), "{text}{}", stderr(&migrated));
    for line in [
        "Ingress shop/cart (class nginx)",
        "  taken   ssl-redirect: \"true\"  ",
        "  taken   proxy-body-size: \"8m\"  ",
        "  differs rewrite-target: \"/$2\"  ",
        "  taken   limit-rps: \"20\"  ",
        "  taken   affinity: \"cookie\"  ",
        "  lost    something-new: \"1\"  this annotation is unknown",
        "  lost    configuration-snippet: \"if ($http_x_token != \"secret\") {\\n  return 403;\\n}\\n\"  ",
        "  taken   whitelist-source-range: \"10.0.0.0/8\"  ",
        "ConfigMap ingress-nginx/ingress-nginx-controller",
        "  default ingress-nginx refuses bodies above 1m",
        "3 Ingresses: 10 taken, 2 differ, 3 lost; 1 Ingress would be refused",
        "1 object of other kinds not read",
    ] {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours in a pipe");
}

#[tokio::test]
async fn json_has_the_whole_values_and_a_summary() {
    let migrated = migrate(&[("sample.yaml", SAMPLE)], &["--format", "json"]).await;
    let report: Value = serde_json::from_str(&stdout(&migrated)).unwrap();
    assert_eq!(report["summary"]["ingresses"], 3);
    assert_eq!(report["summary"]["refused"], 1);
    let admin = report["objects"].as_array().unwrap().iter().find(|object| object["name"] == "admin").unwrap();
    let snippet = admin["findings"].as_array().unwrap().iter().find(|one| one["annotation"] == "configuration-snippet");
    let snippet = snippet.unwrap();
    assert!(snippet["value"].as_str().unwrap().contains("return 403;\n"));
    assert_eq!((&snippet["verdict"], &snippet["refuses"]), (&Value::from("lost"), &Value::from(true)));
}

#[tokio::test]
async fn exit_code_is_zero_without_losses_and_two_for_unreadable_input() {
    let ingress = "{kind: Ingress, metadata: {namespace: shop, name: i, annotations: \
                   {nginx.ingress.kubernetes.io/ssl-redirect: \"false\"}}, spec: {}}";
    for (text, code, words) in [
        (ingress, 0, "1 Ingress: 1 taken, 0 differ, 0 lost"),
        ("", 0, "0 Ingresses"),
        ("{kind: Ingress", 2, "input.yaml"),
        ("[1]", 2, "no kind"),
        ("{kind: Ingress, metadata: {name: i}, spec: {rules: 3}}", 2, "Ingress i: spec.rules"),
    ] {
        let migrated = migrate(&[("input.yaml", text)], &[]).await;
        let said = format!("{}{}", stdout(&migrated), stderr(&migrated));
        assert_eq!(migrated.status.code(), Some(code), "{text}: {said}");
        assert!(said.contains(words), "{text}: {said}");
    }
    let missing = migrate(&[], &["--file", "missing.yaml"]).await;
    assert_eq!(missing.status.code(), Some(2), "{}", stderr(&missing));
    assert!(stderr(&missing).contains("missing.yaml cannot be read"), "{}", stderr(&missing));
}

#[tokio::test]
async fn standard_input_is_read_by_default() {
    let mut world = World::city().build();
    let input = world.folder().join("sample.yaml");
    fs::write(&input, SAMPLE).unwrap();
    let mut command = world.tallygate(&["migrate", "--from", "ingress-nginx"]);
    command.stdin(File::open(input).unwrap());
    let output = run(command).await;
    assert!(stdout(&output).contains("3 Ingresses"), "{}{}", stdout(&output), stderr(&output));
    world.abandon();
}
