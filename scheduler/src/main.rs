//! scheduler: keeps jobs, and triggers them on sidecars.

use outrider_scheduler::child;

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|it| it == child::GUARD).is_some() {
        return child::become_guarded(arguments);
    }
    outrider_host::main("dapr.scheduler", || {
        outrider_scheduler::app::run(outrider_scheduler::flags::Flags::read())
    })
}
