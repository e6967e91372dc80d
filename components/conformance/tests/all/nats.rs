use std::sync::Arc;
use std::time::Duration;

use outrider_components::pubsub::Broker;
use outrider_conformance::pubsub::{Connect, Promises, survives};
use outrider_conformance::server::{self, Server};

struct Subjects {
    url: String,
    durable: bool,
}

#[async_trait::async_trait]
impl Connect for Subjects {
    async fn connect(&self, app: &str) -> Arc<dyn Broker> {
        let mut properties = vec![("natsURL", self.url.as_str()), ("ackWait", "1s")];
        if self.durable {
            properties.extend([("durableName", app), ("streamName", "all")]);
        } else {
            properties.push(("deliverPolicy", "new"));
        }
        crate::broker("pubsub.jetstream", app, &properties).await
    }
}

async fn start() -> Option<Server> {
    let server = server::nats().await?;
    server.nats_stream("all", "*").await;
    Some(server)
}

#[tokio::test]
async fn pubsub() {
    let Some(mut server) = start().await else {
        return;
    };
    let url = format!("nats://{}", server.address());
    let promises = Promises {
        redelivers: true,
        durable: true,
        ordered: true,
        metadata: false,
        ..Promises::default()
    };
    let durable = Subjects {
        url: url.clone(),
        durable: true,
    };
    outrider_conformance::pubsub::run(&durable, promises).await;
    let ephemeral = Subjects {
        url,
        durable: false,
    };
    let promises = Promises {
        ordered: true,
        metadata: false,
        ..Promises::default()
    };
    outrider_conformance::pubsub::run(&ephemeral, promises).await;
    survives(&ephemeral, &mut server, Duration::ZERO).await;
    survives(&durable, &mut server, Duration::ZERO).await;
}

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    let Some(server) = start().await else {
        return;
    };
    let url = format!("nats://{}", server.address());
    let properties = [
        ("natsURL", url.as_str()),
        ("durableName", "all"),
        ("ackWait", "1s"),
    ];
    crate::killed::run("pubsub.jetstream", &properties).await;
}
