//! The `cluster` program.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Command as Process, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::sleep;

use crate::boot::{Progress, State, prepare};
use crate::cluster::Cluster;
use crate::flags::{Command, Options, parse};
use crate::layout::Layout;
use crate::sandbox::Sandbox;
use crate::wait::wait;

const END: Duration = Duration::from_secs(60);

pub fn main() -> ExitCode {
    let flags = match parse() {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match run(flags.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(command: Command) -> Result<ExitCode> {
    let options = Options::from_env()?;
    let layout = Layout::new(&options.work, &options.cache)?;
    match command {
        Command::Up { detach: true } => detach(&layout, &options).await?,
        Command::Up { detach: false } => up(options).await?,
        Command::Down => down(&layout).await?,
        Command::Status => return Ok(status(&layout)),
        Command::Load { archive } => running(&layout)?.load_archive(&archive).await?,
        Command::Kubectl { arguments } => {
            bail!(running(&layout)?.kubectl_command().args(arguments).exec())
        }
        Command::Helm { arguments } => {
            bail!(running(&layout)?.helm_command().args(arguments).exec())
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn running(layout: &Layout) -> Result<Cluster> {
    let state =
        State::read(layout).context("no cluster runs; start one with `cluster up --detach`")?;
    Ok(Cluster::attach(layout.clone(), state.network))
}

/// A signal needs no handler: the node ends with this process and is cleaned up after.
async fn up(options: Options) -> Result<()> {
    let mut cluster = Cluster::boot(Options {
        kubeconfig: None,
        ..options
    })
    .await?;
    if !cluster.is_owned() {
        return Ok(());
    }
    eprintln!(
        "cluster: export KUBECONFIG={}",
        cluster.layout.kubeconfig().display()
    );
    loop {
        cluster.check()?;
        sleep(Duration::from_millis(500)).await;
    }
}

async fn detach(layout: &Layout, options: &Options) -> Result<()> {
    if State::read(layout).is_some() {
        eprintln!("cluster: already running");
        return Ok(());
    }
    prepare(layout, &Progress::new(options))?;
    let path = layout.cache.join("cluster.log");
    // The last cluster's owner may still write to the old file.
    let _ = std::fs::remove_file(&path);
    let log = File::create(&path)?;
    let mut child = Process::new(std::env::current_exe()?)
        .arg("up")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    let state = wait("the cluster", options.limit * 2, async || {
        if child.try_wait()?.is_some() && State::read(layout).is_none() {
            return Ok(Some(None));
        }
        Ok(State::read(layout).map(Some))
    })
    .await?;
    let log = std::fs::read_to_string(path)?;
    eprint!("{log}");
    if state.is_none() {
        bail!("the cluster did not start");
    }
    Ok(())
}

async fn down(layout: &Layout) -> Result<()> {
    match State::read(layout) {
        Some(state) => state.init.kill()?,
        None => eprintln!("cluster: none runs; removing what one may have left"),
    }
    wait(
        "the end of the cluster (is one booting?)",
        END,
        async || Ok(Sandbox::clean(layout)?.then_some(())),
    )
    .await
}

fn status(layout: &Layout) -> ExitCode {
    let Some(state) = State::read(layout) else {
        println!("no cluster runs");
        return ExitCode::FAILURE;
    };
    println!("running\nKUBECONFIG={}", layout.kubeconfig().display());
    println!("logs: {}", layout.at("log").display());
    println!(
        "node {}, this machine {}",
        state.network.node(),
        state.network.host()
    );
    ExitCode::SUCCESS
}
