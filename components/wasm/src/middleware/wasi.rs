//! The part of WASI that languages need to start: output, clocks, random
//! numbers, and an environment without anything in it. No files and no sockets.
//! <https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md>

use std::time::{SystemTime, UNIX_EPOCH};

use wasmtime::{Caller, Linker, Result, bail};

use super::guest::{LOG, State, charge, memory, write};

const MODULE: &str = "wasi_snapshot_preview1";

const SUCCESS: i32 = 0;
const BAD_DESCRIPTOR: i32 = 8;
const INVALID: i32 = 28;
const NOT_SUPPORTED: i32 = 58;

/// Bytes of a line that are logged.
const LONGEST: usize = 4096;

/// Clocks and random numbers. Those of a strict sandbox say nothing of this
/// machine.
pub struct Sandbox {
    strict: bool,
    ticks: u64,
}

impl Sandbox {
    pub fn new(strict: bool) -> Sandbox {
        Sandbox { strict, ticks: 0 }
    }

    fn now(&mut self) -> u64 {
        if self.strict {
            self.ticks += 1_000_000;
            return self.ticks;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanoseconds = since.map(|since| since.as_nanos()).unwrap_or_default();
        u64::try_from(nanoseconds).unwrap_or(u64::MAX)
    }

    fn random(&mut self, bytes: &mut [u8]) {
        if !self.strict {
            // Zeros where the system has none.
            let _ = aws_lc_rs::rand::fill(bytes);
            return;
        }
        for chunk in bytes.chunks_mut(8) {
            self.ticks += 1;
            let word = self.ticks.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}

type Guest<'a> = Caller<'a, State>;

pub fn add(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap(
        MODULE,
        "random_get",
        |mut guest: Guest<'_>, at: u32, length: u32| -> Result<i32> {
            // As much as a key has at most.
            let mut bytes = vec![0; (length as usize).min(1 << 16)];
            // Their making costs more than their copy.
            charge(&mut guest, 10 * bytes.len())?;
            guest.data_mut().sandbox.random(&mut bytes);
            write(&mut guest, at, &bytes)?;
            Ok(SUCCESS)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "clock_time_get",
        |mut guest: Guest<'_>, _: i32, _: i64, at: u32| -> Result<i32> {
            let now = guest.data_mut().sandbox.now();
            write(&mut guest, at, &now.to_le_bytes())?;
            Ok(SUCCESS)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "clock_res_get",
        |mut guest: Guest<'_>, _: i32, at: u32| -> Result<i32> {
            write(&mut guest, at, &1_u64.to_le_bytes())?;
            Ok(SUCCESS)
        },
    )?;
    for name in ["environ_sizes_get", "args_sizes_get"] {
        linker.func_wrap(
            MODULE,
            name,
            |mut guest: Guest<'_>, count: u32, size: u32| -> Result<i32> {
                write(&mut guest, count, &[0; 4])?;
                write(&mut guest, size, &[0; 4])?;
                Ok(SUCCESS)
            },
        )?;
    }
    for name in ["environ_get", "args_get"] {
        linker.func_wrap(MODULE, name, |_: u32, _: u32| SUCCESS)?;
    }
    linker.func_wrap(MODULE, "sched_yield", || SUCCESS)?;
    linker.func_wrap(MODULE, "proc_exit", |code: i32| -> Result<()> {
        bail!("the guest exits with {code}")
    })?;
    // Descriptors other than those of output do not exist.
    linker.func_wrap(MODULE, "fd_close", |_: i32| BAD_DESCRIPTOR)?;
    linker.func_wrap(MODULE, "fd_fdstat_get", |_: i32, _: u32| BAD_DESCRIPTOR)?;
    linker.func_wrap(MODULE, "fd_fdstat_set_flags", |_: i32, _: i32| {
        BAD_DESCRIPTOR
    })?;
    linker.func_wrap(MODULE, "fd_prestat_get", |_: i32, _: u32| BAD_DESCRIPTOR)?;
    linker.func_wrap(MODULE, "fd_prestat_dir_name", |_: i32, _: u32, _: u32| {
        BAD_DESCRIPTOR
    })?;
    linker.func_wrap(MODULE, "fd_read", |_: i32, _: u32, _: u32, _: u32| {
        BAD_DESCRIPTOR
    })?;
    linker.func_wrap(MODULE, "fd_seek", |_: i32, _: i64, _: i32, _: u32| {
        BAD_DESCRIPTOR
    })?;
    linker.func_wrap(MODULE, "poll_oneoff", |_: u32, _: u32, _: u32, _: u32| {
        NOT_SUPPORTED
    })?;
    Ok(())
}

/// Output goes to the log.
fn fd_write(
    mut guest: Guest<'_>,
    descriptor: i32,
    vectors: u32,
    count: u32,
    at: u32,
) -> Result<i32> {
    if !matches!(descriptor, 1 | 2) {
        return Ok(BAD_DESCRIPTOR);
    }
    charge(&mut guest, LOG)?;
    let memory = memory(&mut guest)?;
    let data = memory.data(&guest);
    let mut text = Vec::new();
    let mut length = 0_u32;
    for number in 0..count.min(1024) {
        let Some(vector) = word(data, vectors, number * 2).zip(word(data, vectors, number * 2 + 1))
        else {
            return Ok(INVALID);
        };
        let (start, size) = (vector.0 as usize, vector.1 as usize);
        let Some(bytes) = data.get(start..).and_then(|data| data.get(..size)) else {
            return Ok(INVALID);
        };
        length = length.saturating_add(vector.1);
        let room = LONGEST.saturating_sub(text.len());
        text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    let stream = if descriptor == 1 { "stdout" } else { "stderr" };
    let text = String::from_utf8_lossy(&text);
    tracing::debug!(target: super::SCOPE, "wasm {stream}: {}", text.trim_end());
    write(&mut guest, at, &length.to_le_bytes())?;
    Ok(SUCCESS)
}

/// A number of four bytes in memory.
fn word(data: &[u8], start: u32, number: u32) -> Option<u32> {
    let start = start as usize + number as usize * 4;
    let bytes = data.get(start..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}
