//! Resident memory by mapping.

use std::collections::BTreeMap;
use std::io;

use super::format::Profile;

/// Kibibytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sizes {
    private: i64,
    resident: i64,
}

pub fn profile() -> io::Result<Profile> {
    Ok(of(&std::fs::read_to_string("/proc/self/smaps")?))
}

fn of(maps: &str) -> Profile {
    let kinds = [("private_space", "bytes"), ("inuse_space", "bytes")];
    let about = "resident memory by mapping: this program does not record its allocations";
    let mut profile = Profile::new(&kinds, about);
    for (name, sizes) in mappings(maps) {
        if sizes.resident > 0 {
            profile.add(name, vec![sizes.private << 10, sizes.resident << 10]);
        }
    }
    profile
}

/// <https://docs.kernel.org/filesystems/proc.html>
fn mappings(maps: &str) -> BTreeMap<&str, Sizes> {
    let mut found: BTreeMap<&str, Sizes> = BTreeMap::new();
    let mut current = "anonymous";
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !first.ends_with(':') {
            // Addresses, permissions, offset, device, inode, and a name or none.
            current = words.nth(4).unwrap_or("anonymous");
            continue;
        }
        let Some(size) = words.next().and_then(|size| size.parse::<i64>().ok()) else {
            continue;
        };
        let sizes = found.entry(current).or_default();
        match first {
            "Rss:" => sizes.resident += size,
            "Private_Clean:" | "Private_Dirty:" => sizes.private += size,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_one_name_are_one() {
        let maps = "\
            1-2 r--p 00000000 fe:00 10 /usr/bin/daprd\nRss: 8 kB\nPrivate_Clean: 4 kB\nVmFlags: rd\n\
            2-3 r-xp 00000000 fe:00 10 /usr/bin/daprd\nRss: 4 kB\nPrivate_Dirty: 1 kB\n\
            3-4 rw-p 00000000 00:00 0\nRss: 2 kB\n\
            4-5 rw-p 00000000 00:00 0 [heap]\nRss: 0 kB\n";
        let found = mappings(maps);
        let sizes = |private, resident| Sizes { private, resident };
        assert_eq!(found["/usr/bin/daprd"], sizes(5, 12));
        assert_eq!(found["anonymous"], sizes(0, 2));
        assert_eq!(found["[heap]"], sizes(0, 0));
        assert!(profile().is_ok());
    }
}
