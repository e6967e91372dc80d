//! placement: tells the sidecars of each namespace which of them host which
//! actors.

fn main() -> std::process::ExitCode {
    outrider_placement::main()
}
