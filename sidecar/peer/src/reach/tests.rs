// Helpers of tests are not inside of test functions, which is where the lints look.
#![allow(clippy::disallowed_methods)]

use std::sync::Mutex;
use std::time::Instant;

use async_trait::async_trait;
use outrider_components::Error;
use outrider_security::Security;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;

/// Gives the first address that is not suspected, else the first.
struct Known {
    addresses: Vec<String>,
    suspects: Mutex<Vec<String>>,
}

#[async_trait]
impl Resolver for Known {
    async fn resolve(&self, _: &Request<'_>) -> Result<String, Error> {
        let suspects = self.suspects.lock().unwrap();
        let good = self.addresses.iter().find(|one| !suspects.contains(one));
        Ok(good.unwrap_or(&self.addresses[0]).clone())
    }

    fn suspect(&self, _: &Request<'_>, address: &str) {
        self.suspects.lock().unwrap().push(address.to_owned());
    }
}

fn sidecars(addresses: &[String]) -> Sidecars {
    Sidecars {
        peers: Peers::new(Security::plaintext(), "127.0.0.1", "test", 1, None, 1),
        resolver: Some(Arc::new(Known {
            addresses: addresses.to_vec(),
            suspects: Mutex::default(),
        })),
    }
}

/// An address like that of a pod that is gone: what is sent there is lost. The
/// connections fill the queue of a listener that takes none.
async fn gone() -> (String, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        filling.push(connected.unwrap());
    }
    (address.to_string(), listener, filling)
}

/// A listener whose kernel answers, which is enough for a connection.
async fn there() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap().to_string(), listener)
}

#[tokio::test]
async fn a_silent_address_delays_a_call_for_a_moment_only() {
    let (one, another) = (gone().await, gone().await);
    let (good, _listener) = there().await;
    let sidecars = sidecars(&[one.0.clone(), another.0.clone(), good.clone()]);
    let start = Instant::now();
    // All of them at once, as under load.
    let calls = (0..50).map(|_| async {
        let first = sidecars.find("callee", "").await?;
        sidecars.reach("callee", "", first).await
    });
    for reached in futures_util::future::join_all(calls).await {
        assert_eq!(reached.unwrap().0.address, good);
    }
    let took = start.elapsed();
    assert!(took >= ANOTHER_AFTER * 2, "{took:?}");
    assert!(
        took < ANOTHER_AFTER * 2 + Duration::from_secs(5),
        "{took:?}"
    );
    // Those that come later do not even try.
    let start = Instant::now();
    let first = sidecars.find("callee", "").await.unwrap();
    assert_eq!(first.address, good);
    assert!(sidecars.reach("callee", "", first).await.is_ok());
    assert!(start.elapsed() < ANOTHER_AFTER);
}

#[tokio::test]
async fn where_one_refuses_the_next_is_asked_at_once() {
    let refusing = [there().await, there().await].map(|(address, _)| address);
    let (good, _listener) = there().await;
    let [one, another] = refusing.clone();
    let sidecars_of_three = sidecars(&[one, another, good.clone()]);
    let start = Instant::now();
    let first = sidecars_of_three.find("callee", "").await.unwrap();
    let reached = sidecars_of_three.reach("callee", "", first).await;
    assert_eq!(reached.unwrap().0.address, good);
    assert!(start.elapsed() < ANOTHER_AFTER);

    let sidecars = sidecars(&refusing);
    let first = sidecars.find("callee", "").await.unwrap();
    let status = sidecars.reach("callee", "", first).await.err().unwrap();
    assert!(status.message().contains("connection refused"), "{status}");
}
