use std::sync::Arc;
use std::time::Duration;

use outrider_components::pubsub::Broker;
use outrider_conformance::pubsub::{Connect, Promises, dead_letters, survives};
use outrider_conformance::server::{self, Server};

struct Queues {
    uri: String,
    more: Vec<(&'static str, &'static str)>,
}

impl Queues {
    fn new(server: &Server, more: &[(&'static str, &'static str)]) -> Queues {
        Queues {
            uri: uri(server),
            more: more.to_vec(),
        }
    }
}

fn uri(server: &Server) -> String {
    format!("amqp://guest:guest@{}", server.address())
}

#[async_trait::async_trait]
impl Connect for Queues {
    async fn connect(&self, app: &str) -> Arc<dyn Broker> {
        let mut properties = vec![
            ("connectionString", self.uri.as_str()),
            ("deletedWhenUnused", "false"),
            ("reconnectWaitSeconds", "300ms"),
            ("deliveryMode", "2"),
        ];
        properties.extend(&self.more);
        crate::broker("pubsub.rabbitmq", app, &properties).await
    }
}

#[tokio::test]
async fn pubsub() {
    let Some(mut server) = server::rabbitmq().await else {
        return;
    };
    let promises = Promises {
        redelivers: true,
        durable: true,
        groups: true,
        metadata: false,
        ..Promises::default()
    };
    let requeues = Queues::new(&server, &[("requeueInFailure", "true")]);
    outrider_conformance::pubsub::run(&requeues, promises).await;
    let in_order = Queues::new(
        &server,
        &[("requeueInFailure", "true"), ("concurrency", "single")],
    );
    let ordered = Promises {
        ordered: true,
        ..promises
    };
    outrider_conformance::pubsub::run(&in_order, ordered).await;
    let dead = Queues::new(&server, &[("enableDeadLetter", "true")]);
    dead_letters(&dead, |app, topic| format!("dlx-{app}-{topic}")).await;
    survives(&requeues, &mut server, Duration::ZERO).await;
    let uri = uri(&server);
    let properties = [
        ("connectionString", uri.as_str()),
        ("deletedWhenUnused", "false"),
    ];
    crate::killed::run("pubsub.rabbitmq", &properties).await;
}

#[tokio::test]
async fn binding() {
    let Some(server) = server::rabbitmq().await else {
        return;
    };
    let uri = uri(&server);
    let connect = |direction: &'static str| {
        let uri = uri.clone();
        async move {
            let properties = [
                ("host", uri.as_str()),
                ("queueName", "events"),
                ("durable", "true"),
                ("reconnectWaitInSeconds", "300ms"),
                ("direction", direction),
            ];
            crate::bindings::connect("bindings.rabbitmq", &properties).await
        }
    };
    outrider_conformance::bindings::has_directions((true, true), connect).await;
    let binding = connect("input, output").await.expect("connects");
    outrider_conformance::bindings::passes(&binding, &[("about", "it")]).await;
}
