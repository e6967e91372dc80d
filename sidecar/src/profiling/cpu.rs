//! Processor time by thread.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use super::format::Profile;

/// What every thread has used so far.
pub struct Times {
    when: Instant,
    /// Name and nanoseconds, by id.
    threads: BTreeMap<u32, (String, u64)>,
}

impl Times {
    pub fn read() -> io::Result<Self> {
        let mut threads = BTreeMap::new();
        for entry in std::fs::read_dir("/proc/self/task")? {
            let path = entry?.path();
            let id = path.file_name().and_then(|id| id.to_str()?.parse().ok());
            // A thread may have ended by now.
            let name = std::fs::read_to_string(path.join("comm"));
            let times = std::fs::read_to_string(path.join("schedstat"));
            if let (Some(id), Ok(name), Ok(times)) = (id, name, times)
                && let Some(used) = used(&times)
            {
                threads.insert(id, (name.trim_end().to_owned(), used));
            }
        }
        Ok(Self {
            when: Instant::now(),
            threads,
        })
    }

    /// What was used since `before`.
    pub fn since(&self, before: &Self) -> Profile {
        let kinds = [("samples", "count"), ("cpu", "nanoseconds")];
        let about = "processor time by thread: this program does not sample its stacks";
        let mut profile = Profile::new(&kinds, about);
        profile.took(self.when.saturating_duration_since(before.when));
        for (id, (name, used)) in &self.threads {
            let known = before.threads.get(id).filter(|(known, _)| known == name);
            let used = used.saturating_sub(known.map_or(0, |(_, used)| *used));
            if used > 0 {
                let used = i64::try_from(used).unwrap_or(i64::MAX);
                profile.add(&format!("thread {name} ({id})"), vec![1, used]);
            }
        }
        profile
    }
}

/// Nanoseconds on a processor.
/// <https://docs.kernel.org/scheduler/sched-stats.html#proc-pid-schedstat>
fn used(times: &str) -> Option<u64> {
    times.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_this_thread_is_told() {
        assert_eq!(used("1234 56 7\n"), Some(1234));
        let before = Times::read().unwrap();
        let mut sum = 0u64;
        while before.when.elapsed().as_millis() < 20 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let bytes = Times::read().unwrap().since(&before).to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(
            text.contains("thread ") && text.contains("nanoseconds"),
            "{text}"
        );
    }
}
