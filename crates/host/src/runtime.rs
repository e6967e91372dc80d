//! Threads.
//!
//! A process has one control runtime on its main thread, for everything that is
//! not on the path of a request. A process that serves requests also has
//! workers: one single-threaded runtime each, so that a connection never hops
//! between threads.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Runs `process` on the control runtime. An error becomes one fatal log line
/// and exit code 1.
pub fn main<F>(scope: &'static str, process: impl FnOnce() -> F) -> ExitCode
where
    F: Future<Output = Result<ExitCode, Box<dyn std::error::Error + Send + Sync>>>,
{
    crate::crypto::install();
    allow_many_files();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(async { process().await }) {
        Ok(code) => code,
        Err(error) => {
            // It may be the set-up of the log that failed.
            let _ = outrider_telemetry::log::init(&outrider_telemetry::log::Options {
                version: crate::VERSION,
                ..Default::default()
            });
            outrider_telemetry::log::fatal(scope, &error.to_string());
            ExitCode::FAILURE
        }
    };
    outrider_telemetry::log::flush();
    // A blocking call that never returns must not hold the process.
    runtime.shutdown_background();
    code
}

/// Every connection is an open file: raises the soft limit of open files to the
/// hard limit.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(target: "dapr.host", "the limit of open files stays as it is: {error}");
    }
}

/// Most workers that are started by default. Each has its own connections to
/// every peer, so more workers on a large machine would cost all its peers.
const MAX_WORKERS: usize = 8;

/// The threads that serve connections. Cloning shares them; they end when the
/// last clone is dropped.
#[derive(Clone, Debug)]
pub struct Workers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    handles: Vec<Handle>,
    next: AtomicUsize,
    end: CancellationToken,
}

std::thread_local! {
    static SLOT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Workers {
    /// Starts `wanted` threads, or one per processor that this process may
    /// use, but no more than 8.
    pub fn start(wanted: Option<usize>) -> std::io::Result<Self> {
        let processors = || std::thread::available_parallelism().map_or(1, |n| n.get());
        Self::with_threads(wanted.unwrap_or_else(|| processors().min(MAX_WORKERS)))
    }

    pub fn with_threads(count: usize) -> std::io::Result<Self> {
        let end = CancellationToken::new();
        let mut handles = Vec::with_capacity(count);
        for index in 0..count.max(1) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            handles.push(runtime.handle().clone());
            let end = end.clone();
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    SLOT.set(index + 1);
                    runtime.block_on(end.cancelled());
                    runtime.shutdown_background();
                })?;
        }
        Ok(Self {
            shared: Arc::new(Shared {
                handles,
                next: AtomicUsize::new(0),
                end,
            }),
        })
    }

    pub fn len(&self) -> usize {
        self.shared.handles.len()
    }

    pub fn is_empty(&self) -> bool {
        self.shared.handles.is_empty()
    }

    /// The runtime of the worker whose turn it is.
    pub fn next(&self) -> Handle {
        let turn = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.handles[turn % self.shared.handles.len()].clone()
    }

    /// Number of values of [`Workers::slot`].
    pub fn slots(&self) -> usize {
        self.len() + 1
    }

    /// Which worker the calling thread is, from 1 on; 0 on any other thread.
    /// Pools that keep connections on the thread that uses them have one part
    /// per slot: a connection is driven by the runtime that opened it.
    pub fn slot() -> usize {
        SLOT.get()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
