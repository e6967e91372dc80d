//! What was checked, and how it went.

use std::fmt;
use std::time::Duration;

use crate::programs::Side;

/// One check hangs at most so long.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Report {
    lines: Vec<(String, Option<String>)>,
}

impl Report {
    /// Runs one check; `what` names the roles of both sides, in order.
    pub async fn check(
        &mut self,
        what: &str,
        first: &Side,
        second: &Side,
        check: impl Future<Output = anyhow::Result<()>>,
    ) {
        let name = format!("{what}: {} and {}", first.name(), second.name());
        let wrong = match tokio::time::timeout(LIMIT, check).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some(format!("not over after {} s", LIMIT.as_secs())),
        };
        eprintln!("{} {name}", if wrong.is_none() { "ok  " } else { "FAIL" });
        self.lines.push((name, wrong));
    }

    pub fn is_well(&self) -> bool {
        self.lines.iter().all(|(_, wrong)| wrong.is_none())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, wrong) in &self.lines {
            match wrong {
                None => writeln!(f, "ok    {name}")?,
                Some(wrong) => writeln!(f, "FAIL  {name}: {wrong}")?,
            }
        }
        let well = self.lines.iter().filter(|(_, wrong)| wrong.is_none());
        write!(
            f,
            "{} of {} checks are well",
            well.count(),
            self.lines.len()
        )
    }
}
