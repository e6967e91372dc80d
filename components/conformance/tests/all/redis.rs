use std::sync::Arc;

use outrider_components::pubsub::Broker;
use outrider_conformance::pubsub::{Connect, Promises};
use outrider_conformance::server;

#[tokio::test]
async fn state() {
    let Some(server) = server::redis(&["--requirepass", "secret"]).await else {
        return;
    };
    let properties = [
        ("redisHost", &*server.address()),
        ("redisPassword", "secret"),
    ];
    let store = crate::state("state.redis", &properties).await;
    outrider_conformance::state::run(&*store).await;
}

struct Streams {
    address: String,
}

#[async_trait::async_trait]
impl Connect for Streams {
    async fn connect(&self, app: &str) -> Arc<dyn Broker> {
        let properties = [
            ("redisHost", self.address.as_str()),
            ("processingTimeout", "500ms"),
            ("redeliverInterval", "200"),
            ("queueDepth", "20"),
        ];
        crate::broker("pubsub.redis", app, &properties).await
    }
}

#[tokio::test]
async fn pubsub() {
    let Some(server) = server::redis(&[]).await else {
        return;
    };
    let promises = Promises {
        redelivers: true,
        durable: true,
        groups: true,
        ordered: false,
    };
    let connect = Streams {
        address: server.address(),
    };
    outrider_conformance::pubsub::run(&connect, promises).await;
}
