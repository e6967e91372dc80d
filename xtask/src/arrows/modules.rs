//! Which module of a large crate may use which: arrows only point down there
//! too. Read from the paths in the code; tests may use anything.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::run;

/// A crate whose modules are checked, lowest first. A module may use those
/// before it.
struct Modules {
    source: &'static str,
    order: &'static [&'static str],
}

const CRATES: [Modules; 5] = [
    Modules {
        source: "sidecar/src",
        order: &[
            "flags",
            "components",
            "blocks",
            "config",
            "edge",
            "resources",
            "app",
            "fuzz",
        ],
    },
    Modules {
        source: "sidecar/net/src",
        order: &[
            "expiry",
            "path",
            "body",
            "grpc",
            "limit",
            "connection",
            "pool",
            "server",
        ],
    },
    Modules {
        source: "sidecar/metrics/src",
        order: &["settings", "label", "component", "grpc", "http", "service"],
    },
    Modules {
        source: "sidecar/call/src",
        order: &["token", "message", "method", "trace", "headers", "channel"],
    },
    Modules {
        source: "sidecar/peer/src",
        order: &["local", "wire", "call", "serve", "reach"],
    },
];

/// Every use that points up, or of a module that has no place.
pub fn wrong() -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for modules in CRATES {
        let root = run::root().join(modules.source);
        for file in files(&root)? {
            let text = fs::read_to_string(&file)?;
            let inner = file.strip_prefix(&root)?;
            let module = inner.iter().next().context("a file has a name")?;
            let module = module.to_string_lossy();
            let module = module.trim_end_matches(".rs");
            if ["lib", "main", "tests"].contains(&module) || file.ends_with("tests.rs") {
                continue;
            }
            for used in modules.upward(module, &text) {
                wrong.push(format!("{}: {module} -> {used}", file.display()));
            }
        }
    }
    Ok(wrong)
}

impl Modules {
    /// What a file of `module` may not use but does.
    fn upward(&self, module: &str, text: &str) -> Vec<String> {
        let place = |name: &str| self.order.iter().position(|known| *known == name);
        let Some(own) = place(module) else {
            return vec![format!("a module without a place: name it in {}", file!())];
        };
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
        let mut used: Vec<&str> = code
            .split("crate::")
            .skip(1)
            .map(|rest| {
                let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_'));
                &rest[..end.unwrap_or(rest.len())]
            })
            .filter(|name| place(name).is_some_and(|other| other > own))
            .collect();
        used.sort_unstable();
        used.dedup();
        used.into_iter().map(str::to_owned).collect()
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_that_points_up_is_found_outside_tests() {
        let modules = Modules {
            source: "",
            order: &["low", "high"],
        };
        let up = "use crate::high::Thing;\nfn a() { crate::high::b() }";
        assert_eq!(modules.upward("low", up), ["high"]);
        assert!(modules.upward("high", "use crate::low;").is_empty());
        let tested = "use crate::low;\n#[cfg(test)]\nmod tests {\n use crate::high; }";
        assert!(modules.upward("low", tested).is_empty());
        assert_eq!(modules.upward("new", "").len(), 1);
    }
}
