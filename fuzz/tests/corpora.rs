//! Every input that is kept is tried by `cargo test`, with no fuzzer and no C++ compiler.

use std::fs;
use std::path::Path;

#[test]
fn every_kept_input_still_holds() {
    for (name, door) in fuzz::DOORS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            eprintln!("{}", path.display()); // the last one is the culprit
            door(&fs::read(&path).expect("an input"));
            inputs += 1;
        }
        assert!(inputs >= 3, "{} has seeds", folder.display());
    }
}
