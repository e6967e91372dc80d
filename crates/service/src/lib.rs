//! The skeleton of a service of the control plane.
//!
//! A service is its flags (`flags.rs`, with [`Settings`] in them), a [`Service`]
//! that says how it presents itself, and a function that starts its parts one
//! after the other on a [`Process`]. This crate has the parts that services
//! share: the health and metrics pages, an identity from sentry
//! ([`Identity`]), its trust anchors in the API server ([`Publication`]), a
//! leader among replicas ([`Election`]), and the control plane's Configuration
//! ([`wait_for_configuration`]).

mod configuration;
mod election;
pub mod flag;
mod identity;
mod process;
mod publication;
mod settings;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use outrider_host::signal::Signals;
use outrider_host::{OUTRIDER_VERSION, VERSION};
use outrider_kit::error;
use outrider_telemetry::log;

pub use configuration::wait_for_configuration;
pub use election::Election;
pub use identity::Identity;
pub use process::Process;
pub use publication::Publication;
pub use settings::Settings;

/// What [`outrider_host::main`] takes for the end of a process.
pub type Failure = Box<dyn Error + Send + Sync>;

/// How a service presents itself.
pub struct Service {
    /// Name in log lines.
    pub name: &'static str,
    /// Writes a log line in the service's scope.
    pub log: fn(&str),
    /// What the log says when it has ended well.
    pub ended: &'static str,
    /// Time for what is under way when the process is asked to end.
    pub grace: Duration,
}

impl Service {
    /// Sets up the log, starts the service and waits for a signal. What `start`
    /// leaves in the process's tasks goes on until then, and may finish within
    /// the time of grace. A signal ends a start that is not complete.
    pub async fn run<T, E, F>(
        self,
        flags: Result<T, E>,
        settings: impl FnOnce(&T) -> &Settings,
        start: impl FnOnce(T, Process) -> F,
    ) -> Result<ExitCode, Failure>
    where
        E: Into<Failure>,
        F: Future<Output = anyhow::Result<()>>,
    {
        let mut signals = Signals::new()?;
        // Before anything else, so that whatever fails becomes a log line.
        let level = init_log(flags.as_ref().ok().map(settings))?;
        let flags = flags.map_err(Into::into)?;
        let log = self.log;
        log(&format!(
            "Starting {} -- version {VERSION} -- commit outrider-{OUTRIDER_VERSION}",
            self.name
        ));
        log(&format!("Log level set to: {level}"));
        let process = Process::new();
        let started_until_signal = async {
            start(flags, process.clone()).await?;
            std::future::pending().await
        };
        let ended: anyhow::Result<()> = tokio::select! {
            signal = signals.shutdown() => {
                log(&format!("Received signal '{}'; beginning shutdown", signal.name()));
                Ok(())
            }
            failed = started_until_signal => failed,
        };
        process.tasks.stop(Some(self.grace)).await;
        ended.map_err(|error| error::chain(&*error))?;
        log(self.ended);
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the level.
fn init_log(settings: Option<&Settings>) -> Result<String, log::Error> {
    let settings = settings.map(|it| it.log.clone());
    let options = settings.unwrap_or_else(|| log::Options {
        level: "info".to_owned(),
        version: VERSION,
        ..Default::default()
    });
    log::init(&options)?;
    Ok(options.level)
}

/// What the names of Services end with in this cluster, such as
/// `cluster.local`; nothing outside of one.
pub fn cluster_domain() -> Option<String> {
    let resolver = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    outrider_kit::kubernetes::cluster_domain(&resolver)
}
