//! A way to another address on which everything takes longer, and that stops when it is
//! dropped.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    /// Milliseconds that each piece waits.
    delay: Arc<AtomicU64>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// On any port of `from`.
    pub async fn start(from: IpAddr, to: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind((from, 0)).await?;
        let address = listener.local_addr()?;
        let delay = Arc::new(AtomicU64::new(0));
        let mut serving = JoinSet::new();
        let waits = delay.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let waits = waits.clone();
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(to).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::join!(
                        pass(from_client, to_server, &waits),
                        pass(from_server, to_client, &waits),
                    );
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Proxy {
            address,
            delay,
            _serving: serving,
        })
    }

    pub fn slow_down(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.delay.store(milliseconds, Ordering::Relaxed);
    }
}

/// At most 64 KiB at a time, so that a slow way is a narrow one too.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: &AtomicU64) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let wait = delay.load(Ordering::Relaxed);
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    // The other direction ends by itself.
    let _ = to.shutdown().await;
}
