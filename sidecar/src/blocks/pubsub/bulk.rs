//! Publishing several messages: under a policy, only those that failed and can
//! be retried are published again.

use std::fmt;
use std::sync::Mutex;

use outrider_components::Error as Cause;
use outrider_components::pubsub::{Broker, BulkPublishRequest, FailedEntry};
use outrider_resiliency::{Error, Failure, Matching, Policy};

use crate::components::instance::{Instance, is_among, is_permanent};

/// Returns the messages that were not published.
pub async fn publish(
    broker: &Instance<dyn Broker>,
    request: &BulkPublishRequest,
) -> Result<Vec<FailedEntry>, Cause> {
    match broker.policy() {
        None => broker.direct().bulk_publish(request).await,
        Some(policy) => Box::pin(again(broker.direct(), policy, request)).await,
    }
}

/// What was not published at the last attempt.
enum Unpublished {
    Some(Vec<FailedEntry>),
    All(Cause),
}

impl fmt::Display for Unpublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unpublished::All(cause) => cause.fmt(f),
            Unpublished::Some(failed) => {
                let causes: Vec<String> = failed.iter().map(|f| f.error.to_string()).collect();
                f.write_str(&causes.join("\n"))
            }
        }
    }
}

impl Failure for Unpublished {
    fn is_among(&self, codes: &Matching) -> bool {
        match self {
            Unpublished::Some(_) => true,
            Unpublished::All(cause) => is_among(cause, codes),
        }
    }

    fn is_permanent(&self) -> bool {
        matches!(self, Unpublished::All(cause) if is_permanent(cause))
    }
}

/// Where a bulk request stands.
#[derive(Default)]
struct Progress {
    /// What is still to be published.
    left: BulkPublishRequest,
    /// Messages whose failure is permanent.
    permanent: Vec<FailedEntry>,
}

/// Publishes again only what failed and can be retried.
async fn again(
    broker: &dyn Broker,
    policy: Policy,
    request: &BulkPublishRequest,
) -> Result<Vec<FailedEntry>, Cause> {
    let progress = Mutex::new(Progress {
        left: request.clone(),
        permanent: Vec::new(),
    });
    let progress = || progress.lock().unwrap_or_else(|e| e.into_inner());
    let published = policy
        .run(|_| {
            let request = progress().left.clone();
            let progress = &progress;
            async move {
                let failed = match broker.bulk_publish(&request).await {
                    Ok(failed) => failed,
                    Err(cause) => return Err(Unpublished::All(cause)),
                };
                let (permanent, failed): (Vec<_>, Vec<_>) =
                    failed.into_iter().partition(|f| is_permanent(&f.error));
                let mut progress = progress();
                progress.permanent.extend(permanent);
                let mut left = std::mem::take(&mut progress.left.entries);
                left.retain(|entry| failed.iter().any(|f| f.id == entry.id));
                progress.left.entries = left;
                if failed.is_empty() {
                    // The rest is published; permanent failures are reported at the end.
                    return Ok(());
                }
                Err(Unpublished::Some(failed))
            }
        })
        .await;
    let Progress {
        left,
        permanent: mut unpublished,
    } = std::mem::take(&mut *progress());
    match published {
        Ok(()) => {}
        Err(Error::Failed(Unpublished::Some(failed))) => unpublished.extend(failed),
        // Those that a former attempt published are not reported as failed.
        Err(Error::Failed(Unpublished::All(cause)))
            if left.entries.len() == request.entries.len() =>
        {
            return Err(cause);
        }
        Err(error) => unpublished.extend(left.entries.iter().map(|entry| FailedEntry {
            id: entry.id.clone(),
            error: Cause::unavailable(error.to_string()),
        })),
    }
    Ok(unpublished)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use async_trait::async_trait;
    use outrider_components::Pairs;
    use outrider_components::pubsub::{
        Entry, Feature, Handler, PublishRequest, SubscribeRequest, Subscription,
    };
    use outrider_resiliency::{Block, Resiliency};
    use serde_json::json;

    use super::*;
    use crate::components::instance::{Description, Policies};

    /// Refuses an entry as often as its data says.
    #[derive(Default)]
    struct Probe {
        calls: Mutex<Vec<Vec<String>>>,
    }

    #[async_trait]
    impl Broker for Probe {
        fn features(&self) -> &[Feature] {
            &[]
        }

        async fn publish(&self, request: &PublishRequest) -> Result<(), Cause> {
            let mut calls = self.calls.lock().unwrap();
            calls.push(vec![request.topic.clone()]);
            let needed: usize = String::from_utf8_lossy(&request.data).parse().unwrap();
            if calls.len() > needed {
                return Ok(());
            }
            Err(Cause::unavailable("not yet"))
        }

        async fn bulk_publish(
            &self,
            request: &BulkPublishRequest,
        ) -> Result<Vec<FailedEntry>, Cause> {
            let mut calls = self.calls.lock().unwrap();
            let ids = request.entries.iter().map(|e| e.id.clone()).collect();
            calls.push(ids);
            let failed = request.entries.iter().filter(|entry| {
                let needed: usize = String::from_utf8_lossy(&entry.data).parse().unwrap();
                calls.len() <= needed
            });
            Ok(failed
                .map(|entry| FailedEntry {
                    id: entry.id.clone(),
                    error: match entry.id.as_str() {
                        "never" => Cause::invalid("too long"),
                        _ => Cause::unavailable("not yet"),
                    },
                })
                .collect())
        }

        async fn subscribe(
            &self,
            _: SubscribeRequest,
            _: Arc<dyn Handler>,
        ) -> Result<Subscription, Cause> {
            Err(Cause::unsupported("no"))
        }
    }

    fn broker_with_retries() -> (Arc<Probe>, Instance<dyn Broker>) {
        let resource = json!({"spec": {
            "policies": {"retries": {"r": {"duration": "1s", "maxRetries": 2}}},
            "targets": {"components": {"bus": {"outbound": {"retry": "r"}}}},
        }});
        let resiliency = Resiliency::default();
        resiliency.replace(&[outrider_crds::decode::from_value(&resource).unwrap()]);
        let probe = Arc::new(Probe::default());
        let description = Description {
            name: "bus".to_owned(),
            component_type: "pubsub.probe".to_owned(),
            version: "v1".to_owned(),
            capabilities: Vec::new(),
        };
        let policies = Policies {
            resiliency,
            block: Block::PubSub,
        };
        let inner: Arc<dyn Broker> = probe.clone();
        (
            probe,
            Instance::new(description, inner, policies, Default::default()),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_failed_is_published_again() {
        let (probe, broker) = broker_with_retries();
        let entry = |(id, data): (&str, &'static str)| Entry {
            id: id.to_owned(),
            data: data.into(),
            ..Entry::default()
        };
        let request = BulkPublishRequest {
            topic: "t".to_owned(),
            entries: [("a", "0"), ("b", "1"), ("c", "9"), ("never", "9")]
                .map(entry)
                .into(),
            metadata: Pairs::new(),
        };
        let failed = publish(&broker, &request).await.unwrap();
        let failed: HashSet<&str> = failed.iter().map(|f| f.id.as_str()).collect();
        assert_eq!(failed, HashSet::from(["c", "never"]));
        let calls = probe.calls.lock().unwrap();
        assert_eq!(
            *calls,
            [vec!["a", "b", "c", "never"], vec!["b", "c"], vec!["c"]]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_message_is_published_until_the_broker_takes_it() {
        let (probe, broker) = broker_with_retries();
        let message = |data: &'static str| PublishRequest {
            topic: "t".to_owned(),
            data: data.into(),
            ..PublishRequest::default()
        };
        let (second, ninth) = (message("2"), message("9"));
        let sent = broker.call(|broker| broker.publish(&second)).await;
        sent.unwrap();
        assert_eq!(probe.calls.lock().unwrap().len(), 3);
        let sent = broker.call(|broker| broker.publish(&ninth)).await;
        let error = sent.unwrap_err();
        assert_eq!(error.to_string(), "not yet");
        assert_eq!(probe.calls.lock().unwrap().len(), 6);
    }
}
