//! sentry: the certificate authority of the control plane.

fn main() -> std::process::ExitCode {
    outrider_sentry::main()
}
