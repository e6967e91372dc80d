//! `daprd`: the sidecar.

fn main() -> std::process::ExitCode {
    outrider_sidecar::main()
}
