//! `cargo xtask demo`: builds what the demo runs, and starts it.

use std::cell::RefCell;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};

use crate::demo_flags::Flags;
use crate::progress::Line;
use crate::{programs, progress, run, setup};

/// Built without optimisation: what is shown takes no time.
const QUICK: &str = "demo";
/// Images that are written for a registry may be used for longer.
const RELEASE: &str = "release";
const DEMO: &str = "outrider-cluster";
const SELF_HOSTED: [&str; 2] = ["outrider-sidecar", "outrider-apps"];
const CONTROL_PLANE: [&str; 5] = [
    "outrider-operator",
    "outrider-sentry",
    "outrider-injector",
    "outrider-placement",
    "outrider-scheduler",
];

/// `words` are those that `flags` were read from.
pub fn run(flags: &Flags, words: &[String]) -> Result<()> {
    let boots = !flags.self_hosted && flags.save.is_none() && flags.context.is_none();
    let kubernetes = boots || flags.context.is_some();
    setup::demo(kubernetes, boots)?;
    let profile = match flags.save {
        Some(_) => RELEASE,
        None => QUICK,
    };
    let beside = kubernetes.then(Kubernetes::build).transpose()?;
    let status = || beside.as_ref().map_or(String::new(), Kubernetes::status);
    progress::build(profile, &packages(flags), status)?;
    if let Some(kubernetes) = beside {
        kubernetes.finish()?;
    }
    let folder = run::target()?.join(run::TRIPLE).join(profile);
    let mut demo = Command::new(folder.join("demo"));
    demo.args(words)
        // The folder of the crate, for the chart and the like.
        .env("CARGO_MANIFEST_DIR", run::root().join("e2e/cluster"));
    run::run(&mut demo)
}

/// Only what this demo runs.
fn packages(flags: &Flags) -> Vec<&'static str> {
    let mut packages = vec![DEMO];
    if flags.binaries.is_some() || flags.context.is_some() {
        return packages;
    }
    packages.extend(SELF_HOSTED);
    if !flags.self_hosted {
        packages.extend(CONTROL_PLANE);
    }
    packages
}

/// The build of Kubernetes, beside that of our programs. When ours fails it
/// goes on to its end: the next run finds what it made.
struct Kubernetes {
    thread: JoinHandle<Result<()>>,
    /// How far it is, every now and then.
    progress: Receiver<String>,
    last: RefCell<String>,
}

impl Kubernetes {
    fn build() -> Result<Kubernetes> {
        let cache = run::cache().context("no folder for Kubernetes: set HOME")?;
        let source = run::root().join("e2e/cluster/node");
        let (sender, progress) = channel();
        let thread = std::thread::spawn(move || {
            programs::build(&cache, &source, |what| {
                // Nobody listens any more when our own build has failed.
                let _ = sender.send(what.to_owned());
            })
        });
        Ok(Kubernetes {
            thread,
            progress,
            last: RefCell::default(),
        })
    }

    /// To be shown behind the progress of another build.
    fn status(&self) -> String {
        if let Some(what) = self.progress.try_iter().last() {
            self.last.replace(format!("; {what}"));
        }
        match self.thread.is_finished() {
            true => String::new(),
            false => self.last.borrow().clone(),
        }
    }

    fn finish(self) -> Result<()> {
        let mut line = Line::new();
        // Until the thread ends, and its sender with it.
        for what in &self.progress {
            line.show(&what)?;
        }
        line.end()?;
        let built = self.thread.join();
        built.map_err(|_| anyhow!("the build of Kubernetes panicked"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_the_demo_builds_what_it_runs() {
        let flags = Flags::default();
        assert_eq!(packages(&flags).len(), 8);
        let self_hosted = Flags {
            self_hosted: true,
            ..Flags::default()
        };
        assert_eq!(
            packages(&self_hosted),
            ["outrider-cluster", "outrider-sidecar", "outrider-apps"]
        );
        let pushed = Flags {
            context: Some("c".to_owned()),
            ..Flags::default()
        };
        assert_eq!(packages(&pushed), ["outrider-cluster"]);
    }
}
