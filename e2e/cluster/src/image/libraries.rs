//! The shared libraries of a program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Where the dynamic linker finds each library of `program`, itself included; none for a static program.
pub(super) fn of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("can't start ldd; install libc-bin")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if printed.contains("statically linked") || errors.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    if !output.status.success() {
        bail!("ldd {} failed: {}", program.display(), errors.trim());
    }
    parse(&printed).with_context(|| format!("libraries of {}", program.display()))
}

fn parse(printed: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in printed.lines() {
        let line = line.trim();
        if let Some((name, "not found")) = line.split_once(" => ") {
            bail!("{name} is not installed");
        }
        let place = line.split_once(" => ").map_or(line, |(_, place)| place);
        // The kernel's own library has a name and no path.
        if place.starts_with('/') {
            let path = place.split_once(" (").map_or(place, |(path, _)| path);
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_linker_are_found_and_the_kernels_own_is_not() {
        let printed = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x7f)\n";
        assert_eq!(
            parse(printed).unwrap(),
            [
                PathBuf::from("/lib/libc.so.6"),
                PathBuf::from("/lib64/ld.so.2")
            ]
        );
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse("\tlibgone.so.1 => not found\n").unwrap_err();
        assert!(error.to_string().contains("libgone.so.1"));
    }
}
