//! The structure of `src`: import order, import circles, folder sizes, comment width and type names.
//!
//! Guarantees:
//! - A failure names the file, the line, the import, and the remedy.
//! - Each rule is shown to fail on a small tree.
//! - Only production code counts.
//!
//! Leaves to `scripts/structure.py`: figures, and comparisons with other trees.

mod rules;
mod source;
mod tree;

use std::fs;
use std::path::Path;

use self::rules::FolderOrder;
use self::tree::Tree;

/// Imports go down these lists, never up. ARCHITECTURE.md shows the same orders.
const ORDERS: [FolderOrder; 13] = [
    FolderOrder {
        folder: "",
        floors: &[
            "cli app",
            "proxy kube admin",
            "config telemetry report",
            "identity policy limit ledger",
            "model clock lifecycle",
        ],
        sideways: &[
            ("cli", "app"),          // `serve` starts the composition root
            ("telemetry", "config"), // logs the problems of a configuration
            ("limit", "policy"),     // reads the compiled plans of policy
            ("clock", "model"),      // windows
        ],
    },
    FolderOrder {
        folder: "proxy",
        floors: &["downstream", "exchange", "worker", "usage_page upstream", "capacity", "message", "io"],
        sideways: &[],
    },
    FolderOrder {
        folder: "proxy/upstream",
        floors: &[
            "health_checks",
            "server_pools",
            "connect resend sessions",
            "backend_servers",
            "attempt_state",
            "retry_budget",
            "pool",
            "transport",
            "h1 h2",
            "load_balancing",
            "endpoint",
        ],
        sideways: &[],
    },
    FolderOrder { folder: "proxy/message", floors: &["interim_response", "grammar"], sideways: &[] },
    FolderOrder {
        folder: "ledger",
        floors: &[
            "audit",
            "sealed_hours",
            "reader",
            "count",
            "keeper",
            "book",
            "fold",
            "hash_chain",
            "tally",
            "files",
            "values",
        ],
        sideways: &[],
    },
    FolderOrder {
        folder: "identity",
        floors: &["tls_config", "verification", "revocation", "trust", "tls_files", "sni", "certificate", "der"],
        sideways: &[],
    },
    FolderOrder {
        folder: "kube",
        floors: &["controller", "watch status lease events translate crds", "index", "api", "objects"],
        sideways: &[],
    },
    FolderOrder { folder: "kube/translate", floors: &["routes ingresses", "nginx"], sideways: &[] },
    FolderOrder { folder: "telemetry", floors: &["spans", "access_log log_lines"], sideways: &[] },
    FolderOrder {
        folder: "report",
        floors: &["own_usage", "forecast", "render", "reconciled", "scraped"],
        sideways: &[],
    },
    FolderOrder {
        folder: "cli",
        floors: &["report", "scraped inspect cluster", "prometheus trial_authority"],
        sideways: &[],
    },
    FolderOrder { folder: "config/compile", floors: &["settings", "compile_context"], sideways: &[] },
    FolderOrder { folder: "config", floors: &["loading", "compile", "settings", "parse", "document"], sideways: &[] },
];

/// The largest import circle: two files that describe one thing from two sides, and one file that they share.
const CIRCLE_MAX: usize = 3;

/// The largest number of modules in a folder, so that a reader can survey the list of files.
const FOLDER_MODULES_MAX: usize = 20;

/// Folders that may have more modules, each with its reason.
const CROWDED_FOLDERS: [&str; 0] = [];

/// Folders whose types mirror types of the same name elsewhere: the section of a document and its compiled form.
const MIRRORS: [&str; 1] = ["config/document"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn src() -> Tree {
    Tree::read(&root().join("src"))
}

/// Fails with all violations, each in its own paragraph.
#[track_caller]
fn none(violations: &[String]) {
    assert!(violations.is_empty(), "{} violations:\n\n{}\n", violations.len(), violations.join("\n\n"));
}

#[test]
fn imports_go_down() {
    none(&rules::upward_imports(&src(), &ORDERS));
}

#[test]
fn every_sub_folder_has_a_place_in_the_order() {
    none(&rules::orders_out_of_date(&src(), &ORDERS));
}

#[test]
fn architecture_page_shows_the_orders() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let sub_rooms = ORDERS.iter().filter(|order| !order.folder.is_empty());
    let missing = sub_rooms.filter(|order| !page.contains(&order.as_text()));
    let violations: Vec<_> = missing
        .map(|order| format!("ARCHITECTURE.md lacks the order of src/{}: {}", order.folder, order.as_text()))
        .collect();
    none(&violations);
}

#[test]
fn no_circle_has_more_than_three_files() {
    none(&rules::circles_of_files(&src(), CIRCLE_MAX));
}

#[test]
fn no_folders_import_each_other() {
    none(&rules::circles_of_folders(&src()));
}

#[test]
fn no_folder_is_crowded() {
    none(&rules::crowded_folders(&src(), FOLDER_MODULES_MAX, &CROWDED_FOLDERS));
}

#[test]
fn comments_are_wrapped() {
    none(&rules::wide_comments(&src()));
}

#[test]
fn type_names_are_unique() {
    none(&rules::shared_type_names(&src(), &MIRRORS));
}

/// Tests of the rules: each rule fails on a faulty tree and passes on a correct one.
mod on_small_trees {
    use super::rules::{self, FolderOrder};
    use super::source::{Binding, Source};
    use super::tree::Tree;

    const ORDER: FolderOrder =
        FolderOrder { folder: "", floors: &["top", "left right", "ground"], sideways: &[("left", "right")] };
    const GROUND: (&str, &str) = ("ground/mod.rs", "pub struct Stone;\npub use self::sand::Grain;\nmod sand;");
    const SAND: (&str, &str) = ("ground/sand.rs", "pub struct Grain;");

    #[track_caller]
    fn one(violations: &[String], parts: &[&str]) {
        assert_eq!(violations.len(), 1, "{violations:#?}");
        for part in parts {
            assert!(violations[0].contains(part), "{part:?} is not in {:?}", violations[0]);
        }
    }

    #[test]
    fn upward_import_is_reported_with_its_line() {
        let top = ("top.rs", "pub struct Roof;");
        let ground = ("ground.rs", "//! Ground.\n\nuse crate::top::Roof;\n");
        let tree = Tree::parse(&[top, ground]);
        let order = [FolderOrder { folder: "", floors: &["top", "ground"], sideways: &[] }];
        one(
            &rules::upward_imports(&tree, &order),
            &["src/ground.rs:3", "`crate::top::Roof`", "src/top.rs", "Imports go down"],
        );
    }

    #[test]
    fn downward_and_excepted_imports_pass() {
        let top = ("top.rs", "use crate::left::Wall;\nuse crate::ground::{Grain, Stone};");
        let left = ("left.rs", "pub struct Wall(crate::right::Window);");
        let right = ("right.rs", "pub struct Window;");
        let tree = Tree::parse(&[top, left, right, GROUND, SAND]);
        assert_eq!(rules::upward_imports(&tree, &[ORDER]), [""; 0]);
    }

    #[test]
    fn sideways_import_is_refused_unless_it_is_excepted() {
        let tree = Tree::parse(&[("left.rs", "pub struct Wall;"), ("right.rs", "fn f() { crate::left::Wall; }")]);
        one(&rules::upward_imports(&tree, &[ORDER]), &["src/right.rs:1", "stands beside"]);
    }

    #[test]
    fn relative_path_is_resolved() {
        let inner = ("ground/sand.rs", "mod deep {\n    fn f() -> super::super::super::top::Roof {}\n}");
        let tree = Tree::parse(&[("top.rs", "pub struct Roof;"), ("ground/mod.rs", "mod sand;"), inner]);
        one(&rules::upward_imports(&tree, &[ORDER]), &["src/ground/sand.rs:2"]);
    }

    #[test]
    fn re_export_counts_as_the_file_it_leads_to() {
        let user = ("ground/rock.rs", "use super::Grain;");
        let edges = Tree::parse(&[("ground/mod.rs", "pub use sand::*;\nmod sand;\nmod rock;"), SAND, user]).edges();
        let of_rock = edges.iter().filter(|edge| edge.from == 2).map(|edge| edge.to).collect::<Vec<_>>();
        assert_eq!(of_rock, [1], "rock imports sand, not the facade: {edges:?}");
    }

    #[test]
    fn child_does_not_import_what_its_facade_defines() {
        let tree = Tree::parse(&[("ground/mod.rs", "pub struct Stone;"), ("ground/sand.rs", "use super::Stone;")]);
        let order = [FolderOrder { folder: "ground", floors: &["sand"], sideways: &[] }];
        one(&rules::upward_imports(&tree, &order), &["src/ground/sand.rs:1", "`mod`"]);
    }

    #[test]
    fn test_code_may_import_anything() {
        let inline = "#[cfg(test)]\nmod tests {\n    use crate::top::Roof;\n}\n";
        let ground = format!("{inline}#[cfg(test)]\nmod bench;\n#[cfg(test)]\nuse crate::top::Roof;");
        let files =
            [("top.rs", "pub struct Roof;"), ("ground/mod.rs", &ground), ("ground/bench.rs", "use crate::top::Roof;")];
        assert_eq!(rules::upward_imports(&Tree::parse(&files), &[ORDER]), [""; 0]);
    }

    #[test]
    fn text_comments_and_visibilities_are_no_imports() {
        let text = "// crate::top::Roof\n/* /* crate::top::Roof */ */\n\
                    pub(in crate::top) const A: &str = r#\"\"crate::top::Roof\"#;\n\
                    const B: char = '\\'';\nfn f<'a>(x: &'a str) -> char { '\"' }";
        let tree = Tree::parse(&[("top.rs", "pub struct Roof;"), ("ground.rs", text)]);
        assert!(tree.edges().is_empty(), "{:?}", tree.edges());
    }

    #[test]
    fn nested_uses_are_expanded() {
        let source = Source::parse("a.rs", "pub(crate) use a::{self, b::{C as D, *}, e};\nimpl F + use<'_> {}");
        let read: Vec<_> =
            source.imports.iter().map(|import| (import.path.join("::"), import.binding.clone())).collect();
        let name = |name: &str| Binding::Name(name.to_owned());
        let expected = [("a", name("a")), ("a::b::C", name("D")), ("a::b", Binding::Glob), ("a::e", name("e"))];
        assert_eq!(read, expected.map(|(path, binding)| (path.to_owned(), binding)));
    }

    #[test]
    fn sub_folder_without_a_place_and_place_without_a_folder_are_reported() {
        let tree = Tree::parse(&[("top/mod.rs", ""), ("attic/mod.rs", "")]);
        let violations =
            rules::orders_out_of_date(&tree, &[FolderOrder { folder: "", floors: &["top", "cellar"], sideways: &[] }]);
        assert_eq!(violations.len(), 2, "{violations:?}");
        assert!(violations[0].contains("`attic`") && violations[1].contains("`cellar`"), "{violations:?}");
    }

    #[test]
    fn circle_of_files_is_reported_when_it_is_too_large() {
        let files = [
            ("a.rs", "pub struct A(crate::b::B);"),
            ("b.rs", "pub struct B(crate::c::C);"),
            ("c.rs", "pub struct C(crate::a::A);"),
        ];
        let tree = Tree::parse(&files);
        one(&rules::circles_of_files(&tree, 2), &["a.rs, b.rs, c.rs", "src/c.rs:1 `crate::a::A` -> src/a.rs"]);
        assert_eq!(rules::circles_of_files(&tree, 3), [""; 0]);
    }

    #[test]
    fn circle_of_folders_is_reported_even_without_a_circle_of_files() {
        let files = [
            ("a/mod.rs", "mod one;\npub mod two;"),
            ("a/one.rs", "use crate::b::three::B;"),
            ("a/two.rs", "pub struct A;"),
            ("b/mod.rs", "mod four;\npub mod three;"),
            ("b/three.rs", "pub struct B;"),
            ("b/four.rs", "use crate::a::two::A;"),
        ];
        let tree = Tree::parse(&files);
        assert_eq!(rules::circles_of_files(&tree, 1), [""; 0]);
        one(&rules::circles_of_folders(&tree), &["a, b"]);
    }

    #[test]
    fn crowded_folder_is_reported_unless_it_is_excepted() {
        let tree = Tree::parse(&[("a/mod.rs", ""), ("a/b.rs", ""), ("a/c.rs", "")]);
        one(&rules::crowded_folders(&tree, 1, &[]), &["src/a has 2 modules"]);
        assert_eq!(rules::crowded_folders(&tree, 1, &["a"]), [""; 0]);
        assert_eq!(rules::crowded_folders(&tree, 2, &[]), [""; 0]);
    }

    #[test]
    fn wide_comment_is_reported_and_wide_code_is_not() {
        let wide = format!("fn f() {{}}\n// {}\nconst A: &str = \"{}\";", "x".repeat(118), "x".repeat(200));
        one(&rules::wide_comments(&Tree::parse(&[("a.rs", &wide)])), &["src/a.rs:", "wrap lines 2."]);
        let fits = format!("// {}", "ü".repeat(117));
        assert_eq!(rules::wide_comments(&Tree::parse(&[("a.rs", &fits)])), [""; 0]);
    }

    #[test]
    fn shared_type_name_is_reported_unless_one_mirrors_the_other() {
        let files = [
            ("a.rs", "struct Same;\nimpl Same { type Item = u8; }"),
            ("b.rs", "enum Same {}\nimpl B { type Item = u8; }"),
        ];
        one(&rules::shared_type_names(&Tree::parse(&files), &[]), &["`Same`", "src/a.rs:1, src/b.rs:1"]);
        assert_eq!(rules::shared_type_names(&Tree::parse(&files), &["b"]), [""; 0]);
    }
}
