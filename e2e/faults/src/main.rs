//! Our programs with real servers, under load, while something is killed, frozen or cut
//! off: what is lost, what comes twice, and how long it takes until all goes on. With
//! Dapr's programs the same beside it.
//!
//! A scenario is data: what runs, what befalls it. Each is a row of a table.

mod actors;
mod components;
mod flags;
mod load;
mod pod;
mod program;
mod proxy;
mod report;
mod sandbox;
mod side;
mod wait;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use outrider_kit::usage;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use flags::Flags;
use report::{Line, Row, Table};
use side::Side;

const HELP: &str = "faults --help";
/// How long what was killed is away, as a container is.
const DOWN: Duration = Duration::from_secs(1);
/// A scenario that is not over by then has failed.
const LIMIT: Duration = Duration::from_secs(400);

#[derive(Debug, Clone)]
enum Scenario {
    Components(components::Scenario),
    Actors(actors::Scenario),
}

impl Scenario {
    fn name(&self) -> String {
        match self {
            Scenario::Components(scenario) => scenario.name(),
            Scenario::Actors(scenario) => scenario.name(),
        }
    }

    fn is_short(&self) -> bool {
        match self {
            Scenario::Components(scenario) => scenario.is_short(),
            Scenario::Actors(scenario) => scenario.is_short(),
        }
    }

    fn is_wanted(&self, flags: &Flags) -> bool {
        let name = self.name();
        let has = |text: &Option<String>, without| {
            text.as_ref().map_or(without, |text| name.contains(text))
        };
        has(&flags.only, true) && !has(&flags.skip, false) && (!flags.short || self.is_short())
    }

    async fn run(&self, side: &Side, folder: &Path) -> Result<Row> {
        match self {
            Scenario::Components(scenario) => scenario.run(side, folder).await,
            Scenario::Actors(scenario) => scenario.run(side, folder).await,
        }
    }
}

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.first().map(String::as_str) {
        Some(components::app::WORD) => block_on(components::app::serve(&words[1..])).map(|()| true),
        Some("--help" | "-h") => {
            print!("{}", flags::USAGE);
            return ExitCode::SUCCESS;
        }
        Some(sandbox::INSIDE) => {
            words.remove(0);
            sandbox::prepare().and_then(|()| start(&words, true))
        }
        _ if sandbox::is_possible() => sandbox::enter(&words).map(|()| true),
        _ => start(&words, false),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// Whether all is well. `inside` is whether there are namespaces.
fn start(words: &[String], inside: bool) -> Result<bool> {
    let flags = match flags::parse(words.iter().cloned(), HELP) {
        Ok(flags) => flags,
        Err(line) => {
            eprintln!("{line}");
            std::process::exit(2);
        }
    };
    block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut end = signal(SignalKind::terminate())?;
        tokio::select! {
            done = run(&flags, inside) => done,
            _ = interrupt.recv() => anyhow::bail!("interrupted"),
            _ = end.recv() => anyhow::bail!("interrupted"),
        }
    })
}

async fn run(flags: &Flags, inside: bool) -> Result<bool> {
    let mut sides = vec![Side::ours()];
    if let Some(folder) = &flags.reference {
        let folder = folder
            .canonicalize()
            .context("the folder of Dapr's programs")?;
        for name in ["daprd", "placement", "scheduler"] {
            let is_there = folder.join(name).is_file();
            ensure!(is_there, "{name} is not in {}", folder.display());
        }
        sides.push(Side::theirs(&folder));
    }
    let components = components::scenarios(flags.long)
        .into_iter()
        .map(Scenario::Components);
    let actors = actors::scenarios(flags.long, inside)
        .into_iter()
        .map(Scenario::Actors);
    if !inside {
        eprintln!("without root nothing is cut off, and no disk is full: these rows are left out");
    }
    let mut is_well = true;
    for part in [components.collect::<Vec<_>>(), actors.collect()] {
        let wanted = part
            .into_iter()
            .filter(|scenario| scenario.is_wanted(flags));
        let wanted: Vec<Scenario> = wanted.collect();
        if flags.list {
            wanted
                .iter()
                .for_each(|scenario| println!("{}", scenario.name()));
            continue;
        }
        if wanted.is_empty() {
            continue;
        }
        let table = all(&wanted, &sides, flags).await?;
        println!("\n{table}");
        let ours = table
            .lines
            .iter()
            .filter(|line| line.side == sides[0].name());
        is_well &= ours.clone().all(Line::is_well);
    }
    Ok(is_well)
}

/// Runs scenarios, as many at a time as the flags say, and keeps their order.
async fn all(scenarios: &[Scenario], sides: &[Side], flags: &Flags) -> Result<Table> {
    let total = scenarios.len() * sides.len();
    let pairs = scenarios
        .iter()
        .flat_map(|it| sides.iter().map(move |side| (it, side)));
    let mut waiting = pairs.enumerate();
    let mut running = JoinSet::new();
    let mut lines = Vec::new();
    loop {
        while running.len() < flags.at_once
            && let Some((index, (scenario, side))) = waiting.next()
        {
            let (scenario, side, logs) = (scenario.clone(), side.clone(), flags.logs.clone());
            running.spawn(async move { (index, one(scenario, side, logs.as_deref()).await) });
        }
        let Some(done) = running.join_next().await else {
            break;
        };
        let (index, line) = done?;
        eprintln!("[{}/{total}] {line}", lines.len() + 1);
        lines.push((index, line));
    }
    lines.sort_by_key(|(index, _)| *index);
    let lines = lines.into_iter().map(|(_, line)| line).collect();
    Ok(Table { lines })
}

async fn one(scenario: Scenario, side: Side, logs: Option<&Path>) -> Line {
    let (name, of) = (scenario.name(), side.name());
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            let row = Err(error.to_string());
            return Line {
                scenario: name,
                side: of,
                row,
            };
        }
    };
    // Of its own, since servers that do not start panic.
    let mut task = JoinSet::new();
    let path = folder.path().to_owned();
    task.spawn(async move { tokio::time::timeout(LIMIT, scenario.run(&side, &path)).await });
    let row = match task.join_next().await {
        Some(Ok(Ok(Ok(row)))) => Ok(row),
        Some(Ok(Ok(Err(error)))) => Err(format!("{error:#}")),
        Some(Ok(Err(_))) => Err(format!("not over after {} s", LIMIT.as_secs())),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("it did not run".to_owned()),
    };
    let line = Line {
        scenario: name,
        side: of,
        row,
    };
    if let Some(logs) = logs.filter(|_| !line.is_well()) {
        let kept = keep(
            folder.path(),
            &logs.join(format!("{} {of}", line.scenario.replace('/', "_"))),
        );
        if let Err(error) = kept {
            eprintln!("the logs cannot be kept: {error:#}");
        }
    }
    line
}

/// Copies what programs and applications wrote.
fn keep(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
