//! `secretstores.hashicorp.vault`: <https://docs.dapr.io/reference/components-reference/supported-secret-stores/hashicorp-vault/>.
//!
//! Secrets are read from a key-value engine of version 2.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::secrets::{Feature, GetRequest, Store};
use outrider_components::{Context, Error, Field, Kind, Metadata, Pairs, Secret};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::{Certificate, Client, Method, StatusCode, tls};
use serde_json::Value;

use crate::body;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Folders below folders that are listed.
const MAX_DEPTH: usize = 64;
/// Bytes of an answer.
const MAX_ANSWER: usize = 16 << 20;
/// What cannot be in a path as it is; slashes divide the names of secrets.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'\\')
    .add(b'^');
const VERSION: &str = "version_id";

outrider_components::fields! {
    struct Fields {
        /// URL of the server.
        "vaultAddr" => address: String = "https://127.0.0.1:8200";
        /// The token. Either this or `vaultTokenMountPath` is required.
        "vaultToken" => token: Option<Secret>;
        /// Path of a file with the token.
        "vaultTokenMountPath" => token_file: Option<String>;
        /// The folder of the secrets.
        "vaultKVPrefix" => prefix: String = "dapr";
        /// Whether there is such a folder.
        "vaultKVUsePrefix" => use_prefix: bool = "true";
        /// Where the engine is mounted.
        "enginePath" => engine: String = "secret";
        /// `map` where a secret has keys with values, `text` to get it as the
        /// text of its JSON.
        "vaultValueType" => value_type: String = "map";
        /// Certificates that sign that of the server, in PEM.
        "caPem" => ca_pem: Option<String>;
        /// Path of a folder with such certificates.
        "caPath" => ca_folder: Option<String>;
        /// Path of a file with such certificates.
        "caCert" => ca_file: Option<String>;
        /// Whether the server's certificate is not verified.
        "skipVerify" => skip_verify: String = "false";
        /// Not supported: a component with it does not start.
        "tlsServerName" => server_name: Option<String>;
    }
}

struct Vault {
    client: Client,
    /// URL of the engine.
    engine: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    token: Secret,
    is_map: bool,
}

/// Connects with the first question.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    let fields = Fields::read(&metadata)?;
    let is_map = match &*fields.value_type {
        "map" => true,
        "text" => false,
        other => {
            return Err(Error::invalid(format!(
                "vault init error, invalid value type {other}, accepted values are map or text"
            )));
        }
    };
    if fields.server_name.is_some() {
        return Err(Error::unsupported("tlsServerName is not supported"));
    }
    let token = token(&fields).await?;
    let client = client(&fields)
        .await
        .map_err(|error| error.context("couldn't create client using config"))?;
    Ok(Arc::new(Vault {
        client,
        engine: format!(
            "{}/v1/{}",
            fields.address.trim_end_matches('/'),
            fields.engine
        ),
        prefix: if fields.use_prefix {
            format!("{}/", fields.prefix)
        } else {
            String::new()
        },
        token,
        is_map,
    }))
}

async fn token(fields: &Fields) -> Result<Secret, Error> {
    match (&fields.token, &fields.token_file) {
        (None, None) => Err(Error::invalid("token mount path and token not set")),
        (Some(_), Some(_)) => Err(Error::invalid("token mount path and token both set")),
        (Some(token), None) => Ok(token.clone()),
        (None, Some(path)) => match tokio::fs::read_to_string(path).await {
            Ok(text) => Ok(Secret(text.trim().to_owned())),
            Err(error) => Err(Error::invalid(format!(
                "couldn't read vault token from mount path {path} err: {error}"
            ))),
        },
    }
}

/// Whether a name stays below the prefix, in whatever way URLs are read.
fn is_inside(name: &str) -> bool {
    let mut segments = name.split(['/', '\\']);
    segments.all(|segment| !matches!(segment, "." | ".."))
}

async fn client(fields: &Fields) -> Result<Client, Error> {
    let mut builder = Client::builder()
        // The token is for this server alone.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_LIMIT)
        .timeout(LIMIT)
        .tls_version_min(tls::Version::TLS_1_2);
    if fields.skip_verify == "true" {
        tracing::info!(target: "dapr.contrib", "hashicorp vault: you are using 'skipVerify' to skip server config verify which is unsafe!");
        builder = builder.tls_danger_accept_invalid_certs(true);
    } else {
        let mut roots = Vec::new();
        if let Some(pem) = &fields.ca_pem {
            roots = certificates(pem.as_bytes())?;
        } else if let Some(folder) = &fields.ca_folder {
            for file in files(Path::new(folder)).await? {
                roots.extend(certificates(&read(&file).await?)?);
            }
        } else if let Some(file) = &fields.ca_file {
            roots = certificates(&read(Path::new(file)).await?)?;
        }
        if !roots.is_empty() {
            builder = builder.tls_certs_only(roots);
        }
    }
    builder
        .build()
        .map_err(|error| Error::invalid(outrider_kit::error::chain(&error)))
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, Error> {
    Certificate::from_pem_bundle(pem)
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| Error::invalid("couldn't read PEM"))
}

async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| Error::invalid(format!("couldn't read CA file from disk: {error}")))
}

/// The files of a folder and of those below it.
async fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error: std::io::Error| {
        let path = folder.display();
        Error::invalid(format!("couldn't read certificates at {path}: {error}"))
    };
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let mut entries = tokio::fs::read_dir(&next).await.map_err(failed)?;
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            let kind = entry.file_type().await.map_err(failed)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

impl Vault {
    /// The JSON of a page of the engine.
    async fn ask(&self, method: Method, path: &str, what: &str) -> Result<Value, Error> {
        let url = format!("{}/{path}", self.engine);
        let sent = self
            .client
            .request(method, url)
            .header("X-Vault-Token", &self.token.0)
            .header("X-Vault-Request", "true")
            .send()
            .await;
        let unavailable = |error: reqwest::Error| {
            let text = outrider_kit::error::chain(&error.without_url());
            Error::unavailable(format!("couldn't get secret: {text}"))
        };
        let answer = sent.map_err(unavailable)?;
        let status = answer.status();
        let body = body::read(answer, MAX_ANSWER).await.map_err(unavailable)?;
        let body = body
            .whole()
            .ok_or_else(|| Error::internal("couldn't read response: it is too large"))?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| {
                Error::internal(format!("couldn't decode response body: {error}"))
            });
        }
        let kind = match status {
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Kind::Denied,
            status if status.is_server_error() => Kind::Unavailable,
            _ => Kind::Internal,
        };
        let text = String::from_utf8_lossy(&body);
        let code = status.as_u16();
        Err(Error::new(
            kind,
            format!("{what}couldn't get successful response, status code {code}, body {text}"),
        ))
    }

    async fn secret(&self, name: &str, version: &str) -> Result<Pairs, Error> {
        if !is_inside(name) {
            return Err(Error::invalid(format!(
                "the name of the secret {name} leads out of its folder"
            )));
        }
        let path = utf8_percent_encode(name, PATH);
        let version = utf8_percent_encode(version, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("data/{}{path}?version={version}", self.prefix);
        let answer = self.ask(Method::GET, &path, "").await.map_err(|error| {
            if error.kind() == Kind::NotFound {
                return Error::not_found(format!(
                    "getSecret {name} failed secret key or version not exist"
                ));
            }
            error
        })?;
        let data = &answer["data"]["data"];
        if !self.is_map {
            let text = match data {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            return Ok(Pairs::from([(name.to_owned(), text)]));
        }
        let pairs = data.as_object().into_iter().flatten();
        pairs
            .map(|(key, value)| match value {
                Value::String(text) => Ok((key.clone(), text.clone())),
                Value::Null => Ok((key.clone(), String::new())),
                _ => Err(Error::internal(format!(
                    "couldn't decode response body: the value of {key} is not a string"
                ))),
            })
            .collect()
    }

    /// The names of all secrets below the prefix.
    async fn names(&self) -> Result<Vec<String>, Error> {
        let list =
            Method::from_bytes(b"LIST").map_err(|error| Error::internal(error.to_string()))?;
        let mut names = Vec::new();
        let mut folders = vec![(String::new(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let path = format!(
                "metadata/{}{}",
                self.prefix,
                utf8_percent_encode(&folder, PATH)
            );
            let answer = self.ask(list.clone(), &path, "list keys ").await?;
            for key in answer["data"]["keys"].as_array().into_iter().flatten() {
                let Some(key) = key.as_str() else { continue };
                let whole = format!("{folder}{key}");
                if !key.ends_with('/') {
                    names.push(whole);
                } else if depth < MAX_DEPTH {
                    folders.push((whole, depth + 1));
                }
            }
        }
        Ok(names)
    }
}

/// The version that is wanted; 0 is the newest.
fn version(metadata: &Pairs) -> &str {
    metadata.get(VERSION).map_or("0", String::as_str)
}

#[async_trait]
impl Store for Vault {
    fn features(&self) -> &[Feature] {
        if self.is_map {
            &[Feature::MultipleKeyValuesPerSecret]
        } else {
            &[]
        }
    }

    async fn get(&self, request: &GetRequest) -> Result<Pairs, Error> {
        self.secret(&request.name, version(&request.metadata)).await
    }

    async fn bulk_get(&self, metadata: &Pairs) -> Result<HashMap<String, Pairs>, Error> {
        let mut all = HashMap::new();
        for name in self.names().await? {
            match self.secret(&name, version(metadata)).await {
                Ok(pairs) => {
                    all.insert(name, pairs);
                }
                // Deleted, or without this version.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::is_inside;

    #[test]
    fn a_name_stays_below_the_prefix() {
        for name in ["db", "a/b", "a..b", "..a", "", "a/.../b"] {
            assert!(is_inside(name), "{name}");
        }
        for name in ["..", "x/../db", "../../sys/health", "a/.", "x\\..\\db"] {
            assert!(!is_inside(name), "{name}");
        }
    }
}
