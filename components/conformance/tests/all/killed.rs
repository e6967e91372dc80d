//! Processes that are killed while they handle messages. This program is
//! started a second time as such a process.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrider_components::pubsub::{Message, PublishRequest, SubscribeRequest};
use outrider_components::{Error, Pairs};

const VARIABLE: &str = "OUTRIDER_CONFORMANCE_CHILD";
/// The process acknowledges as many; handling the others does not end.
const ACKNOWLEDGED: usize = 50;
const MESSAGES: usize = 200;
const APP: &str = "killed";

fn subscribe(topic: &str) -> SubscribeRequest {
    SubscribeRequest {
        topic: topic.to_owned(),
        metadata: Pairs::new(),
    }
}

/// What a process had not acknowledged when it was killed goes to the next.
pub async fn run(type_name: &str, properties: &[(&str, &str)]) {
    let folder = tempfile::tempdir().expect("a folder");
    let topic = format!("killed-{}", uuid::Uuid::new_v4().simple());
    let own = |properties: &[(&str, &str)]| {
        let mut own: Vec<(String, String)> = properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        own.push(("consumerID".to_owned(), APP.to_owned()));
        own
    };
    let spec = serde_json::json!({
        "type": type_name,
        "properties": own(properties),
        "topic": topic,
        "folder": folder.path(),
    });
    let mut child = tokio::process::Command::new(std::env::current_exe().expect("is a file"))
        .args(["killed::child", "--exact", "--ignored"])
        .env(VARIABLE, spec.to_string())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("this program starts");
    let file = |name: &str| folder.path().join(name);
    let lines = |name: &str| lines(&file(name));
    let limit = Duration::from_secs(20);
    outrider_conformance::eventually("the process subscribes", limit, || async {
        file("ready").exists()
    })
    .await;
    let publisher = crate::broker(type_name, "publisher", properties).await;
    for n in 0..MESSAGES {
        let request = PublishRequest {
            topic: topic.clone(),
            data: n.to_string().into(),
            ..PublishRequest::default()
        };
        publisher.publish(&request).await.expect("publish");
    }
    outrider_conformance::eventually("the process has its hands full", limit, || async {
        lines("given").len() > ACKNOWLEDGED
    })
    .await;
    child.kill().await.expect("it runs");

    let mut again: Vec<(&str, &str)> = properties.to_vec();
    again.push(("consumerID", APP));
    let next = crate::broker(type_name, APP, &again).await;
    let seen: Arc<Mutex<HashSet<String>>> = Arc::default();
    let handler = {
        let seen = seen.clone();
        move |message: Message| {
            let text = String::from_utf8_lossy(&message.data).into_owned();
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(text);
            async { Ok::<(), Error>(()) }
        }
    };
    let _subscription = next
        .subscribe(subscribe(&topic), Arc::new(handler))
        .await
        .expect("subscribe");
    let acknowledged = lines("acknowledged");
    outrider_conformance::eventually("the rest arrives", limit, || async {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        (0..MESSAGES)
            .map(|n| n.to_string())
            .all(|text| seen.contains(&text) || acknowledged.contains(&text))
    })
    .await;
    next.close().await.expect("close");
    publisher.close().await.expect("close");
}

fn lines(path: &Path) -> HashSet<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The process that is killed.
#[tokio::test]
#[ignore = "it is started by other tests"]
async fn child() {
    let spec = std::env::var(VARIABLE).expect("is started by another test");
    let spec: serde_json::Value = serde_json::from_str(&spec).expect("is JSON");
    let properties: Vec<(String, String)> =
        serde_json::from_value(spec["properties"].clone()).expect("are pairs");
    let properties: Vec<(&str, &str)> = properties.iter().map(|(k, v)| (&**k, &**v)).collect();
    let text = |name: &str| spec[name].as_str().expect("is text");
    let folder = Path::new(text("folder")).to_owned();
    let broker = crate::broker(text("type"), APP, &properties).await;
    let count = Arc::new(Mutex::new(0));
    let handler = {
        let folder = folder.clone();
        move |message: Message| {
            let (folder, count) = (folder.clone(), count.clone());
            async move {
                let text = String::from_utf8_lossy(&message.data).into_owned();
                append(&folder.join("given"), &text);
                let at = {
                    let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
                    *count += 1;
                    *count
                };
                if at > ACKNOWLEDGED {
                    std::future::pending::<()>().await;
                }
                append(&folder.join("acknowledged"), &text);
                Ok::<(), Error>(())
            }
        }
    };
    let _subscription = broker
        .subscribe(subscribe(text("topic")), Arc::new(handler))
        .await
        .expect("subscribe");
    append(&folder.join("ready"), "");
    std::future::pending::<()>().await;
}

fn append(path: &Path, line: &str) {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.expect("writes");
}
