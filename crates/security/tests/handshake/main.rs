//! Two ends of a TLS connection, with identities from a CA in this process.

// Helpers of tests are not inside of test functions, which is where the lints look.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod ca;
mod chain;
mod grpc;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrider_security::{
    Clients, ControlPlane, Expected, Peer, Security, SpiffeId, TrustAnchors, Upkeep,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use ca::Authority;

const ID: &str = "spiffe://cp/ns/sys/dapr-test";

fn control_plane() -> ControlPlane {
    ControlPlane {
        trust_domain: "cp".parse().unwrap(),
        namespace: "sys".into(),
    }
}

async fn started(authority: &Arc<Authority>, roots: &str) -> (Security, Upkeep) {
    let anchors = TrustAnchors::from_pem(roots).unwrap();
    Security::start_with(authority.clone(), anchors, control_plane(), "dapr-test")
        .await
        .unwrap()
}

/// Connects, says hello both ways, and returns who the server saw.
async fn greet(
    server: &Security,
    clients: Clients,
    client: &Security,
    expected: Expected,
) -> io::Result<(Peer, Peer)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let acceptor = server.acceptor(clients).unwrap();
    let connector = client.connector(expected).unwrap();
    let accepting = async {
        let (socket, _) = listener.accept().await?;
        let mut connection = acceptor.accept(socket).await?;
        let mut hello = [0; 5];
        connection.read_exact(&mut hello).await?;
        connection.write_all(&hello).await?;
        connection.flush().await?;
        Ok::<_, io::Error>(connection.peer().clone())
    };
    let dialling = async {
        let mut connection = connector.dial("127.0.0.1", port).await?;
        connection.write_all(b"hello").await?;
        connection.flush().await?;
        let mut hello = [0; 5];
        connection.read_exact(&mut hello).await?;
        Ok::<_, io::Error>(connection.peer().clone())
    };
    let both = async { tokio::join!(accepting, dialling) };
    let (accepted, dialled) = tokio::time::timeout(Duration::from_secs(5), both)
        .await
        .expect("a handshake ends");
    match (accepted, dialled) {
        (Ok(a), Ok(d)) => Ok((a, d)),
        // The refusing side knows the reason; the other one only sees an alert.
        (Err(a), Err(d)) => Err(io::Error::other(format!("server: {a}; client: {d}"))),
        (Err(e), Ok(_)) | (Ok(_), Err(e)) => Err(e),
    }
}

fn required() -> Clients {
    Clients::Required(Expected::Any)
}

#[tokio::test]
async fn both_ends_learn_who_the_other_is() {
    let authority = Arc::new(Authority::new(ID));
    let (security, _upkeep) = started(&authority, &authority.root_pem).await;
    let id: SpiffeId = ID.parse().unwrap();
    for expected in [
        Expected::Any,
        Expected::Id(id.clone()),
        Expected::AnyOf(vec![id.clone()]),
        Expected::TrustDomain("cp".parse().unwrap()),
        Expected::Workload {
            namespace: "sys".into(),
            app_id: "dapr-test".into(),
        },
    ] {
        let (seen, served) = greet(&security, required(), &security, expected)
            .await
            .unwrap();
        assert_eq!(seen.id.as_ref(), Some(&id));
        assert_eq!(served.id.as_ref(), Some(&id));
    }
    let (seen, _) = greet(&security, Clients::Anonymous, &security, Expected::Any)
        .await
        .unwrap();
    assert_eq!(seen.id, None);
}

#[tokio::test]
async fn the_wrong_peer_is_refused_by_either_side() {
    let authority = Arc::new(Authority::new(ID));
    let (security, _upkeep) = started(&authority, &authority.root_pem).await;
    let other: SpiffeId = "spiffe://cp/ns/sys/dapr-sentry".parse().unwrap();
    for expected in [
        Expected::Id(other.clone()),
        Expected::AnyOf(vec![]),
        Expected::TrustDomain("cp2".parse().unwrap()),
        Expected::Workload {
            namespace: "sys".into(),
            app_id: "dapr".into(),
        },
    ] {
        let refused = greet(&security, required(), &security, expected.clone())
            .await
            .unwrap_err()
            .to_string();
        let message = format!("unexpected SPIFFE ID: \"{ID}\"");
        assert!(refused.contains(&message), "{refused}");
        let clients = Clients::Required(expected);
        let refused = greet(&security, clients, &security, Expected::Any)
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains(&message), "{refused}");
    }
}

#[tokio::test]
async fn a_peer_under_other_trust_anchors_is_refused() {
    let (ours, theirs) = (Arc::new(Authority::new(ID)), Arc::new(Authority::new(ID)));
    let (a, _upkeep_a) = started(&ours, &ours.root_pem).await;
    let (b, _upkeep_b) = started(&theirs, &theirs.root_pem).await;
    assert!(greet(&a, required(), &b, Expected::Any).await.is_err());
    assert!(greet(&b, required(), &a, Expected::Any).await.is_err());
    // Anchors are looked up at the handshake: both trust both now.
    let both = format!("{}{}", ours.root_pem, theirs.root_pem);
    for security in [&a, &b] {
        let roots = outrider_security::Roots::parse(&both).unwrap();
        security.anchors().unwrap().replace(roots);
    }
    greet(&a, required(), &b, Expected::Any).await.unwrap();
    greet(&b, required(), &a, Expected::Any).await.unwrap();
}

#[tokio::test]
async fn plaintext_and_tls_do_not_mix() {
    let authority = Arc::new(Authority::new(ID));
    let (security, _upkeep) = started(&authority, &authority.root_pem).await;
    let plain = Security::disabled();
    assert!(
        greet(&security, required(), &plain, Expected::Any)
            .await
            .is_err()
    );
    let (seen, _) = greet(&plain, required(), &plain, Expected::Any)
        .await
        .unwrap();
    assert_eq!(seen.id, None);
    assert!(seen.address.is_some());
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let authority = Arc::new(Authority::new(ID));
    let (good, _upkeep) = started(&authority, &authority.root_pem).await;
    authority.set(|terms| {
        terms.not_before = SystemTime::now() - Duration::from_secs(7200);
        terms.not_after = SystemTime::now() - Duration::from_secs(3600);
    });
    let (expired, _upkeep) = started(&authority, &authority.root_pem).await;
    let refused = greet(&good, required(), &expired, Expected::Any)
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("server: invalid peer certificate"),
        "{refused}"
    );
    assert!(
        greet(&expired, required(), &good, Expected::Any)
            .await
            .is_err()
    );
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_short_lived_certificate_is_renewed_and_new_connections_use_the_new_one() {
    let authority = Arc::new(Authority::new(ID));
    authority.set(|terms| {
        terms.not_before = SystemTime::now();
        terms.not_after = SystemTime::now();
    });
    let (security, upkeep) = started(&authority, &authority.root_pem).await;
    let first = security.identity().unwrap().current().chain()[0].clone();
    let stop = CancellationToken::new();
    let running = tokio::spawn(upkeep.run(stop.clone()));
    until("five renewals", || authority.issued() > 5).await;
    authority.set(|terms| *terms = ca::Terms::for_id(ID));
    let identity = security.identity().unwrap().clone();
    until("a long life", || {
        identity.current().not_after() > SystemTime::now() + Duration::from_secs(60)
    })
    .await;
    let settled = authority.issued();
    assert_ne!(identity.current().chain()[0], first);
    greet(&security, required(), &security, Expected::Any)
        .await
        .unwrap();
    assert_eq!(authority.issued(), settled, "nothing more is due");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn new_anchors_bring_a_new_certificate_at_once() {
    let authority = Arc::new(Authority::new(ID));
    let (security, upkeep) = started(&authority, &authority.root_pem).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(upkeep.run(stop.clone()));
    // The upkeep subscribes when it is first polled.
    tokio::task::yield_now().await;
    let both = format!("{}{}", authority.root_pem, Authority::new(ID).root_pem);
    let roots = outrider_security::Roots::parse(&both).unwrap();
    security.anchors().unwrap().replace(roots);
    until("a second certificate", || authority.issued() == 2).await;
    stop.cancel();
    running.await.unwrap();
}

/// What sentry answers is checked before it is used; asking goes on meanwhile.
#[tokio::test]
async fn a_certificate_for_another_id_or_key_is_never_used() {
    let foreign_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let foreign_key: &'static str = Box::leak(foreign_key.serialize_pem().into_boxed_str());
    let wrongs: [fn(&mut ca::Terms, &'static str); 4] = [
        |terms, _| terms.id = "spiffe://cp/ns/sys/another".into(),
        |terms, _| terms.id = "https://cp/ns/sys/dapr-test".into(),
        |terms, _| terms.is_ca = true,
        |terms, key| terms.key = Some(key),
    ];
    for wrong in wrongs {
        let authority = Arc::new(Authority::new(ID));
        authority.set(|terms| wrong(terms, foreign_key));
        let roots = authority.root_pem.clone();
        let mut starting = Box::pin(started(&authority, &roots));
        tokio::select! {
            _ = &mut starting => panic!("a wrong answer was taken"),
            () = until("an answer", || authority.issued() > 0) => {}
        }
        authority.set(|terms| *terms = ca::Terms::for_id(ID));
        let (security, _upkeep) = tokio::time::timeout(Duration::from_secs(10), starting)
            .await
            .expect("a right answer is taken");
        assert_eq!(security.id().unwrap().as_str(), ID);
    }
}

#[tokio::test]
async fn a_certificate_under_a_foreign_root_is_never_used() {
    let authority = Arc::new(Authority::new(ID));
    let foreign = Authority::new(ID).root_pem;
    tokio::select! {
        _ = started(&authority, &foreign) => panic!("a foreign chain was taken"),
        () = until("two answers", || authority.issued() > 1) => {}
    }
}
