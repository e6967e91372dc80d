//! Every example through its target, whole and cut short.

use std::collections::BTreeSet;
use std::path::Path;

use outrider_fuzz::TARGETS;

/// Places at which an example is cut.
const CUTS: usize = 128;

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// Without optimisation a level of recursion takes many times the stack.
const STACK: usize = 64 << 20;

#[test]
fn every_example() {
    let run = std::thread::Builder::new().stack_size(STACK);
    run.spawn(examples).unwrap().join().unwrap();
}

fn examples() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let examples = files(&corpus.join(name));
        assert!(!examples.is_empty(), "{name} has no examples");
        for example in examples {
            let bytes = std::fs::read(&example).unwrap();
            target(&bytes);
            for cut in (0..bytes.len()).step_by(bytes.len() / CUTS + 1) {
                target(&bytes[..cut]);
            }
        }
    }
}

#[test]
fn folders_are_targets() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folders: BTreeSet<_> = files(&corpus)
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let names = TARGETS.map(|(name, _)| name.to_owned()).into();
    assert_eq!(folders, names);
}
