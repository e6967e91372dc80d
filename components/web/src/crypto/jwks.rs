//! `crypto.dapr.jwks`: <https://docs.dapr.io/reference/components-reference/supported-cryptography/json-web-key-sets/>.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrider_components::crypto::Crypto;
use outrider_components::{Context, Error, Field, Metadata, Secret};
use outrider_components_keys::{Key, Keys, Local, not_found};
use outrider_kit::error;
use reqwest::Client;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

use crate::body;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// A set of keys (JWKS), also in base64; or the URL or the path of a file
        /// that has one. Keys are named by their `kid`.
        "jwks" => jwks: Secret, missing "metadata property 'jwks' is required";
        /// How long a request for the URL may take.
        "requestTimeout" => timeout: Duration = "30s";
        /// How often the URL is read again. A file is read again when it has
        /// changed.
        "minRefreshInterval" => interval: Duration = "10m";
    }
}

/// Bytes that a set may have.
const MOST: usize = 1 << 20;
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
const SCOPE: &str = "dapr.contrib";

type Set = Vec<Arc<Key>>;

struct Jwks {
    keys: Arc<Mutex<Arc<Set>>>,
    file: Option<File>,
    /// What reads a URL again, until the component is gone.
    _refreshing: JoinSet<()>,
}

/// A file, and how it was when it was read.
struct File {
    path: PathBuf,
    read: Mutex<State>,
}

type State = Option<(SystemTime, u64)>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse(text: &[u8]) -> Result<Arc<Set>, Error> {
    let keys = Key::parse_set(text)?;
    Ok(Arc::new(keys.into_iter().map(Arc::new).collect()))
}

/// Reads the set once; without it the component does not start.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Crypto>, Error> {
    let fields = Fields::read(&metadata)?;
    let Secret(given) = &fields.jwks;
    let mut refreshing = JoinSet::new();
    let (keys, file) = if given.starts_with("https://") || given.starts_with("http://") {
        let timeout = match fields.timeout < LEAST_TIMEOUT {
            true => Duration::from_secs(30),
            false => fields.timeout,
        };
        let client = Client::builder()
            .timeout(timeout)
            .build()
            .map_err(|cause| {
                let text = error::chain(&cause);
                Error::invalid(format!("the HTTP client cannot be made: {text}"))
            })?;
        let set = fetch(&client, given).await?;
        let keys = Arc::new(Mutex::new(set));
        let interval = match fields.interval < LEAST_INTERVAL {
            true => Duration::from_secs(600),
            false => fields.interval,
        };
        refreshing.spawn(refresh(client, given.clone(), interval, keys.clone()));
        (keys, None)
    } else if let Some(set) = inline(given) {
        (Arc::new(Mutex::new(set?)), None)
    } else {
        let path = PathBuf::from(given);
        let (set, state) = load(&path).await?;
        let read = Mutex::new(state);
        (Arc::new(Mutex::new(set)), Some(File { path, read }))
    };
    Ok(Arc::new(Local(Jwks {
        keys,
        file,
        _refreshing: refreshing,
    })))
}

/// A set that is the value itself; nothing where it is something else.
fn inline(given: &str) -> Option<Result<Arc<Set>, Error>> {
    let is_json = |text: &[u8]| text.trim_ascii_start().starts_with(b"{");
    if is_json(given.as_bytes()) {
        return Some(parse(given.as_bytes()));
    }
    let decoded = STANDARD.decode(given.trim()).ok()?;
    is_json(&decoded).then(|| parse(&decoded))
}

async fn load(path: &Path) -> Result<(Arc<Set>, State), Error> {
    let failed = |cause: std::io::Error| {
        Error::invalid(format!("the JWKS cannot be read from its file: {cause}"))
    };
    let state = state(path).await;
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = Vec::new();
    let most = MOST as u64 + 1;
    file.take(most)
        .read_to_end(&mut text)
        .await
        .map_err(failed)?;
    if text.len() > MOST {
        return Err(too_long());
    }
    Ok((parse(&text)?, state))
}

fn too_long() -> Error {
    Error::invalid(format!("the JWKS has more than {MOST} bytes"))
}

async fn state(path: &Path) -> State {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

async fn fetch(client: &Client, url: &str) -> Result<Arc<Set>, Error> {
    let failed = |cause: reqwest::Error| {
        let text = error::chain(&cause.without_url());
        Error::unavailable(format!("the JWKS cannot be had from its URL: {text}"))
    };
    let answer = client.get(url).send().await.map_err(failed)?;
    let answer = answer.error_for_status().map_err(failed)?;
    let body = body::read(answer, MOST).await.map_err(failed)?;
    parse(&body.whole().ok_or_else(too_long)?)
}

/// Reads a URL again and again. What was read before stays where that fails.
async fn refresh(client: Client, url: String, interval: Duration, keys: Arc<Mutex<Arc<Set>>>) {
    loop {
        tokio::time::sleep(interval).await;
        match fetch(&client, &url).await {
            Ok(set) => *lock(&keys) = set,
            Err(cause) => {
                tracing::warn!(target: SCOPE, "the keys that were read before stay in use: {cause}")
            }
        }
    }
}

#[async_trait]
impl Keys for Jwks {
    async fn key(&self, name: &str) -> Result<Arc<Key>, Error> {
        if let Some(file) = &self.file {
            self.follow(file).await;
        }
        let set = lock(&self.keys).clone();
        let found = set.iter().find(|key| key.id() == Some(name));
        found.cloned().ok_or_else(not_found)
    }
}

impl Jwks {
    /// Reads a file that has changed. What was read before stays where that
    /// fails.
    async fn follow(&self, file: &File) {
        let now = state(&file.path).await;
        if now.is_none() || *lock(&file.read) == now {
            return;
        }
        match load(&file.path).await {
            Ok((set, state)) => {
                *lock(&self.keys) = set;
                *lock(&file.read) = state;
            }
            Err(cause) => {
                *lock(&file.read) = now;
                tracing::warn!(target: SCOPE, "the keys that were read before stay in use: {cause}");
            }
        }
    }
}
