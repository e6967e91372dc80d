//! From changes in the cluster to events for one sidecar.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use outrider_k8s::watch::{Change, Object, Store};
use outrider_proto::operator::v1::ResourceEventType as Type;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::authorise::Caller;
use crate::resources::{encode, in_scope};
use crate::secrets::Secrets;
use crate::server::Finish;

/// The stream of changes of one kind to one sidecar.
pub struct Updates {
    pub secrets: Arc<Secrets>,
    /// Where the changes come from.
    pub store: Store,
    pub caller: Caller,
    /// Past changes that are sent first.
    pub recent: VecDeque<Change>,
    pub changes: Receiver<Change>,
    pub stopping: CancellationToken,
    pub finish: Finish,
    /// Further condition on an object, besides namespace and scopes.
    pub wanted: Box<dyn Fn(&Object) -> bool + Send>,
}

impl Updates {
    /// Ends when the operator stops. A sidecar that cannot keep up is cut off: it reconnects and lists.
    pub fn events(self) -> impl Stream<Item = Result<(Bytes, Type), Status>> + Send {
        unfold(Some(self), |updates| async move {
            let mut updates = updates?;
            match updates.next().await {
                Some(Ok(event)) => Some((Ok(event), Some(updates))),
                Some(Err(status)) => Some((Err(status), None)),
                None => None,
            }
        })
    }

    async fn next(&mut self) -> Option<Result<(Bytes, Type), Status>> {
        loop {
            let change = match self.recent.pop_front() {
                Some(change) => change,
                None => match self.change().await? {
                    Ok(change) => change,
                    Err(status) => return Some(Err(status)),
                },
            };
            let visible = |object: &Object| {
                object.namespace == self.caller.namespace
                    && in_scope(object, &self.caller.app_id)
                    && (self.wanted)(object)
            };
            let Some((object, event_type)) = seen(change, visible) else {
                continue;
            };
            let mut json = object.json.clone();
            // Secrets that were read before the change may be old.
            let changed = self.store.last_change();
            let secrets = self.secrets.reader(&self.caller.namespace, changed);
            if let Err(status) = self.finish.apply(secrets, &mut json).await {
                return Some(Err(status));
            }
            return Some(Ok((encode(&json), event_type)));
        }
    }

    /// The next one from the cluster; nothing when the operator stops.
    async fn change(&mut self) -> Option<Result<Change, Status>> {
        let change = tokio::select! {
            biased;
            () = self.stopping.cancelled() => return None,
            change = self.changes.recv() => change,
        };
        match change {
            Ok(change) => Some(Ok(change)),
            Err(RecvError::Closed) => None,
            Err(RecvError::Lagged(missed)) => {
                let app_id = &self.caller.app_id;
                tracing::warn!(target: "dapr.operator.api", "the sidecar of {app_id} reads too slowly and missed {missed} changes: its stream is ended, so that it reconnects and lists again");
                Some(Err(Status::unavailable(
                    "the stream fell behind: reconnect and list again",
                )))
            }
        }
    }
}

/// A change from the view of a caller that sees only some objects.
fn seen(change: Change, visible: impl Fn(&Object) -> bool) -> Option<(Arc<Object>, Type)> {
    match change {
        Change::Created(new) => visible(&new).then_some((new, Type::Created)),
        Change::Deleted(old) => visible(&old).then_some((old, Type::Deleted)),
        Change::Updated { old, new } => match (visible(&old), visible(&new)) {
            (true, true) => Some((new, Type::Updated)),
            (false, true) => Some((new, Type::Created)),
            (true, false) => Some((old, Type::Deleted)),
            (false, false) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(value: u32, scopes: &[&str]) -> Arc<Object> {
        let json: Value = json!({"metadata": {"name": "c"}, "spec": value, "scopes": scopes});
        Arc::new(Object {
            namespace: "default".into(),
            name: "c".into(),
            json,
        })
    }

    #[test]
    fn an_object_that_enters_or_leaves_the_scope_is_created_or_deleted() {
        let (all, ours, theirs) = (
            object(1, &[]),
            object(2, &["other", "app"]),
            object(3, &["other"]),
        );
        let update = |old: &Arc<Object>, new: &Arc<Object>| Change::Updated {
            old: old.clone(),
            new: new.clone(),
        };
        for (change, expected) in [
            (Change::Created(all.clone()), Some((1, Type::Created))),
            (Change::Created(theirs.clone()), None),
            (update(&all, &ours), Some((2, Type::Updated))),
            (update(&theirs, &ours), Some((2, Type::Created))),
            (update(&ours, &theirs), Some((2, Type::Deleted))),
            (update(&theirs, &theirs), None),
            (Change::Deleted(ours.clone()), Some((2, Type::Deleted))),
            (Change::Deleted(theirs.clone()), None),
        ] {
            let text = format!("{change:?}");
            let seen = seen(change, |object| in_scope(object, "app"));
            let seen = seen
                .map(|(object, event_type)| (object.json["spec"].as_u64().unwrap(), event_type));
            assert_eq!(seen, expected, "{text}");
        }
    }
}
