use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use outrider_harness::Sentry;

use crate::blocks::Blocks;
use crate::flags::Flags;
use crate::nginx::{self, Proxies};
use crate::pair::Pair;
use crate::row::Row;
use crate::table::{Column, Table};

/// Connections of the rows that are about throughput.
const MANY: usize = 16;
/// How often each binary is started.
const BOOTS: usize = 7;

/// One binary and what runs of it.
struct Subject {
    name: String,
    plain: Pair,
    mtls: Option<Pair>,
    blocks: Option<Blocks>,
}

/// Two nginx in a row.
struct Limit {
    plain: Proxies,
    mtls: Option<Proxies>,
}

pub async fn run(flags: &Flags) -> Result<()> {
    let names = flags.binaries.iter().map(|(name, _)| name.clone());
    let mut table = Table::new(names.collect(), flags.limit);
    let described = describe(flags)?;
    let sentry = match flags.mtls {
        true => Some(Sentry::start().await.context("sentry, for mTLS")?),
        false => None,
    };
    let mut subjects = Vec::new();
    for (index, (name, path)) in flags.binaries.iter().enumerate() {
        let size = std::fs::metadata(path)
            .with_context(|| path.display().to_string())?
            .len();
        table.add("size MB", Column::Binary(index), size as f64 / 1e6);
        let subject = start(name, path, index, sentry.as_ref(), flags.blocks);
        subjects.push(subject.await.with_context(|| name.clone())?);
    }
    let limit = match flags.limit {
        true => Some(Limit {
            plain: Proxies::start(false).await.context("nginx")?,
            mtls: match flags.mtls {
                true => Some(Proxies::start(true).await.context("nginx with TLS")?),
                false => None,
            },
        }),
        false => None,
    };
    memory(&mut table, &subjects, "idle", flags.rest).await?;
    for round in 0..=BOOTS {
        for (index, subject) in subjects.iter().enumerate() {
            let took = subject.plain.boot().await?;
            // The first start fills the page cache.
            if round > 0 {
                let took = took.as_secs_f64() * 1e3;
                table.add("ready ms", Column::Binary(index), took);
            }
        }
    }
    for round in 0..flags.rounds {
        eprintln!("round {} of {}", round + 1, flags.rounds);
        for (index, subject) in subjects.iter().enumerate() {
            measure(&mut table, Column::Binary(index), subject, flags.time)
                .await
                .with_context(|| subject.name.clone())?;
        }
        if let Some(limit) = &limit {
            measure_limit(&mut table, limit, flags.time)
                .await
                .context("nginx")?;
        }
    }
    memory(&mut table, &subjects, "after load", flags.rest).await?;
    // What a process has printed is shown when it ends: before the table.
    drop((subjects, limit, sentry));
    print!("\n{described}\n{table}");
    Ok(())
}

async fn start(
    name: &str,
    path: &Path,
    index: usize,
    sentry: Option<&Sentry>,
    blocks: bool,
) -> Result<Subject> {
    let path = std::fs::canonicalize(path)?;
    Ok(Subject {
        name: name.to_owned(),
        plain: Pair::start(&path, index, None).await?,
        mtls: match sentry {
            Some(_) => Some(Pair::start(&path, index, sentry).await?),
            None => None,
        },
        blocks: match blocks {
            true => Some(Blocks::start(&path, index).await?),
            false => None,
        },
    })
}

/// What is measured, how, and on what.
fn describe(flags: &Flags) -> Result<String> {
    let mut text = format!(
        "{} processors; {} rounds of {} s per row, medians\n",
        std::thread::available_parallelism()?,
        flags.rounds,
        flags.time.as_secs()
    );
    for (name, path) in &flags.binaries {
        writeln!(text, "{name}: {}", build(path)?)?;
    }
    if flags.limit {
        let version = nginx::version()?;
        writeln!(
            text,
            "limit: two {version} in a row, on the same path; for state one that answers by itself"
        )?;
    }
    Ok(text)
}

/// What a binary says of its build. One of Go also carries its tags, which
/// choose the components, and its linker's flags.
fn build(path: &Path) -> Result<String> {
    let lines = |command: &mut Command| -> Result<Vec<String>> {
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().map(|line| line.trim().to_owned()).collect())
    };
    let mut build = lines(Command::new(path).arg("--build-info"))
        .with_context(|| path.display().to_string())?;
    // Go may be absent, and the program be of another language.
    let go = lines(Command::new("go").args(["version", "-m"]).arg(path)).unwrap_or_default();
    let kept = ["-tags=", "-ldflags=", "vcs.revision="];
    build.extend(go.iter().filter_map(|line| {
        let setting = line.strip_prefix("build")?.trim();
        kept.iter()
            .any(|start| setting.starts_with(start))
            .then(|| setting.to_owned())
    }));
    Ok(build.join(", "))
}

/// Memory after `rest` without a call.
async fn memory(table: &mut Table, subjects: &[Subject], when: &str, rest: Duration) -> Result<()> {
    eprintln!("{} s of rest", rest.as_secs());
    tokio::time::sleep(rest).await;
    let rested = rest.as_secs();
    for (index, subject) in subjects.iter().enumerate() {
        let column = Column::Binary(index);
        let row = format!("{when}, {rested} s of rest: MiB");
        table.add(&row, column, subject.plain.memory()?);
        if let Some(pair) = &subject.mtls {
            table.add(&format!("mTLS, {row}"), column, pair.memory()?);
        }
    }
    Ok(())
}

async fn measure(
    table: &mut Table,
    column: Column,
    subject: &Subject,
    time: Duration,
) -> Result<()> {
    let pair = &subject.plain;
    invocation(
        table,
        column,
        "",
        pair.invoke(1, time).await?,
        pair.invoke(MANY, time).await?,
    );
    echo(table, column, "", &pair.echo(MANY, time).await?);
    if let Some(pair) = &subject.mtls {
        let (one, many) = (pair.invoke(1, time).await?, pair.invoke(MANY, time).await?);
        invocation(table, column, "mTLS, ", one, many);
        echo(table, column, "mTLS, ", &pair.echo(MANY, time).await?);
    }
    let row = pair.state_get(MANY, time).await?;
    table.add("state get: CPU us", column, row.cpu);
    let row = pair.state_save(MANY, time).await?;
    table.add("state save: CPU us", column, row.cpu);
    let row = pair.publish(MANY, time).await?;
    table.add("publish and deliver: events/s", column, row.outcome.rate());
    table.add("publish and deliver: CPU us", column, row.cpu);
    if let Some(blocks) = &subject.blocks {
        for (name, cpu) in blocks.rows(MANY, time).await? {
            table.add(&format!("{name}: CPU us"), column, cpu);
        }
    }
    Ok(())
}

async fn measure_limit(table: &mut Table, limit: &Limit, time: Duration) -> Result<()> {
    for (kind, proxies) in [("", Some(&limit.plain)), ("mTLS, ", limit.mtls.as_ref())] {
        let Some(proxies) = proxies else {
            continue;
        };
        let (one, many) = (proxies.get(1, time).await?, proxies.get(MANY, time).await?);
        invocation(table, Column::Limit, kind, one, many);
        echo(table, Column::Limit, kind, &proxies.echo(MANY, time).await?);
    }
    let row = limit.plain.state_get(MANY, time).await?;
    table.add("state get: CPU us", Column::Limit, row.cpu);
    let row = limit.plain.state_save(MANY, time).await?;
    table.add("state save: CPU us", Column::Limit, row.cpu);
    Ok(())
}

fn invocation(table: &mut Table, column: Column, kind: &str, one: Row, many: Row) {
    let mut add = |row: &str, value| table.add(&format!("{kind}invoke, {row}"), column, value);
    add("1 conn: p50 us", one.outcome.quantile(0.5));
    add("1 conn: CPU us", one.cpu);
    add("16 conn: req/s", many.outcome.rate());
    add("16 conn: CPU us", many.cpu);
    add("16 conn: p99 us", many.outcome.quantile(0.99));
}

fn echo(table: &mut Table, column: Column, kind: &str, row: &Row) {
    let mut add =
        |name: &str, value| table.add(&format!("{kind}echo 1 KiB: {name}"), column, value);
    add("req/s", row.outcome.rate());
    add("CPU us", row.cpu);
}
