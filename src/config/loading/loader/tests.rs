//! Tests with configurations of several files (`include`), and with a large number of departments.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use crate::config::compile_text;
use crate::config::loading::source_set::SharedDocuments;

use super::*;

mod reuse;

const MAIN: &str = "\
ledger: { path: l.db }
listeners: [{ name: a, address: \"127.0.0.1:1\", tls: { certificate: c, key: k } }]
include: [\"teams.d/*.yaml\"]
departments:
  - id: police
    callers: [{ dns: police }]
subsystems:
  - { id: cameras, upstreams: [{ url: \"http://127.0.0.1:1\" }], otherCommands: allow }
";

/// A folder with a configuration of several files.
struct LoaderBench(tempfile::TempDir);

impl LoaderBench {
    fn with(files: &[(&str, &str)]) -> Self {
        let desk = Self(tempfile::tempdir().expect("a folder"));
        fs::create_dir(desk.0.path().join("teams.d")).expect("a folder");
        desk.write("gateway.yaml", MAIN);
        files.iter().for_each(|(name, text)| desk.write(name, text));
        desk
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("a file");
    }

    fn loader(&self) -> ConfigLoader {
        ConfigLoader::new(&self.0.path().join("gateway.yaml"), Clock::system())
    }

    /// The problems other than the missing certificates, with paths relative to the folder.
    fn problems(&self, loader: &mut ConfigLoader) -> Vec<String> {
        let found = loader.load(&NameInterner::default()).configuration.expect_err("no certificate is present").0;
        let others = found.iter().filter(|problem| !problem.path.starts_with("listeners[0].tls"));
        let folder = format!("{}/", self.0.path().display());
        others.map(|problem| problem.to_string().replace(&folder, "")).collect()
    }
}

#[test]
fn each_team_can_own_its_files() {
    let fire = "departments:\n  - id: fire\n    callers: [{ dns: fire }]\n    limits: { rate: 7/s }\n";
    let grant = "grants:\n  - { department: fire, subsystem: lab, commands: [\"*\"] }\n";
    let lab = "subsystems:\n  - { id: lab, path: /lab, upstreams: [{ url: \"http://127.0.0.1:1\" }], otherCommands: allow }\n";
    let desk =
        LoaderBench::with(&[("teams.d/fire.yaml", fire), ("teams.d/grants.yaml", grant), ("teams.d/lab.yaml", lab)]);
    assert_eq!(desk.problems(&mut desk.loader()), [""; 0]);
}

#[test]
fn problems_name_file_line_and_id() {
    let fire =
        "# the fire brigade\ndepartments:\n  - id: fire\n    callers: [{ dns: fire }]\n    limits:\n      rate: fast\n";
    let lab = "subsystems:\n  - id: lab\n    path: /lab\n    upstreams: [{ url: \"http://127.0.0.1:1\" }]\n    commands:\n      \
               - { id: read, match: { path: a } }\n      - { id: write, match: { paht: /b } }\n";
    let desk = LoaderBench::with(&[("teams.d/fire.yaml", fire), ("teams.d/lab.yaml", lab)]);
    desk.write("gateway.yaml", &format!("{MAIN}grants: [{{ department: fier, subsystem: lab, commands: [\"*\"] }}]\n"));
    let mut loader = desk.loader();
    let expected = [
        "teams.d/lab.yaml:7: subsystems[0] (lab).commands[1] (write).match.paht: unknown key (did you mean \"path\"?)",
        "teams.d/fire.yaml:6: departments[0] (fire).limits.rate: \"fast\" is not a rate; write N/s, N/m or N/h",
        "teams.d/lab.yaml:6: subsystems[0] (lab).commands[0] (read).match.path: \"a\" does not start with '/'",
        "teams.d/lab.yaml:7: subsystems[0] (lab).commands[1] (write).match.path: is missing; write a path, or grpc: \
         package.Service/Method",
        "gateway.yaml:9: grants[0].department: there is no department \"fier\" (did you mean \"fire\"?)",
    ];
    assert_eq!(desk.problems(&mut loader), expected);
    assert_eq!(desk.problems(&mut loader), expected, "the same result again, although the files have not changed");
    let found = loader.load(&NameInterner::default()).configuration.expect_err("wrong").0;
    let json = serde_json::to_value(&found[1]).expect("JSON");
    assert_eq!((&json["line"], &json["column"], &json["id"]), (&6.into(), &13.into(), &"fire".into()), "{json}");
    assert_eq!(json["path"], "departments[0].limits.rate");
    assert!(json["file"].as_str().is_some_and(|file| file.ends_with("teams.d/fire.yaml")), "{json}");
    let nested = serde_json::to_value(&found[2]).expect("JSON");
    assert_eq!(nested["id"], "lab/read");
}

#[test]
fn duplicates_are_reported_with_both_positions() {
    let twin =
        "departments:\n  - id: police\n    callers: [{ dns: second }]\n  - id: fire\n    callers: [{ dns: police }]\n";
    let root =
        "subsystems:\n  - id: root\n    upstreams: [{ url: \"http://127.0.0.1:1\" }]\n    otherCommands: allow\n";
    let desk = LoaderBench::with(&[("teams.d/a.yaml", twin), ("teams.d/b.yaml", root)]);
    assert_eq!(
        desk.problems(&mut desk.loader()),
        [
            "teams.d/a.yaml:2: departments[0] (police).id: \"police\" is the id of two departments; see also \
             gateway.yaml:5: departments[0] (police).id",
            "teams.d/a.yaml:5: departments[1] (fire).callers[0]: dns:police is already claimed by department police; \
             see also gateway.yaml:5: departments[0] (police)",
            "teams.d/b.yaml:2: subsystems[0] (root).path: the same path on any host already belongs to cameras; see \
             also gateway.yaml:8: subsystems[0] (cameras)",
        ]
    );
}

#[test]
fn only_the_main_file_has_settings_and_includes() {
    let desk = LoaderBench::with(&[("teams.d/a.yaml", "include: [x.yaml]\nworkers: 2\ndepartment: []\n")]);
    let here = "(allowed here: listeners, departments, subsystems, backends, grants)";
    assert_eq!(
        desk.problems(&mut desk.loader()),
        [
            format!(
                "teams.d/a.yaml:1: include: is not allowed in an included file; only the main file may have it {here}"
            ),
            format!(
                "teams.d/a.yaml:2: workers: is not allowed in an included file; only the main file may have it {here}"
            ),
            "teams.d/a.yaml:3: department: unknown key (did you mean \"departments\"?)".to_owned(),
        ]
    );
}

#[test]
fn unreadable_files_are_problems_and_empty_ones_are_not() {
    let desk = LoaderBench::with(&[("teams.d/empty.yaml", ""), ("teams.d/silent.yaml", "# nothing\n\n")]);
    desk.write("teams.d/broken.yaml", "departments:\n  - id: \"x\n");
    fs::write(desk.0.path().join("teams.d/latin.yaml"), b"# caf\xe9\n").expect("a file");
    desk.write("gateway.yaml", &MAIN.replace("*.yaml\"]", "*.yaml\", missing.yaml, teams.d]"));
    let found = desk.problems(&mut desk.loader());
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(
        found[0].starts_with("gateway.yaml:3: include[0]: teams.d/latin.yaml cannot be read: it is not UTF-8"),
        "{found:#?}"
    );
    assert!(
        found[1].starts_with("gateway.yaml:3: include[1]: missing.yaml cannot be read: No such file"),
        "{found:#?}"
    );
    assert!(
        found[2].starts_with("gateway.yaml:3: include[2]: teams.d cannot be read: it is not a regular"),
        "{found:#?}"
    );
    assert!(found[3].starts_with("teams.d/broken.yaml:") && found[3].contains("departments[0]"), "{found:#?}");
    assert!(!found[3].contains(", at line"), "the line is reported once: {found:#?}");
}

#[test]
fn paths_of_an_included_file_are_relative_to_it() {
    let lab = "subsystems:\n  - id: lab\n    path: /lab\n    upstreams: [{ url: \"https://127.0.0.1:1\" }]\n    \
               otherCommands: allow\n    tls: { authorities: [lab-ca.pem] }\n";
    let desk = LoaderBench::with(&[("teams.d/lab.yaml", lab)]);
    let found = desk.problems(&mut desk.loader());
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("teams.d/lab.yaml:6: subsystems[0] (lab).tls: "), "{found:#?}");
    assert!(found[0].contains("teams.d/lab-ca.pem"), "{found:#?}");
}

#[test]
fn version_covers_all_files() {
    let desk = LoaderBench::with(&[]);
    let mut loader = desk.loader();
    let mut version = || {
        desk.problems(&mut loader);
        loader.version().expect("the file was read").to_owned()
    };
    let alone = version();
    assert_eq!(alone, short_hash(&Sha256::digest(MAIN)), "without included files, the hash of the file");
    desk.write("teams.d/fire.yaml", "grants: []\n");
    let one = version();
    desk.write("teams.d/fire.yaml", "grants: [] \n");
    let changed = version();
    fs::rename(desk.0.path().join("teams.d/fire.yaml"), desk.0.path().join("teams.d/water.yaml")).expect("renamed");
    let renamed = version();
    let different: std::collections::HashSet<_> = [&alone, &one, &changed, &renamed].into_iter().collect();
    assert_eq!(different.len(), 4);
    fs::remove_file(desk.0.path().join("teams.d/water.yaml")).expect("removed");
    assert_eq!(version(), alone);
}

#[test]
fn changed_file_is_parsed_again_and_unchanged_ones_are_not() {
    let team = |name: &str| format!("departments:\n  - {{ id: {name}, callers: [{{ dns: {name} }}] }}\n");
    let desk = LoaderBench::with(&[("teams.d/a.yaml", &team("fire")), ("teams.d/b.yaml", &team("water"))]);
    let mut loader = desk.loader();
    assert_eq!(desk.problems(&mut loader), [""; 0]);
    let kept = |loader: &ConfigLoader, name: &str| Arc::as_ptr(&loader.parts[&*desk.0.path().join(name)].1);
    let (a, b) = (kept(&loader, "teams.d/a.yaml"), kept(&loader, "teams.d/b.yaml"));
    desk.write("teams.d/b.yaml", &team("fire"));
    let found = desk.problems(&mut loader);
    assert_eq!(found.len(), 2, "id and caller are duplicated: {found:#?}");
    assert_eq!(kept(&loader, "teams.d/a.yaml"), a);
    assert_ne!(kept(&loader, "teams.d/b.yaml"), b);
    assert_eq!(
        loader.main.as_ref().map(|main| (main.own_counts[1], main.document.departments.len())),
        Some((1, 3)),
        "the department of the main file, and those of the last valid load"
    );
}

/// A main file with this number of departments, each with four callers and a grant.
fn province(departments: usize) -> String {
    let mut text = MAIN.replace("include: [\"teams.d/*.yaml\"]\n", "");
    let (head, tail) = text.split_once("subsystems:").expect("the configuration has subsystems");
    let mut written = head.to_owned();
    for number in 0..departments {
        let _ = writeln!(written, "  - id: d-{number}\n    limits: {{ rate: 10/s, burst: 20 }}\n    callers:");
        for caller in 0..4 {
            let _ = writeln!(written, "      - uri: spiffe://province/{number}/{caller}");
        }
    }
    let _ = writeln!(written, "subsystems:{tail}grants:");
    for number in 0..departments {
        let _ = writeln!(written, "  - {{ department: d-{number}, subsystem: cameras, commands: [\"*\"] }}");
    }
    text = written;
    text
}

#[test]
fn ten_thousand_departments_are_loaded() {
    let read = compile_text(&province(10_000), Path::new("/"), &NameInterner::default()).expect("no problems");
    assert_eq!(read.snapshot.departments.len(), 10_001);
    let last = crate::model::CallerId::Uri("spiffe://province/9999/3".to_owned());
    let department = read.snapshot.department_of(&[last], None).expect("claimed");
    let other = read.snapshot.subsystems[0].other.as_ref().expect("allowed");
    let grant = read.snapshot.find_grant(department, other).expect("granted");
    assert_eq!(read.snapshot.grant_origin(&grant).map(|origin| origin.index), Some(9_999));
}

#[test]
fn thousands_of_problems_are_reported_in_bounded_number_and_time() {
    let text = province(3_000).replace("department: d-", "department: e-").replace("rate: 10/s", "rat: 10/s");
    let begin = Instant::now();
    let found = compile_text(&text, Path::new("/"), &NameInterner::default()).expect_err("wrong").0;
    assert_eq!(found.len(), 1001);
    assert!(found[1000].message.ends_with("more problems are not listed"), "{}", found[1000]);
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

#[test]
fn one_anchor_can_serve_every_department() {
    let text = province(2_000);
    let text = text.replacen("limits: { rate: 10/s, burst: 20 }", "limits: &usual { rate: 10/s, burst: 20 }", 1);
    let text = text.replace("limits: { rate: 10/s, burst: 20 }", "limits: *usual");
    let read = compile_text(&text, Path::new("/"), &NameInterner::default()).expect("no problems");
    assert!(read.snapshot.departments[1..].iter().all(|policy| policy.limits.rate.is_some()));
}

#[test]
fn alias_bombs_are_refused_in_bounded_time() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(laughs, "a{level}: &a{level} [{aliases}]");
    }
    let padded = format!("{laughs}{}", "# padding\n".repeat(200_000));
    let long = format!("a: &a {}\ndepartments: [{}]\n", "x".repeat(60_000), vec!["{ id: *a }"; 20_000].join(", "));
    let mut merges = "m0: &m0 { a0: 1, b0: 2 }\n".to_owned();
    for level in 1..30 {
        let below = level - 1;
        let _ = writeln!(merges, "m{level}: &m{level} {{ k{level}: *m{below}, l{level}: *m{below} }}");
    }
    let deep = format!("departments: {}", "[".repeat(100_000));
    for (name, text) in [("laughs", laughs), ("padded", padded), ("long", long), ("merges", merges), ("deep", deep)] {
        let begin = Instant::now();
        let found = compile_text(&text, Path::new("/"), &NameInterner::default()).expect_err(name).0;
        let refused = found.iter().any(|problem| {
            let problem_text = problem.to_string();
            ["check for nested aliases (*name)", "depth", "nest", "limit"]
                .iter()
                .any(|word| problem_text.contains(word))
        });
        assert!(refused, "{name}: {:#?}", &found[..found.len().min(3)]);
        assert!(begin.elapsed() < Duration::from_secs(60), "{name}: {:?}", begin.elapsed());
    }
}

/// A main file with a listener of plain HTTP, so that it is valid without certificates.
const ISOLATING: &str = "ledger: { path: l.db }
includeIsolated: [\"teams.d/*.yaml\"]
listeners: [{ name: web, address: \"127.0.0.1:1\", protocol: http }]
departments: [{ id: police, callers: [{ dns: police }] }]
";

fn team(id: &str, more: &str) -> String {
    format!(
        "departments: [{{ id: {id}, callers: [{{ dns: {id} }}] }}]
subsystems: [{{ id: {id}, path: /{id}, upstreams: [{{ url: \"http://127.0.0.1:1\" }}], otherCommands: allow{more} }}]
"
    )
}

/// The subsystems and the excluded sources, each with its problems.
fn load_isolated(desk: &LoaderBench, loader: &mut ConfigLoader) -> (Vec<String>, Vec<(String, Vec<String>)>) {
    let loaded = loader.load(&NameInterner::default()).configuration;
    let Configuration { snapshot, excluded, .. } = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    let folder = format!("{}/", desk.0.path().display());
    let short = |text: String| text.replace(&folder, "");
    let mut excluded: Vec<_> = excluded.into_iter().collect();
    excluded.sort_by(|one, other| one.source.cmp(&other.source));
    let excluded = excluded.into_iter().map(|one| {
        (short(one.source), one.problems.iter().map(|problem| short(problem.to_string())).collect::<Vec<_>>())
    });
    (snapshot.subsystems.iter().map(|subsystem| subsystem.id.to_string()).collect(), excluded.collect())
}

#[test]
fn an_isolated_file_fails_alone_and_so_do_those_that_need_it() {
    let desk = LoaderBench::with(&[
        ("teams.d/a.yaml", &team("alpha", "")),
        ("teams.d/b.yaml", &team("beta", ", timeouts: { idle: soon }")),
        ("teams.d/c.yaml", "grants: [{ department: alpha, subsystem: beta, commands: [\"*\"] }]\n"),
        ("teams.d/d.yaml", "departments: [\n"),
        ("teams.d/e.yaml", &team("alpha", ", path: /elsewhere")),
        ("teams.d/f.yaml", &team("gamma", "")),
    ]);
    desk.write("teams.d/e.yaml", &team("alpha", "").replace("/alpha", "/elsewhere"));
    desk.write("gateway.yaml", ISOLATING);
    let mut loader = desk.loader();
    let (subsystems, excluded) = load_isolated(&desk, &mut loader);
    assert_eq!(subsystems, ["alpha", "gamma"]);
    let sources: Vec<&str> = excluded.iter().map(|(source, _)| source.as_str()).collect();
    assert_eq!(sources, ["teams.d/b.yaml", "teams.d/c.yaml", "teams.d/d.yaml", "teams.d/e.yaml"]);
    assert!(excluded[0].1[0].starts_with("teams.d/b.yaml:2: subsystems[0] (beta).timeouts.idle: "), "{excluded:?}");
    assert!(excluded[1].1[0].contains("there is no subsystem \"beta\""), "{excluded:?}");
    assert!(excluded[3].1[0].contains("\"alpha\" is the id of two departments"), "{excluded:?}");

    desk.write("teams.d/b.yaml", &team("beta", ""));
    let (subsystems, excluded) = load_isolated(&desk, &mut loader);
    assert_eq!((subsystems, excluded.len()), (["alpha", "beta", "gamma"].map(str::to_owned).to_vec(), 2));
}

#[test]
fn a_problem_of_the_main_file_rejects_all() {
    let desk = LoaderBench::with(&[("teams.d/b.yaml", &team("beta", ", timeouts: { idle: soon }"))]);
    desk.write(
        "gateway.yaml",
        &format!("{ISOLATING}grants: [{{ department: police, subsystem: beta, commands: [a] }}]\n"),
    );
    let problems = desk.problems(&mut desk.loader());
    assert!(problems[0].contains("there is no subsystem \"beta\""), "{problems:?}");
    assert_eq!(problems.len(), 1, "that of the isolated file is not among them: {problems:?}");
}

#[test]
fn included_files_may_have_listeners_with_paths_relative_to_them() {
    let listeners = "listeners:
  - { name: plain, address: \"127.0.0.1:2\", protocol: http }
  - { name: own, address: \"127.0.0.1:3\", tls: { certificate: own.pem, key: own.key } }
";
    let desk = LoaderBench::with(&[("teams.d/a.yaml", listeners)]);
    let problems = desk.problems(&mut desk.loader());
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("teams.d/a.yaml:3: listeners[1].tls.certificate: "), "{problems:?}");
    assert!(problems[0].contains("teams.d/own.pem"), "{problems:?}");
}

#[test]
fn documents_in_memory_fail_alone_and_may_come_later() {
    let desk = LoaderBench::with(&[]);
    desk.write("gateway.yaml", "ledger: { path: l.db }\n");
    let documents = SharedDocuments::default();
    let mut loader = desk.loader().with_documents(Arc::clone(&documents));
    assert_eq!(load_isolated(&desk, &mut loader), (vec![], vec![]), "a gateway may start without listeners");
    let before = loader.version().map(str::to_owned);
    let document = |text: &str| Arc::new(yaml::parse_included(text).0.expect("a document"));
    let web = "listeners: [{ name: web, address: \"127.0.0.1:1\", protocol: http }]";
    let of = |name: &str, text: &str| MemoryDocument { name: Path::new(name).into(), document: Ok(document(text)) };
    documents.store(Arc::new(MemoryDocuments {
        version: "1".to_owned(),
        documents: vec![
            of("Gateway a/web", web),
            of("HTTPRoute a/good", &team("good", "")),
            of("HTTPRoute b/bad", &team("bad", ", balance: random")),
        ]
        .into(),
    }));
    let (subsystems, excluded) = load_isolated(&desk, &mut loader);
    assert_eq!(subsystems, ["good"]);
    assert_eq!(excluded[0].0, "HTTPRoute b/bad");
    assert!(excluded[0].1[0].starts_with("HTTPRoute b/bad: subsystems[0].balance: "), "{excluded:?}");
    assert_ne!(loader.version().map(str::to_owned), before);
}

#[test]
fn document_that_cannot_be_read_is_left_out_like_any_other_source() {
    let desk = LoaderBench::with(&[]);
    desk.write("gateway.yaml", "ledger: { path: l.db }\n");
    let documents = SharedDocuments::default();
    let mut loader = desk.loader().with_documents(Arc::clone(&documents));
    let subsystem = serde_json::json!({ "id": "good", "path": "/good", "upstreams": [{ "url": "http://127.0.0.1:1" }],
        "commands": [{ "id": "all", "match": { "pathPrefix": "/" } }] });
    let good = serde_json::json!({ "subsystems": [subsystem] });
    let bad = serde_json::json!({ "subsystems": [{ "id": "bad", "comands": [] }] });
    let of = MemoryDocument::readable_or_faulty;
    documents.store(Arc::new(MemoryDocuments {
        version: "1".to_owned(),
        documents: vec![of("HTTPRoute b/bad", &bad), of("HTTPRoute a/good", &good)].into(),
    }));
    let (subsystems, excluded) = load_isolated(&desk, &mut loader);
    assert_eq!(subsystems, ["good"]);
    let [(source, problems)] = &excluded[..] else { panic!("one source is left out: {excluded:?}") };
    assert_eq!(source, "HTTPRoute b/bad");
    assert!(problems[0].contains("HTTPRoute b/bad: subsystems[0].comands"), "{problems:?}");
}
