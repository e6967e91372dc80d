//! This machine: its address, its name, ports and sockets.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use outrider_host::listen;
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, UnixListener};

/// Ports that are computed lie from here to the last one.
const FIRST_PORT: u16 = 47300;

/// The listener for other sidecars. Without a given port it is one that the
/// same application gets again on its next start, if it is free.
pub async fn internal_listener(
    given: Option<u16>,
    address: &str,
    app_id: &str,
) -> Result<TcpListener, String> {
    let failed = |port: u16, error: std::io::Error| {
        format!(
            "failed to start internal gRPC server: could not listen on any endpoint: {address}:{port}: {error}"
        )
    };
    if let Some(port) = given {
        return listen::tcp_with_retries(address, port)
            .await
            .map_err(|e| failed(port, e));
    }
    let port = computed_port(app_id);
    match listen::tcp(address, port).await {
        Ok(listener) => Ok(listener),
        Err(_) => listen::tcp(address, 0).await.map_err(|e| failed(0, e)),
    }
}

fn computed_port(app_id: &str) -> u16 {
    let folder = std::env::current_dir().unwrap_or_default();
    let user = rustix::process::getuid().as_raw();
    let digest = Sha256::digest(format!("{app_id}|{}|{user}|{}", folder.display(), name()));
    FIRST_PORT + u16::from_le_bytes([digest[0], digest[1]]) % (u16::MAX - FIRST_PORT)
}

/// The machine's name.
pub fn name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

pub fn is_loopback(address: &str) -> bool {
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The address that others reach this machine at: the given one, or the one
/// from which it would reach the world. Nothing is sent to find out.
pub fn address(given: Option<&str>) -> Result<String, String> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    // Addresses reserved for documentation (RFC 5737, RFC 3849).
    for (from, to) in [
        ("0.0.0.0:0", "192.0.2.1:80"),
        ("[::]:0", "[2001:db8::1]:80"),
    ] {
        let found = UdpSocket::bind(from).and_then(|socket| {
            socket.connect(to)?;
            socket.local_addr()
        });
        if let Ok(address) = found
            && !address.ip().is_unspecified()
        {
            return Ok(address.ip().to_string());
        }
    }
    // Cut off from every network: only processes of this machine can call.
    Ok(Ipv4Addr::LOCALHOST.to_string())
}

/// Listens on a socket file. One without a listener is replaced.
pub fn unix_listener(path: &Path) -> std::io::Result<UnixListener> {
    if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// Polls the outbound health of a sidecar for a minute.
pub fn wait_for_outbound(port: &str) -> ExitCode {
    const LIMIT: Duration = Duration::from_secs(60);
    let url = format!("http://localhost:{port}/v1.0/healthz/outbound");
    eprintln!("Waiting for Dapr to be outbound ready (timeout: 60 seconds): url={url}\n");
    let start = Instant::now();
    let mut logged_at: Option<Instant> = None;
    loop {
        let error = match port
            .parse()
            .map_err(|_| format!("invalid port {port}"))
            .and_then(outbound_ready)
        {
            Ok(()) => {
                eprintln!("Dapr is outbound ready!");
                return ExitCode::SUCCESS;
            }
            Err(error) => error,
        };
        if start.elapsed() > LIMIT {
            eprintln!("timeout waiting for Dapr to become outbound ready. Last error: {error}");
            return ExitCode::FAILURE;
        }
        if logged_at.is_none_or(|t| t.elapsed() >= Duration::from_secs(1)) {
            eprintln!("Dapr outbound NOT ready yet: {error}");
            logged_at = Some(Instant::now());
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

fn outbound_ready(port: u16) -> Result<(), String> {
    const LIMIT: Duration = Duration::from_millis(500);
    let ask = || -> std::io::Result<String> {
        let mut stream =
            TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(
            b"GET /v1.0/healthz/outbound HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|e| e.to_string())?;
    match answer.split_whitespace().nth(1) {
        Some("204") => Ok(()),
        status => Err(format!("status {}", status.unwrap_or("missing"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_in_range_and_stable() {
        let port = computed_port("a");
        assert!(port >= FIRST_PORT);
        assert_eq!(port, computed_port("a"));
    }

    #[test]
    fn loopback_addresses() {
        for address in ["127.0.0.1", "localhost", "[::1]"] {
            assert!(is_loopback(address), "{address}");
        }
        for address in ["", "0.0.0.0", "10.0.0.1"] {
            assert!(!is_loopback(address), "{address}");
        }
    }
}
