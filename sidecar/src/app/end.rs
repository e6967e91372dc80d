//! How one life of the runtime ends.

use std::process::ExitCode;
use std::time::Duration;

use outrider_host::Tasks;
use outrider_host::signal::{Signal, Signals};
use outrider_kit::duration;
use outrider_telemetry::log;

use super::{End, Failure, Runtime, SCOPE};
use crate::blocks::shutdown::Asked;
use crate::flags::Flags;
use crate::resources::follow::Restart;

/// What asked for the end.
pub enum Ask {
    Signal(Signal),
    Api(Asked),
    Resources(Restart),
}

pub async fn ended_early(signal: Signal, tasks: &Tasks) -> Result<End, Failure> {
    announce(signal);
    tasks.stop(Some(Duration::from_secs(1))).await;
    if signal == Signal::Hangup {
        return Ok(End::Restart);
    }
    tracing::info!(target: SCOPE, "Daprd shutdown gracefully");
    Ok(End::Exit(ExitCode::SUCCESS))
}

fn announce(signal: Signal) {
    let what = if signal == Signal::Hangup {
        "restarting"
    } else {
        "beginning shutdown"
    };
    tracing::info!(target: SCOPE, "Received signal '{}'; {what}", signal.name());
}

impl Runtime {
    pub async fn end(
        mut self,
        flags: &Flags,
        signals: &mut Signals,
        asked: Ask,
    ) -> Result<End, Failure> {
        let restart = match asked {
            Ask::Resources(Restart) => true,
            Ask::Signal(signal) => {
                announce(signal);
                signal == Signal::Hangup
            }
            Ask::Api(Asked::Graceful) => {
                tracing::info!(target: SCOPE, "Shutdown requested via API");
                false
            }
            Ask::Api(Asked::Forced) => {
                tracing::warn!(target: SCOPE, "Force shutdown requested, exiting immediately without graceful shutdown");
                // The answer to the request goes out first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                return Ok(End::Exit(ExitCode::FAILURE));
            }
        };
        if let Some(block) = flags.shutdown.block.filter(|_| !restart) {
            self.secure.not_ready();
            if let Some(signal) = self.block(block, signals).await {
                return Ok(impatient(signal));
            }
        }
        if flags.shutdown.grace.is_none() {
            tracing::warn!(target: SCOPE, "Graceful shutdown timeout is infinite, will wait indefinitely to shutdown");
        }
        let finished = tokio::select! {
            signal = signals.shutdown() => return Ok(impatient(signal)),
            finished = self.drain(flags.shutdown.grace) => finished,
        };
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
        if !finished {
            log::fatal(
                SCOPE,
                "Graceful shutdown timeout exceeded, forcing shutdown",
            );
            return Ok(End::Exit(ExitCode::FAILURE));
        }
        if restart {
            return Ok(End::Restart);
        }
        tracing::info!(target: SCOPE, "Daprd shutdown gracefully");
        Ok(End::Exit(ExitCode::SUCCESS))
    }

    /// Goes on serving for a while. Returns the signal that cut it short.
    async fn block(&mut self, block: Duration, signals: &mut Signals) -> Option<Signal> {
        tracing::info!(target: SCOPE, "Blocking graceful shutdown for {} or until app reports unhealthy...", duration::format(block));
        self.subscriber.finish();
        self.readers.finish();
        self.jobs.finish();
        self.leaving.set();
        let mut health = self.health.subscribe();
        let probing = self.probes.is_some();
        let unhealthy = async {
            if !probing || health.wait_for(|healthy| !healthy).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            signal = signals.shutdown() => return Some(signal),
            () = tokio::time::sleep(block) => tracing::info!(target: SCOPE, "Block shutdown period expired, entering shutdown..."),
            () = unhealthy => tracing::info!(target: SCOPE, "App reported unhealthy, entering shutdown..."),
        }
        None
    }

    /// Ends what is left, within one deadline for all of it.
    async fn drain(&mut self, grace: Option<Duration>) -> bool {
        let work = async {
            tracing::info!(target: SCOPE, "Dapr is shutting down");
            if let Some(resolver) = &self.resolver
                && let Err(error) = resolver.close().await
            {
                tracing::warn!(target: SCOPE, "error closing name resolver: {error}");
            }
            self.jobs.finish();
            self.actors.leave(grace).await;
            tokio::join!(
                self.subscriber.end(),
                self.readers.end(),
                self.configuration.finish()
            );
            self.serving.stop(None).await;
            self.live.close().await;
            self.tasks.stop(None).await;
            tracing::info!(target: SCOPE, "Dapr runtime stopped");
        };
        match grace {
            None => {
                work.await;
                true
            }
            Some(grace) => tokio::time::timeout(grace, work).await.is_ok(),
        }
    }
}

fn impatient(signal: Signal) -> End {
    log::fatal(
        SCOPE,
        &format!(
            "Received signal '{}' during shutdown; exiting immediately",
            signal.name()
        ),
    );
    End::Exit(ExitCode::FAILURE)
}
