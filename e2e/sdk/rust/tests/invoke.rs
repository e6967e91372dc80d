use anyhow::Result;
use dapr::client::{ClientOptions, InvokeServiceResponse};

use crate::app::App;
use crate::sidecar::{Client, Setup, refused, unique};

fn any(text: &str) -> Option<prost_types::Any> {
    Some(prost_types::Any {
        type_url: String::new(),
        value: text.as_bytes().to_vec(),
    })
}

fn text(response: InvokeServiceResponse) -> String {
    let value = response.data.map(|data| data.value).unwrap_or_default();
    String::from_utf8_lossy(&value).into_owned()
}

#[tokio::test]
async fn calls() -> Result<()> {
    let callee = App::start().await?;
    let setup = Setup {
        names: Some(callee.sidecar.names.clone()),
        ..Setup::default()
    };
    let (_caller, mut client) = setup.ready().await?;
    let id = &callee.sidecar.id;
    let answer = client.invoke_service(id, "echo", any("hello")).await?;
    assert_eq!(text(answer), "hello");
    refused(
        client.invoke_service(id, "fails", any("")).await,
        "Aborted",
        "it went wrong",
    );
    refused(
        client.invoke_service(id, "other", any("")).await,
        "NotFound",
        "no method other",
    );
    refused(
        client
            .invoke_service(unique("nobody"), "echo", any(""))
            .await,
        "Internal",
        "nobody",
    );
    Ok(())
}

#[tokio::test]
async fn tokens() -> Result<()> {
    let setup = Setup {
        token: Some("swordfish"),
        ..Setup::default()
    };
    let (sidecar, mut without) = setup.ready().await?;
    refused(without.get_metadata().await, "Unauthenticated", "");
    let options: ClientOptions = sidecar.options().with_api_token("swordfish");
    let mut with = Client::from_options(options).await?;
    assert_eq!(with.get_metadata().await?.id, sidecar.id);
    Ok(())
}
