//! One row of the table in one round: requests along a path of processes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::backend::Backend;
use crate::load::{self, Outcome, Shot};
use crate::measure;

/// Processes that a request passes, and what it ends at.
pub struct Path<'a> {
    pub processes: &'a [u32],
    pub backend: &'a Backend,
}

pub struct Row {
    pub outcome: Outcome,
    /// Processor time of all processes per request, in microseconds.
    pub cpu: f64,
}

/// What each request of a row has to lead to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// In a call of the application, before the answer.
    Call,
    /// In an event of the application, now or later.
    Event,
    /// In the sidecar.
    Sidecar,
}

impl Path<'_> {
    fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(|id| measure::cpu(*id)).sum()
    }

    pub async fn row(
        &self,
        shot: &Shot,
        ends: Ends,
        connections: usize,
        time: Duration,
    ) -> Result<Row> {
        let backend = self.backend;
        let events = backend.events();
        let warm = load::fire(shot, connections, time / 4)
            .await
            .context("warming up")?;
        if ends == Ends::Event {
            backend.delivered(events + warm.times.len() as u64).await?;
        }
        let (cpu, calls, events) = (self.cpu()?, backend.calls(), backend.events());
        let outcome = load::fire(shot, connections, time).await?;
        let count = outcome.times.len();
        match ends {
            Ends::Event => backend.delivered(events + count as u64).await?,
            Ends::Sidecar => {}
            Ends::Call => {
                let reached = backend.calls() - calls;
                ensure!(
                    usize::try_from(reached)? == count,
                    "{reached} of {count} calls reached the application"
                );
            }
        }
        let cpu = (self.cpu()? - cpu).as_secs_f64() * 1e6 / count as f64;
        Ok(Row { outcome, cpu })
    }

    /// A call without a body; `path` is where the application's `/get` is.
    pub async fn get(
        &self,
        port: u16,
        path: String,
        connections: usize,
        time: Duration,
    ) -> Result<Row> {
        let shot = Shot {
            answer: Some("hello".into()),
            ..Shot::get(port, path)
        };
        self.row(&shot, Ends::Call, connections, time).await
    }

    /// A kibibyte there and back; `path` is where the application's `/echo` is.
    pub async fn echo(
        &self,
        port: u16,
        path: String,
        connections: usize,
        time: Duration,
    ) -> Result<Row> {
        let body = bytes::Bytes::from(vec![b'x'; 1024]);
        let shot = Shot {
            answer: Some(body.clone()),
            ..Shot::post(port, path, body)
        };
        self.row(&shot, Ends::Call, connections, time).await
    }
}
