//! Where the authority's material is kept.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrider_k8s::objects::{self, Collection};
use outrider_kit::kubernetes::InvalidName;
use serde_json::{Map, Value, json};

use super::{Stored, jwt, x509};
use crate::flags::Credentials;

/// Name of the secret and of the config map.
const BUNDLE: &str = "dapr-trust-bundle";
/// Two replicas that start together may both write; the slower one reads again.
const CONFLICTS: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {0}: {1}")]
    Read(PathBuf, io::Error),
    #[error("failed to write {0}: {1}")]
    Write(PathBuf, io::Error),
    #[error(
        "failed to get trust bundle {kind}: {kind}s \"{BUNDLE}\" not found in namespace {namespace}; the chart creates it"
    )]
    Absent {
        kind: &'static str,
        namespace: String,
    },
    #[error("failed to {verb} trust bundle {kind}: {source}")]
    Api {
        verb: &'static str,
        kind: &'static str,
        source: Box<outrider_k8s::Error>,
    },
    #[error("NAMESPACE: {0}")]
    Namespace(#[from] InvalidName),
    #[error("key {0} of the trust bundle is not text")]
    NotText(String),
}

pub enum Store {
    Files(Credentials),
    Kubernetes(Cluster),
}

/// The secret and config map of a namespace.
pub struct Cluster {
    pub client: outrider_k8s::Client,
    pub namespace: String,
    /// The last parts of its paths are the keys.
    pub credentials: Credentials,
}

impl Store {
    /// Files whose change means that the material may have changed.
    pub fn watched(&self) -> Vec<PathBuf> {
        let Credentials {
            folder,
            root,
            issuer,
            key,
            jwt_key,
            jwks,
        } = match self {
            Self::Files(credentials) => credentials,
            Self::Kubernetes(cluster) => &cluster.credentials,
        };
        let paths = [root, issuer, key, jwt_key, jwks];
        match self {
            Self::Files(_) => paths.map(Clone::clone).to_vec(),
            // The secret is mounted there.
            Self::Kubernetes(_) => paths.map(|p| folder.join(base_name(p))).to_vec(),
        }
    }

    pub async fn load(&self) -> Result<Stored, Error> {
        match self {
            Self::Files(credentials) => load_files(credentials),
            Self::Kubernetes(cluster) => cluster.load().await,
        }
    }

    /// Returns what is stored afterwards: another replica's, if that one was
    /// faster.
    pub async fn save_x509(&self, made: x509::Material) -> Result<x509::Material, Error> {
        match self {
            Self::Files(credentials) => {
                // Not all three exist. Those that do may be of another CA whose other
                // files have different names: they are renamed, not overwritten.
                for path in [&credentials.root, &credentials.key, &credentials.issuer] {
                    put_aside(path)?;
                }
                write(&credentials.root, &made.root)?;
                write(&credentials.key, &made.key)?;
                write(&credentials.issuer, &made.issuer)?;
                Ok(made)
            }
            Self::Kubernetes(cluster) => cluster.save_x509(made).await,
        }
    }

    /// The same for the key and key set of tokens.
    pub async fn save_jwt(&self, made: jwt::Material) -> Result<jwt::Material, Error> {
        match self {
            Self::Files(credentials) => {
                for (path, text) in [
                    (&credentials.jwt_key, &made.key),
                    (&credentials.jwks, &made.jwks),
                ] {
                    write(path, text.as_deref().unwrap_or_default())?;
                }
                Ok(made)
            }
            Self::Kubernetes(cluster) => cluster.save_jwt(made).await,
        }
    }
}

fn load_files(credentials: &Credentials) -> Result<Stored, Error> {
    let read = |path: &Path| match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Read(path.to_owned(), error)),
    };
    let x509 = match (
        read(&credentials.root)?,
        read(&credentials.issuer)?,
        read(&credentials.key)?,
    ) {
        (Some(root), Some(issuer), Some(key)) => Some(x509::Material { root, issuer, key }),
        _ => None,
    };
    Ok(Stored {
        x509,
        jwt: jwt::Material {
            key: read(&credentials.jwt_key)?,
            jwks: read(&credentials.jwks)?,
        },
    })
}

/// `.old`, `.old.1`, and so on.
fn aside_suffix(number: u32) -> String {
    match number {
        0 => ".old".to_owned(),
        number => format!(".old.{number}"),
    }
}

fn put_aside(path: &Path) -> Result<(), Error> {
    // Earlier copies are kept as well.
    let aside = (0..).map(|n| {
        let mut aside = path.as_os_str().to_owned();
        aside.push(aside_suffix(n));
        PathBuf::from(aside)
    });
    let Some(aside) = aside.into_iter().find(|it| !it.exists()) else {
        return Ok(());
    };
    match fs::rename(path, aside) {
        Ok(()) => {
            tracing::warn!(target: "dapr.sentry.ca", "'{}' is not part of a complete CA, which has three files: a new CA is made, and this file is kept with the ending '.old'", path.display());
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::Write(path.to_owned(), error)),
    }
}

/// Writes atomically, readable by the owner only.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |e| Error::Write(path.to_owned(), e);
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    // One that an earlier process left may have another mode, or be a link.
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&staged)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&staged, path).map_err(failed)
}

fn base_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

impl Cluster {
    async fn load(&self) -> Result<Stored, Error> {
        let secret = self.get(Collection::SECRETS, "secret").await?;
        let stored = self.decode(&secret)?;
        if let Some(x509) = &stored.x509 {
            self.publish(&x509.root, stored.jwt.jwks.as_deref()).await?;
        }
        Ok(stored)
    }

    fn decode(&self, secret: &Value) -> Result<Stored, Error> {
        let keys = &self.credentials;
        let read = |path: &Path| {
            let name = base_name(path);
            let Some(data) = secret["data"][&name].as_str().filter(|d| !d.is_empty()) else {
                return Ok(None);
            };
            let bytes = STANDARD.decode(data).ok();
            match bytes.and_then(|b| String::from_utf8(b).ok()) {
                Some(text) => Ok(Some(text)),
                None => Err(Error::NotText(name)),
            }
        };
        let x509 = match (read(&keys.root)?, read(&keys.issuer)?, read(&keys.key)?) {
            (Some(root), Some(issuer), Some(key)) => Some(x509::Material { root, issuer, key }),
            _ => None,
        };
        Ok(Stored {
            x509,
            jwt: jwt::Material {
                key: read(&keys.jwt_key)?,
                jwks: read(&keys.jwks)?,
            },
        })
    }

    async fn save_x509(&self, made: x509::Material) -> Result<x509::Material, Error> {
        let keys = &self.credentials;
        let entries = [
            (&keys.root, made.root.as_str()),
            (&keys.issuer, made.issuer.as_str()),
            (&keys.key, made.key.as_str()),
        ];
        let stored = self.save(&entries, |stored| stored.x509.is_some()).await?;
        let x509 = stored.x509.unwrap_or(made);
        self.publish(&x509.root, stored.jwt.jwks.as_deref()).await?;
        Ok(x509)
    }

    async fn save_jwt(&self, made: jwt::Material) -> Result<jwt::Material, Error> {
        let keys = &self.credentials;
        let entries = [
            (&keys.jwt_key, made.key.as_deref().unwrap_or_default()),
            (&keys.jwks, made.jwks.as_deref().unwrap_or_default()),
        ];
        let stored = self
            .save(&entries, |stored| stored.jwt.is_complete())
            .await?;
        if let Some(x509) = &stored.x509 {
            self.publish(&x509.root, stored.jwt.jwks.as_deref()).await?;
        }
        Ok(stored.jwt)
    }

    /// Adds entries to the secret unless another replica has done so.
    async fn save(
        &self,
        entries: &[(&PathBuf, &str)],
        is_done: impl Fn(&Stored) -> bool,
    ) -> Result<Stored, Error> {
        let path = Collection::SECRETS.object(&self.namespace, BUNDLE)?;
        let mut conflicts = 0;
        loop {
            let mut secret = self.get(Collection::SECRETS, "secret").await?;
            let stored = self.decode(&secret)?;
            if is_done(&stored) {
                return Ok(stored);
            }
            let data = entry_map(&mut secret);
            for (path, text) in entries {
                let name = base_name(path);
                let before = data.insert(name.clone(), STANDARD.encode(text).into());
                keep_aside(data, &name, before);
            }
            match objects::replace(&self.client, &path, &secret).await {
                Ok(secret) => return self.decode(&secret),
                Err(error) if error.is_conflict() && conflicts < CONFLICTS => conflicts += 1,
                Err(source) => {
                    return Err(Error::Api {
                        verb: "update",
                        kind: "secret",
                        source: Box::new(source),
                    });
                }
            }
        }
    }

    /// Copies root certificates and key set from the secret to the config map,
    /// which everybody reads.
    async fn publish(&self, root: &str, jwks: Option<&str>) -> Result<(), Error> {
        let path = Collection::CONFIG_MAPS.object(&self.namespace, BUNDLE)?;
        let (root_key, jwks_key) = (
            base_name(&self.credentials.root),
            base_name(&self.credentials.jwks),
        );
        let mut conflicts = 0;
        loop {
            let mut map = self.get(Collection::CONFIG_MAPS, "configmap").await?;
            let before = map["data"].clone();
            let data = entry_map(&mut map);
            data.insert(root_key.clone(), root.into());
            match jwks {
                Some(jwks) => data.insert(jwks_key.clone(), jwks.into()),
                None => data.remove(&jwks_key),
            };
            if map["data"] == before {
                return Ok(());
            }
            match objects::replace(&self.client, &path, &map).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() && conflicts < CONFLICTS => conflicts += 1,
                Err(source) => {
                    return Err(Error::Api {
                        verb: "update",
                        kind: "configmap",
                        source: Box::new(source),
                    });
                }
            }
        }
    }

    async fn get(&self, collection: Collection, kind: &'static str) -> Result<Value, Error> {
        let path = collection.object(&self.namespace, BUNDLE)?;
        match objects::get(&self.client, &path).await {
            Ok(Some(object)) => Ok(object),
            Ok(None) => Err(Error::Absent {
                kind,
                namespace: self.namespace.clone(),
            }),
            Err(source) => Err(Error::Api {
                verb: "get",
                kind,
                source: Box::new(source),
            }),
        }
    }
}

/// Keeps an entry that is overwritten: it may belong to another CA.
fn keep_aside(data: &mut Map<String, Value>, name: &str, before: Option<Value>) {
    let Some(before) = before.filter(|it| it.as_str().is_some_and(|text| !text.is_empty())) else {
        return;
    };
    if data.get(name) != Some(&before) {
        tracing::warn!(target: "dapr.sentry.ca", "'{name}' of secret {BUNDLE} is not part of a complete CA, which has three entries: a new CA is made, and this entry is kept as '{name}.old'");
        let aside = (0..).map(|n| format!("{name}{}", aside_suffix(n)));
        if let Some(aside) = aside.into_iter().find(|it| !data.contains_key(it)) {
            data.insert(aside, before);
        }
    }
}

fn entry_map(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    if !object["data"].is_object() {
        object["data"] = json!({});
    }
    match &mut object["data"] {
        Value::Object(data) => data,
        _ => unreachable!("it is an object by now"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn keys_are_readable_by_the_owner_only_even_if_a_staged_file_or_link_exists() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("issuer.key");
        let staged = folder.path().join("issuer.key.new");
        fs::write(&staged, "left").unwrap();
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o644)).unwrap();
        write(&key, "secret").unwrap();
        let mode = fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "theirs").unwrap();
        symlink(&elsewhere, &staged).unwrap();
        write(&key, "another").unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(&key).unwrap(), "another");
    }

    #[test]
    fn parts_of_an_incomplete_authority_are_kept() {
        let mut data = Map::new();
        data.insert("ca.crt".into(), "new".into());
        keep_aside(&mut data, "ca.crt", Some("old".into()));
        keep_aside(&mut data, "issuer.crt", None);
        keep_aside(&mut data, "issuer.key", Some("".into()));
        data.insert("ca.crt".into(), "newest".into());
        keep_aside(&mut data, "ca.crt", Some("new".into()));
        let expected = json!({"ca.crt": "newest", "ca.crt.old": "old", "ca.crt.old.1": "new"});
        assert_eq!(Value::Object(data), expected);
    }
}
