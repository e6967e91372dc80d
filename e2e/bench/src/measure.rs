//! What the kernel knows about a process.

use std::time::Duration;

use anyhow::{Context, Result};

/// The fields behind the name of a process:
/// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>.
fn stat(process: u32) -> Result<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name before the parenthesis may contain anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// Processes that this one started, and that live.
pub fn children(process: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended since.
        let parent = stat(id).ok().and_then(|fields| fields.get(1)?.parse().ok());
        if parent == Some(process) {
            found.push(id);
        }
    }
    Ok(found)
}

/// Processor time of all threads so far.
pub fn cpu(process: u32) -> Result<Duration> {
    let fields = stat(process)?;
    let mut fields = fields.iter().skip(11);
    let mut ticks = || -> Result<u64> { Ok(fields.next().context("stat is too short")?.parse()?) };
    let total = ticks()? + ticks()?;
    let rate = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(total as f64 / rate as f64))
}

/// Resident memory in mebibytes.
pub fn memory(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// The middle one. Not a number if there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        None => f64::NAN,
        Some(high) if sorted.len() % 2 == 1 => *high,
        Some(high) => (sorted[middle - 1] + high) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_child_is_found_by_its_parent() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("starts");
        let children = children(std::process::id()).expect("is there");
        child.kill().expect("lives");
        child.wait().expect("ends");
        assert!(children.contains(&child.id()), "{children:?}");
    }

    #[test]
    fn this_process_has_memory_and_uses_time() {
        let own = std::process::id();
        assert!(memory(own).expect("is there") > 0.1);
        let before = cpu(own).expect("is there");
        let mut sum = 0u64;
        while cpu(own).expect("is there") == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
