use std::time::Duration;

use anyhow::{Context, Result};

use crate::flags::Flags;
use crate::pair::Pair;
use crate::table::Table;

/// Connections of the rows that are about throughput.
const MANY: usize = 16;
/// How often each binary is started.
const BOOTS: usize = 7;
/// After this long without a call a sidecar is idle.
const SETTLE: Duration = Duration::from_secs(3);

pub async fn run(flags: &Flags) -> Result<()> {
    let mut table = Table::new(
        flags
            .binaries
            .iter()
            .map(|(name, _)| name.clone())
            .collect(),
    );
    let mut pairs = Vec::new();
    for (index, (name, path)) in flags.binaries.iter().enumerate() {
        let size = std::fs::metadata(path)
            .with_context(|| path.display().to_string())?
            .len();
        table.add("size MB", index, size as f64 / 1e6);
        let path = std::fs::canonicalize(path)?;
        pairs.push(
            Pair::start(&path, index)
                .await
                .with_context(|| name.clone())?,
        );
    }
    tokio::time::sleep(SETTLE).await;
    for (index, pair) in pairs.iter().enumerate() {
        table.add("idle MiB", index, pair.memory()?);
    }
    for round in 0..=BOOTS {
        for (index, pair) in pairs.iter().enumerate() {
            let took = pair.boot().await?;
            // The first start fills the page cache.
            if round > 0 {
                table.add("ready ms", index, took.as_secs_f64() * 1e3);
            }
        }
    }
    for round in 0..flags.rounds {
        eprintln!("round {} of {}", round + 1, flags.rounds);
        for (index, pair) in pairs.iter().enumerate() {
            let name = || flags.binaries[index].0.clone();
            measure(&mut table, index, pair, flags.time)
                .await
                .with_context(name)?;
        }
    }
    for (index, pair) in pairs.iter().enumerate() {
        table.add("loaded MiB", index, pair.memory()?);
    }
    print!("{table}");
    Ok(())
}

async fn measure(table: &mut Table, index: usize, pair: &Pair, time: Duration) -> Result<()> {
    let row = pair.invoke(1, time).await?;
    table.add("invoke, 1 conn: p50 us", index, row.outcome.quantile(0.5));
    let row = pair.invoke(MANY, time).await?;
    table.add("invoke, 16 conn: req/s", index, row.outcome.rate());
    table.add("invoke, 16 conn: CPU us", index, row.cpu);
    table.add("invoke, 16 conn: p99 us", index, row.outcome.quantile(0.99));
    let row = pair.echo(MANY, time).await?;
    table.add("echo 1 KiB: req/s", index, row.outcome.rate());
    table.add("echo 1 KiB: CPU us", index, row.cpu);
    let row = pair.state_get(MANY, time).await?;
    table.add("state get: CPU us", index, row.cpu);
    let row = pair.state_save(MANY, time).await?;
    table.add("state save: CPU us", index, row.cpu);
    Ok(())
}
