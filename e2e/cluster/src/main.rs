//! `cluster`: a Kubernetes of one node on this machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    outrider_cluster::main()
}
