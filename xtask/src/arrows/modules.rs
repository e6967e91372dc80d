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

const CRATES: [Modules; 6] = [
    Modules {
        source: "sidecar/src",
        order: &[
            "flags",
            "components",
            "blocks",
            "profiling",
            "config",
            "edge",
            "resources",
            "app",
            "fuzz",
        ],
    },
    Modules {
        source: "sidecar/actors/src",
        order: &[
            "actor",
            "beat",
            "names",
            "any",
            "hosts",
            "routing",
            "table",
            "error",
            "message",
            "hosting",
            "turn",
            "waiting",
            "held",
            "remote",
            "actors",
            "apps",
            "placement",
            "serve",
            "timers",
            "reminders",
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
        order: &[
            "label",
            "settings",
            "actor",
            "component",
            "grpc",
            "http",
            "job",
            "service",
        ],
    },
    Modules {
        source: "sidecar/call/src",
        order: &[
            "metadata", "token", "message", "method", "headers", "pipeline", "channel",
        ],
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
            let is_top = inner.iter().count() == 1;
            for used in modules.upward(module, &text, is_top) {
                wrong.push(format!("{}: {module} -> {used}", file.display()));
            }
        }
    }
    Ok(wrong)
}

impl Modules {
    /// What a file of `module` may not use but does. In a file at the top
    /// `super` is the crate as well.
    fn upward(&self, module: &str, text: &str, is_top: bool) -> Vec<String> {
        let place = |name: &str| self.order.iter().position(|known| *known == name);
        let Some(own) = place(module) else {
            return vec![format!("a module without a place: name it in {}", file!())];
        };
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
        let mut used: Vec<&str> = rests(code, "crate::").collect();
        if is_top {
            used.extend(rests(code, "super::"));
        }
        used.retain(|name| place(name).is_some_and(|other| other > own));
        used.sort_unstable();
        used.dedup();
        used.into_iter().map(str::to_owned).collect()
    }
}

/// The names behind each `prefix`, also those in braces.
fn rests<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.split(prefix).skip(1).flat_map(|rest| {
        let list = rest.strip_prefix('{').map(|rest| {
            let end = rest.find(';').unwrap_or(rest.len());
            &rest[..end]
        });
        let names = list.unwrap_or(rest);
        let several = list.is_some();
        names
            .split(',')
            .take(if several { usize::MAX } else { 1 })
            .map(|name| {
                let name = name.trim();
                let end = name.find(|c: char| !(c.is_ascii_lowercase() || c == '_'));
                &name[..end.unwrap_or(name.len())]
            })
    })
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
        assert_eq!(modules.upward("low", up, false), ["high"]);
        let list = "use crate::{low, high::Thing};";
        assert_eq!(modules.upward("low", list, false), ["high"]);
        let beside = "use super::high;";
        assert_eq!(modules.upward("low", beside, true), ["high"]);
        assert!(modules.upward("low", beside, false).is_empty());
        assert!(modules.upward("high", "use crate::low;", true).is_empty());
        let tested = "use crate::low;\n#[cfg(test)]\nmod tests {\n use crate::high; }";
        assert!(modules.upward("low", tested, true).is_empty());
        assert_eq!(modules.upward("new", "", true).len(), 1);
    }
}
