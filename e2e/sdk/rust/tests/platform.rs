use anyhow::Result;
use dapr::client::ClientOptions;
use dapr::error::Error;
use std::time::Duration;

use crate::sidecar::{Client, SECRETS, STORE, Setup, free_port, refused, until};

#[tokio::test]
async fn secrets() -> Result<()> {
    let (_sidecar, mut client) = Setup::default().ready().await?;
    let one = client.get_secret(SECRETS, "password").await?;
    assert_eq!(one.data["password"], "s3cret");
    let all = client.get_bulk_secret(SECRETS, None).await?;
    assert_eq!(all.data["password"].secrets["password"], "s3cret");
    assert_eq!(all.data["user:name"].secrets["user:name"], "ada");
    refused(
        client.get_secret(SECRETS, "absent").await,
        "Internal",
        "absent",
    );
    refused(
        client.get_secret("nowhere", "k").await,
        "InvalidArgument",
        "nowhere",
    );
    Ok(())
}

#[tokio::test]
async fn metadata() -> Result<()> {
    let (sidecar, mut client) = Setup::default().ready().await?;
    client.set_metadata("colour", "green").await?;
    let metadata = client.get_metadata().await?;
    assert_eq!(metadata.id, sidecar.id);
    assert_eq!(metadata.extended_metadata["colour"], "green");
    let store = metadata
        .registered_components
        .iter()
        .find(|c| c.name == STORE);
    assert_eq!(store.map(|c| c.r#type.as_str()), Some("state.in-memory"));
    Ok(())
}

#[tokio::test]
async fn connecting() -> Result<()> {
    let unreachable = ClientOptions::new()
        .with_address(format!("http://127.0.0.1:{}", free_port()))
        .with_timeout(Duration::from_secs(5));
    let outcome = Client::from_options(unreachable).await.map(|_| ());
    assert!(matches!(outcome, Err(Error::TransportError)), "{outcome:?}");
    // As long as it takes the sidecar to listen.
    let sidecar = Setup::default().start()?;
    let client = until("connected", || async { sidecar.client().await.ok() });
    assert_eq!(client.await?.get_metadata().await?.id, sidecar.id);
    Ok(())
}
