//! `simulate [--world actors|jobs] [--first N] [--seeds N] [--trace]`: runs a
//! world for each seed, and says which ones saw what must not be.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use outrider_simulate::{Report, Violation, World, run};

struct Options {
    worlds: Vec<World>,
    seeds: Range<u64>,
    /// Prints what happens.
    trace: bool,
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).and_then(|options| simulate(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("simulate: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let (mut worlds, mut first, mut count, mut trace) = (Vec::new(), 1, 1000, false);
    while let Some(name) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.with_context(|| format!("{name} wants a value"))
        };
        match &*name {
            "--world" => worlds.push(value()?.parse().map_err(anyhow::Error::msg)?),
            "--first" => first = value()?.parse().context("--first wants a number")?,
            "--seeds" => count = value()?.parse().context("--seeds wants a number")?,
            "--trace" => trace = true,
            _ => bail!("{name} is not known: there are --world, --first, --seeds and --trace"),
        }
    }
    if worlds.is_empty() {
        worlds = World::ALL.to_vec();
    }
    let end = u64::checked_add(first, count).context("there are not so many seeds")?;
    let seeds = first..end;
    Ok(Options {
        worlds,
        seeds,
        trace,
    })
}

/// Whether all runs were well.
fn simulate(options: &Options) -> Result<bool> {
    let mut all_well = true;
    for world in &options.worlds {
        let begun = Instant::now();
        let (reports, violations) = runs(*world, options)?;
        let took = begun.elapsed();
        for (seed, violation) in &violations {
            println!("{world}: seed {seed}: {violation}");
        }
        let total = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
        let time: Duration = reports.iter().map(|report| report.time).sum();
        println!(
            "{world}: {} of {} seeds are well: {:.1} hours in {:.1}s ({:.0} times as fast), {} done, {} failed",
            reports.len(),
            reports.len() + violations.len(),
            time.as_secs_f64() / 3600.0,
            took.as_secs_f64(),
            time.as_secs_f64() / took.as_secs_f64(),
            total(|report| report.done),
            total(|report| report.failed),
        );
        all_well &= violations.is_empty();
    }
    Ok(all_well)
}

type Runs = (Vec<Report>, Vec<(u64, Violation)>);

fn runs(world: World, options: &Options) -> Result<Runs> {
    let next = AtomicU64::new(options.seeds.start);
    let results = Mutex::new((Vec::new(), Vec::new()));
    let threads = match options.trace {
        true => 1,
        false => std::thread::available_parallelism()?.get(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= options.seeds.end {
                        return;
                    }
                    let result = run(world, seed, options.trace);
                    let mut results = results.lock().unwrap_or_else(|e| e.into_inner());
                    match result {
                        Ok(report) => results.0.push(report),
                        Err(violation) => results.1.push((seed, violation)),
                    }
                }
            });
        }
    });
    let (reports, mut violations) = results.into_inner().unwrap_or_else(|e| e.into_inner());
    violations.sort_by_key(|(seed, _)| *seed);
    Ok((reports, violations))
}
