//! The `operator` process.

fn main() -> std::process::ExitCode {
    outrider_host::main("dapr.operator", || {
        outrider_operator::app::run(outrider_operator::flags::Flags::read())
    })
}
