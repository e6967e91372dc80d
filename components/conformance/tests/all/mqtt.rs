use std::sync::Arc;
use std::time::Duration;

use outrider_components::pubsub::Broker;
use outrider_conformance::pubsub::{Connect, Promises, survives};
use outrider_conformance::server::{self, Server};

struct Topics {
    url: String,
    qos: &'static str,
}

fn url(server: &Server) -> String {
    format!("mqtt://{}", server.address())
}

#[async_trait::async_trait]
impl Connect for Topics {
    async fn connect(&self, app: &str) -> Arc<dyn Broker> {
        let properties = [("url", self.url.as_str()), ("qos", self.qos)];
        crate::broker("pubsub.mqtt3", app, &properties).await
    }
}

#[tokio::test]
async fn pubsub() {
    let Some(mut server) = server::mosquitto().await else {
        return;
    };
    let promises = Promises {
        redelivers: true,
        durable: true,
        metadata: false,
        wildcard: ("/+", "/1"),
        ..Promises::default()
    };
    let mut topics = Topics {
        url: url(&server),
        qos: "1",
    };
    outrider_conformance::pubsub::run(&topics, promises).await;
    // It acknowledges messages just before it writes them down.
    survives(&topics, &mut server, Duration::from_millis(300)).await;
    topics.qos = "2";
    outrider_conformance::pubsub::run(&topics, promises).await;
}

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    let Some(server) = server::mosquitto().await else {
        return;
    };
    let url = url(&server);
    crate::killed::run("pubsub.mqtt3", &[("url", &url)]).await;
}

#[tokio::test]
async fn binding() {
    let Some(server) = server::mosquitto().await else {
        return;
    };
    let url = url(&server);
    let connect = |direction: &'static str| {
        let url = url.clone();
        async move {
            let properties = [
                ("url", url.as_str()),
                ("topic", "events"),
                ("consumerID", "app"),
                ("backOffMaxRetries", "-1"),
                ("direction", direction),
            ];
            crate::bindings::connect("bindings.mqtt3", &properties).await
        }
    };
    outrider_conformance::bindings::has_directions((true, true), connect).await;
    let binding = connect("input, output").await.expect("connects");
    outrider_conformance::bindings::passes(&binding, &[]).await;
}
