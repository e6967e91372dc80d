//! What the products may be built from.

use anyhow::{Result, bail};

use crate::run;

/// One TLS library, one YAML parser, no C libraries that cannot be audited.
const BANNED: [(&str, &str); 5] = [
    ("ring", "aws-lc-rs is the one provider"),
    ("openssl-sys", "rustls is the one TLS library"),
    ("native-tls", "rustls is the one TLS library"),
    ("serde_yaml", "serde-saphyr is the one YAML parser"),
    ("atty", "std has IsTerminal"),
];

const LICENCES: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub fn check() -> Result<()> {
    let mut tree = run::cargo();
    tree.args([
        "tree",
        "--workspace",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
    ]);
    let text = String::from_utf8(run::output(&mut tree)?)?;
    let mut wrong = std::collections::BTreeSet::new();
    for line in text.lines() {
        let Some((package, licence)) = line.split_once('|') else {
            continue;
        };
        let name = package.split_whitespace().next().unwrap_or_default();
        if name.starts_with("outrider-") {
            continue;
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            wrong.insert(format!("{name} is banned: {why}"));
        }
        let licence = licence.trim_end_matches(" (*)");
        if !is_allowed(licence) {
            wrong.insert(format!("{name} has the licence {licence:?}"));
        }
    }
    if wrong.is_empty() {
        println!("deps: licences and crates are allowed");
        return Ok(());
    }
    bail!(
        "dependencies:\n  {}",
        wrong.into_iter().collect::<Vec<_>>().join("\n  ")
    )
}

/// Whether every side of `AND`, and some side of each `OR`, is allowed.
fn is_allowed(expression: &str) -> bool {
    let bare = expression.replace(['(', ')'], " ").replace('/', " OR ");
    bare.split(" AND ")
        .all(|all| all.split(" OR ").any(|one| LICENCES.contains(&one.trim())))
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn expressions() {
        assert!(is_allowed("MIT OR Apache-2.0"));
        assert!(is_allowed("MIT/Apache-2.0"));
        assert!(is_allowed("(MIT OR GPL-3.0) AND Unicode-3.0"));
        assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR MIT"));
        assert!(!is_allowed("GPL-3.0"));
        assert!(!is_allowed("MIT AND GPL-3.0"));
        assert!(!is_allowed(""));
    }
}
