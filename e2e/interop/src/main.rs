//! Our programs beside those of Dapr: sidecars call each other, share brokers and
//! stores, and use each other's placement and scheduler.
//!
//! The only argument is a folder with Dapr's `daprd`, `placement` and `scheduler`.
//! Every check runs in each mixture, and every line of the table is one check.

mod checks;
mod programs;
mod report;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};

use programs::Side;
use report::Report;

#[tokio::main]
async fn main() -> ExitCode {
    let folder = std::env::args_os().nth(1);
    let Some(folder) = folder else {
        eprintln!("interop: the folder with Dapr's daprd, placement and scheduler is missing");
        return ExitCode::from(2);
    };
    match run(Path::new(&folder)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("interop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
async fn run(folder: &Path) -> Result<bool> {
    let folder = folder
        .canonicalize()
        .context("the folder of Dapr's programs")?;
    for name in ["daprd", "placement", "scheduler"] {
        ensure!(
            folder.join(name).is_file(),
            "{name} is not in {}",
            folder.display()
        );
    }
    let (ours, theirs) = (Side::ours(), Side::theirs(&folder));
    let mut report = Report::default();
    for (first, second) in [(&ours, &theirs), (&theirs, &ours)] {
        checks::invoke::all(&mut report, first, second).await;
        checks::pubsub::all(&mut report, first, second).await;
        checks::state::all(&mut report, first, second).await;
        checks::jobs::all(&mut report, first, second).await;
        checks::actors::all(&mut report, first, second).await;
    }
    println!("{report}");
    Ok(report.is_well())
}
