//! Ports for the processes of a test.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what the kernel gives to outgoing connections, so that none of them
/// takes a port between its choice and its use.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A free port of the loopback address, different in every call of this
/// process.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Each process starts at another place, so that they do not collide.
    let start = (std::process::id() % 200) as u16 * (COUNT / 200);
    loop {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + turn % COUNT) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
