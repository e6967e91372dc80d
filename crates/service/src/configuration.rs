//! The control plane's Configuration.

use std::time::Duration;

use outrider_k8s::objects::{self, Collection};
use outrider_k8s::{Client, Error};
use serde_json::Value;
use tokio::time::Instant;

const RETRY: Duration = Duration::from_secs(1);
/// Tries for each line in the log.
const TRIES_PER_LINE: u32 = 10;

/// Gets a Configuration. A chart may create it after the service that needs it,
/// so it is waited for, at most `limit` long (none: without limit). `log` gets
/// what is wrong meanwhile. Returns the last result; nothing if the
/// Configuration does not exist.
pub async fn wait_for_configuration(
    client: &Client,
    namespace: &str,
    name: &str,
    limit: Option<Duration>,
    log: impl Fn(&str),
) -> Result<Option<Value>, Error> {
    let path = Collection::CONFIGURATIONS.object(namespace, name)?;
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut tries = 0u32;
    loop {
        let result = objects::get(client, &path).await;
        if matches!(result, Ok(Some(_))) || deadline.is_some_and(|end| Instant::now() >= end) {
            return result;
        }
        if tries.is_multiple_of(TRIES_PER_LINE) {
            match result {
                Err(error) => log(&error.to_string()),
                Ok(_) => log("not found"),
            }
        }
        tries = tries.wrapping_add(1);
        tokio::time::sleep(RETRY).await;
    }
}
