//! Runs every kept fuzz input under `cargo test`, without a fuzzer and without a C++ compiler.

use std::fs;
use std::path::Path;

#[test]
fn every_corpus_input_passes_its_target() {
    for (name, door) in fuzz::DOORS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            eprintln!("{}", path.display()); // the last path printed is the faulty input
            door(&fs::read(&path).expect("an input"));
            inputs += 1;
        }
        assert!(inputs >= 3, "{} has seeds", folder.display());
    }
}
