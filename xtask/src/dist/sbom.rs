//! What a program is made of, as a CycloneDX document:
//! <https://cyclonedx.org/docs/1.6/json/>.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::run;

/// Writes `<program>.cdx.json` beside a shipped program.
pub fn write(package: &str, program: &str, shipped: &Path) -> Result<()> {
    let mut tree = run::cargo();
    tree.args(["tree", "-p", package, "--target", run::TRIPLE])
        .args(["--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}|{l}"]);
    let tree = String::from_utf8(run::output(&mut tree)?)?;
    let lock = fs::read_to_string(run::root().join("Cargo.lock"))?;
    let document = document(program, &commit()?, &tree, &checksums(&lock));
    let path = shipped.join(format!("{program}.cdx.json"));
    fs::write(&path, serde_json::to_vec_pretty(&document)?)
        .with_context(|| path.display().to_string())
}

/// The commit that is built, with a mark if files differ from it.
pub fn commit() -> Result<String> {
    let mut git = std::process::Command::new("git");
    git.current_dir(run::root()).args([
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]);
    Ok(String::from_utf8(run::output(&mut git)?)?.trim().to_owned())
}

fn document(
    program: &str,
    commit: &str,
    tree: &str,
    checksums: &HashMap<(&str, &str), &str>,
) -> Value {
    let mut lines: Vec<&str> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    let components: Vec<Value> = lines
        .iter()
        .filter_map(|line| component(line, checksums))
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {
            "type": "application",
            "name": program,
            "version": env!("CARGO_PKG_VERSION"),
            "licenses": [{"license": {"id": "Apache-2.0"}}],
            "properties": [{"name": "commit", "value": commit}],
        }},
        "components": components,
    })
}

/// A line of `cargo tree`, such as `serde v1.0.1|MIT OR Apache-2.0`. None for
/// our own crates, which are the program.
fn component(line: &str, checksums: &HashMap<(&str, &str), &str>) -> Option<Value> {
    let (package, licence) = line.split_once('|')?;
    let mut words = package.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    if name.starts_with("outrider-") {
        return None;
    }
    let mut component = json!({
        "type": "library",
        "name": name,
        "version": version,
        "purl": format!("pkg:cargo/{name}@{version}"),
        "licenses": [{"expression": licence.trim_end_matches(" (*)").replace('/', " OR ")}],
    });
    if let Some(checksum) = checksums.get(&(name, version)) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    Some(component)
}

/// SHA-256 of packages by name and version, from the lock file.
fn checksums(lock: &str) -> HashMap<(&str, &str), &str> {
    lock.split("[[package]]")
        .filter_map(|block| {
            let field = |name: &str| {
                let line = block.lines().find(|line| line.starts_with(name))?;
                line.split('"').nth(1)
            };
            Some((
                (field("name =")?, field("version =")?),
                field("checksum =")?,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\nsource = \"registry\"\nchecksum = \"ab12\"\ndependencies = [\n \"x\",\n]\n\n[[package]]\nname = \"outrider-kit\"\nversion = \"0.1.0\"\n";

    #[test]
    fn a_document_lists_each_foreign_package_once() {
        let tree = "outrider-sidecar v0.1.0 (/x)|Apache-2.0\nserde v1.0.1|MIT/Apache-2.0\nserde v1.0.1|MIT/Apache-2.0 (*)\nbytes v1.2.3|MIT\n";
        let document = document("daprd", "c0ffee", tree, &checksums(LOCK));
        let components = document["components"].as_array().unwrap();
        let names: Vec<_> = components.iter().map(|it| &it["purl"]).collect();
        assert_eq!(names, ["pkg:cargo/bytes@1.2.3", "pkg:cargo/serde@1.0.1"]);
        assert_eq!(components[1]["hashes"][0]["content"], "ab12");
        assert_eq!(
            components[1]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        let properties = &document["metadata"]["component"]["properties"];
        assert_eq!(properties[0]["value"], "c0ffee");
    }
}
