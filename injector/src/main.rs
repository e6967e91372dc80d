//! The `injector` process.

fn main() -> std::process::ExitCode {
    outrider_host::main("dapr.injector", || {
        outrider_injector::app::run(outrider_injector::flags::Flags::read())
    })
}
