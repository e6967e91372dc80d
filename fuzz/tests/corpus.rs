//! Every example through its target, whole and cut short.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use outrider_fuzz::TARGETS;

/// Places at which an example is cut.
const CUTS: usize = 128;

fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = files.collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Without optimisation a level of recursion takes many times the stack.
const STACK: usize = 64 << 20;

#[test]
fn no_target_panics_on_examples_whole_or_cut() {
    let run = std::thread::Builder::new().stack_size(STACK);
    run.spawn(examples).unwrap().join().unwrap().unwrap();
}

fn examples() -> std::io::Result<()> {
    let corpus = outrider_fuzz::corpus();
    for (name, target) in TARGETS {
        let examples = files(&corpus.join(name))?;
        assert!(!examples.is_empty(), "{name} has no examples");
        for example in examples {
            let bytes = std::fs::read(&example)?;
            target(&bytes);
            for cut in (0..bytes.len()).step_by(bytes.len() / CUTS + 1) {
                target(&bytes[..cut]);
            }
        }
    }
    Ok(())
}

#[test]
fn every_target_has_a_folder_of_examples() {
    let corpus = outrider_fuzz::corpus();
    let folders: BTreeSet<_> = files(&corpus)
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let names = TARGETS.map(|(name, _)| name.to_owned()).into();
    assert_eq!(folders, names);
}
