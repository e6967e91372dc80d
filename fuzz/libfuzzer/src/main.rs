//! One program for all targets, which are linked once: `OUTRIDER_FUZZ` names
//! the one to run. `cargo xtask fuzz` builds and starts it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use outrider_fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("OUTRIDER_FUZZ").unwrap_or_default();
    outrider_fuzz::target(&name).unwrap_or_else(|| panic!("OUTRIDER_FUZZ={name} is not a target"))
});

fuzz_target!(|bytes: &[u8]| (*TARGET)(bytes));
