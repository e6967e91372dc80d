//! Configuration over gRPC.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::configuration::{Handler, Item, Items, Request as Wanted};
use outrider_metrics::component::Operation;
use outrider_proto::common::v1::ConfigurationItem;
use outrider_proto::runtime::v1 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Response, Status};

use super::subscriptions::{self, Ended, NoSubscription, Subscriptions};
use super::{Api, SCOPE, Store, error};

/// Changes that wait for the client to read them.
const QUEUE: usize = 16;
/// How long the status of the end waits for the client to read what is before.
const LAST_WORD: Duration = Duration::from_secs(1);

type Sent = Result<wire::SubscribeConfigurationResponse, Status>;
pub type Changes = BoxStream<wire::SubscribeConfigurationResponse>;

pub async fn get(
    api: &Api,
    request: wire::GetConfigurationRequest,
) -> Result<Response<wire::GetConfigurationResponse>, Status> {
    let wanted = Wanted {
        keys: request.keys,
        metadata: request.metadata,
    };
    let items = items(api.get(&request.store_name, &wanted).await?);
    Ok(Response::new(wire::GetConfigurationResponse { items }))
}

/// Sends changes until the client leaves, the subscription is ended by its id,
/// its store goes or the sidecar ends.
pub async fn subscribe(
    api: &Api,
    request: wire::SubscribeConfigurationRequest,
) -> Result<Response<Changes>, Status> {
    let name = request.store_name;
    let store = api.store(&name)?;
    let mut wanted = Wanted {
        keys: request.keys,
        metadata: request.metadata,
    };
    wanted.keys.sort_unstable();
    let keys = wanted.keys.clone();
    let id = subscriptions::id();
    let (events, changes) = mpsc::channel(QUEUE);
    let first = wire::SubscribeConfigurationResponse {
        id: id.clone(),
        ..Default::default()
    };
    // There is room for the first.
    let _ = events.try_send(Ok(first));
    let (place, over) = subscriptions::place(&id, &name);
    let handler = Arc::new(ToClient {
        id: id.clone(),
        events: events.clone(),
        over: over.token(),
    });
    let added = api.subscriptions.add(place, &store, wanted, handler).await;
    added.map_err(|cause| error::subscribe(&keys, &name, cause))?;
    let watched = Watched {
        subscriptions: api.subscriptions.clone(),
        id,
        store,
        events,
        over,
    };
    api.subscriptions
        .spawn("configuration subscription", watched.run());
    Ok(Response::new(Box::pin(ReceiverStream::new(changes))))
}

/// A subscription until its end.
struct Watched {
    subscriptions: Subscriptions,
    id: String,
    store: Arc<Store>,
    events: mpsc::Sender<Sent>,
    over: Ended,
}

impl Watched {
    async fn run(self) {
        let why = tokio::select! {
            why = self.over.wait() => why,
            () = self.events.closed() => {
                // It may have been ended just now.
                let _ = self.subscriptions.end(&self.id, None);
                None
            }
        };
        let counted = async { Ok::<(), NoSubscription>(()) };
        let _ = self.store.count(Operation::Unsubscribe, counted).await;
        if let Some(why) = why {
            // A client that reads no more does not want to know.
            let last = self.events.send(Err(Status::unavailable(why)));
            let _ = tokio::time::timeout(LAST_WORD, last).await;
        }
    }
}

struct ToClient {
    id: String,
    events: mpsc::Sender<Sent>,
    /// Cancelled at the end, which waits for no client.
    over: CancellationToken,
}

#[async_trait]
impl Handler for ToClient {
    async fn handle(&self, changed: Items) {
        let change = wire::SubscribeConfigurationResponse {
            id: self.id.clone(),
            items: items(changed),
        };
        // Only fails when the client is gone, which ends the subscription.
        let sending = self.events.send(Ok(change));
        self.over.run_until_cancelled(sending).await;
    }
}

pub fn unsubscribe(
    api: &Api,
    request: &wire::UnsubscribeConfigurationRequest,
) -> Response<wire::UnsubscribeConfigurationResponse> {
    let id = &request.id;
    let answer = match api.subscriptions.end(id, None) {
        Ok(()) => {
            tracing::warn!(target: SCOPE, "Unsubscribing using UnsubscribeConfiguration is deprecated. Disconnect from the SubscribeConfiguration RPC instead.");
            wire::UnsubscribeConfigurationResponse {
                ok: true,
                message: String::new(),
            }
        }
        Err(NoSubscription) => wire::UnsubscribeConfigurationResponse {
            ok: false,
            message: error::unsubscribe(id, "subscription does not exist").message,
        },
    };
    Response::new(answer)
}

fn items(items: Items) -> HashMap<String, ConfigurationItem> {
    let all = items.into_iter().map(|(key, item)| {
        let Item {
            value,
            version,
            metadata,
        } = item;
        let item = ConfigurationItem {
            value,
            version,
            metadata,
        };
        (key, item)
    });
    all.collect()
}
