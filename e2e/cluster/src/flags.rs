//! What can be chosen about a cluster, from the environment and on the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};
use outrider_kit::flags::error_line;

/// How to boot or find a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything that a running cluster writes; removed when it ends.
    pub work: PathBuf,
    /// Built programs, kept between clusters.
    pub cache: PathBuf,
    /// A cluster that somebody else runs, to be used instead of an own one.
    pub kubeconfig: Option<PathBuf>,
    /// How long a boot may take, without the time to build and install what is missing.
    pub limit: Duration,
    /// No progress on standard error.
    pub quiet: bool,
}

impl Options {
    /// `OUTRIDER_CLUSTER_DIR`, `OUTRIDER_CLUSTER_KUBECONFIG`, and `XDG_CACHE_HOME` or `HOME`.
    pub fn from_env() -> Result<Self> {
        let folder = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let cache = folder("XDG_CACHE_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".cache")))
            .context("neither HOME nor XDG_CACHE_HOME is set; set one, the cluster's programs are kept there")?
            .join("outrider");
        Ok(Self {
            work: folder("OUTRIDER_CLUSTER_DIR").unwrap_or_else(|| cache.join("cluster")),
            cache,
            kubeconfig: folder("OUTRIDER_CLUSTER_KUBECONFIG"),
            limit: Duration::from_secs(120),
            quiet: false,
        })
    }

    /// A cluster beside the default one, never shared with it.
    pub fn separate(mut self, name: &str) -> Self {
        self.work = self.cache.join(name);
        self.kubeconfig = None;
        self
    }
}

/// True where a cluster can be booted. Elsewhere the caller's test is skipped, loudly; with `CI=true` it fails.
pub fn may_boot() -> bool {
    let root = rustix::process::geteuid().is_root();
    let shared = std::env::var_os("OUTRIDER_CLUSTER_KUBECONFIG").is_some();
    if root || shared {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "CI=true but this is not root: the cluster tests can't run; run them as root or set OUTRIDER_CLUSTER_KUBECONFIG"
    );
    eprintln!("SKIPPED: a cluster needs root; run as root or set OUTRIDER_CLUSTER_KUBECONFIG");
    false
}

/// A Kubernetes of one node on this machine.
#[derive(Parser)]
#[command(name = "cluster")]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Boot the cluster and keep it until this program ends.
    Up {
        /// Leave it running in the background; `cluster down` ends it.
        #[arg(long)]
        detach: bool,
    },
    /// End the cluster and remove everything it left.
    Down,
    /// Say whether the cluster runs, and where its files are.
    Status,
    /// Put an image archive into the cluster.
    Load { archive: PathBuf },
    /// Run kubectl on the cluster.
    #[command(disable_help_flag = true)]
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run helm on the cluster.
    #[command(disable_help_flag = true)]
    Helm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// The command line. If it asks for help, or can't be read, that is printed and the exit code is returned.
pub(crate) fn parse() -> Result<Flags, ExitCode> {
    Flags::try_parse().map_err(|error| {
        if !error.use_stderr() {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        eprintln!("{}", error_line(&error, &Flags::command()));
        ExitCode::from(2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_is_answered_in_one_line() {
        for (words, wanted) in [
            (
                &["stauts"][..],
                "unknown command: stauts; did you mean status? See cluster --help",
            ),
            (
                &["up", "--detatch"],
                "unknown flag: --detatch; did you mean --detach? See cluster --help",
            ),
            (&[], "a command is missing; see cluster --help"),
        ] {
            let words = std::iter::once("cluster").chain(words.iter().copied());
            let error = Flags::try_parse_from(words).err().unwrap();
            assert_eq!(error_line(&error, &Flags::command()), wanted);
        }
    }
}
