//! The same applications as plain processes on this machine.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use outrider_cluster::{product, wait};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::{Steps, stopped};

const LIMIT: Duration = Duration::from_secs(30);

/// An application and its sidecar; both end with this value.
struct Pair {
    app_port: u16,
    sidecar_port: u16,
    _processes: [Child; 2],
}

pub async fn run(binaries: &Path, steps: &mut Steps, exit: bool) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("outrider-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let shown = show(binaries, &folder, steps).await;
    if let Ok(pairs) = &shown
        && !exit
    {
        for (name, pair) in ["front", "orders"].iter().zip(pairs) {
            println!(
                "{name}: application on port {}, sidecar's API on port {}",
                pair.app_port, pair.sidecar_port
            );
        }
        println!("the processes run until you press Ctrl-C");
        stopped().await?;
    }
    drop(shown?);
    std::fs::remove_dir_all(&folder).context("cannot remove the folder of the demo")
}

async fn show(binaries: &Path, folder: &Path, steps: &mut Steps) -> Result<[Pair; 2]> {
    let pairs = steps
        .step(
            "start two applications with a sidecar each; state in SQLite",
            async || {
                let store = format!("file:{}", folder.join("state.db").display());
                let text = product::component(
                    "statestore",
                    "state.sqlite",
                    &[("connectionString", &store)],
                );
                std::fs::write(folder.join("statestore.yaml"), text)?;
                let front = pair(binaries, folder, "front").await?;
                let orders = pair(binaries, folder, "orders").await?;
                Ok([front, orders])
            },
        )
        .await?;
    steps
        .step(
            "front calls orders through both sidecars, found by mDNS",
            async || {
                let answer = wait("an answer of orders", LIMIT, async || {
                    let text = get(pairs[0].app_port, "/buy?id=1&item=book").await?;
                    let answer: Value =
                        serde_json::from_str(&text).with_context(|| text.clone())?;
                    Ok((answer["stored"] == true).then_some(answer))
                })
                .await?;
                println!("    {answer}");
                ensure!(
                    answer["caller"] == "front",
                    "orders does not know who called: {answer}"
                );
                Ok(())
            },
        )
        .await?;
    steps
        .step("what orders saved is in the store", async || {
            let state = get(pairs[1].app_port, "/orders/1").await?;
            println!("    orders reads back {state}");
            ensure!(
                state.contains("book"),
                "the order is not in the store: {state}"
            );
            Ok(())
        })
        .await?;
    Ok(pairs)
}

async fn pair(binaries: &Path, folder: &Path, id: &str) -> Result<Pair> {
    let [app_port, http, grpc, internal, metrics] = free_ports()?;
    let quiet = |program: &str| -> Result<Command> {
        let log = std::fs::File::create(folder.join(format!("{id}-{program}.log")))?;
        let mut command = Command::new(binaries.join(program));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    };
    let app = quiet("shop")?
        .env("APP_PORT", app_port.to_string())
        .env("DAPR_HTTP_PORT", http.to_string())
        .spawn()?;
    let mut sidecar = quiet("daprd")?;
    sidecar.args(["--app-id", id, "--dapr-listen-addresses", "127.0.0.1"]);
    sidecar.args([
        "--dapr-internal-grpc-listen-address",
        "127.0.0.1",
        "--metrics-listen-address",
        "127.0.0.1",
    ]);
    sidecar.arg("--resources-path").arg(folder);
    for (flag, port) in [
        ("--app-port", app_port),
        ("--dapr-http-port", http),
        ("--dapr-grpc-port", grpc),
        ("--dapr-internal-grpc-port", internal),
        ("--metrics-port", metrics),
    ] {
        sidecar.args([flag, &port.to_string()]);
    }
    let sidecar = sidecar.spawn()?;
    wait("the sidecar", LIMIT, async || {
        Ok(status(http, "/v1.0/healthz")
            .await?
            .contains(" 204 ")
            .then_some(()))
    })
    .await
    .with_context(|| {
        std::fs::read_to_string(folder.join(format!("{id}-daprd.log"))).unwrap_or_default()
    })?;
    Ok(Pair {
        app_port,
        sidecar_port: http,
        _processes: [app, sidecar],
    })
}

fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

async fn exchange(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn status(port: u16, path: &str) -> Result<String> {
    Ok(exchange(port, path)
        .await?
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
        + " ")
}

async fn get(port: u16, path: &str) -> Result<String> {
    let answer = exchange(port, path).await?;
    Ok(answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default())
}
