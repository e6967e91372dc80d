//! `crypto.dapr.localstorage`: <https://docs.dapr.io/reference/components-reference/supported-cryptography/local-storage/>.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::crypto::Crypto;
use outrider_components::{Context, Error, Field, Metadata};
use outrider_components_keys::{Form, Key, Keys, Local};

use crate::folder::{self, Folder};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// Folder with a file for each key: a JWK, PEM, or the bytes of a
        /// symmetric key, which may be in base64. Links that lead out of it are
        /// not followed.
        "path" => path: String, missing "metadata property 'path' is required";
    }
}

struct Files(Arc<Folder>);

/// Opens the folder.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Crypto>, Error> {
    let path = Fields::read(&metadata)?.path;
    let opened = Folder::open_existing(PathBuf::from(&path));
    let folder = opened.map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotADirectory => {
            Error::invalid(format!("path '{path}' is not a directory"))
        }
        _ => Error::invalid(format!("could not stat path '{path}': {cause}")),
    })?;
    Ok(Arc::new(Local(Files(Arc::new(folder)))))
}

#[async_trait]
impl Keys for Files {
    /// Reads a file every time, so that a new key is in use at once.
    async fn key(&self, name: &str) -> Result<Arc<Key>, Error> {
        if name.contains("..") {
            return Err(Error::invalid("invalid key path: cannot contain '..'"));
        }
        let path = folder::inside(name)
            .ok_or_else(|| Error::invalid("invalid key path: it has a null character"))?;
        let ending = path.extension().and_then(|ending| ending.to_str());
        let form = match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("json") => Form::Json,
            Some("pem") => Form::Pem,
            _ => Form::Unknown,
        };
        let folder = self.0.clone();
        let reading = tokio::task::spawn_blocking(move || folder.read(&path));
        let read = reading
            .await
            .map_err(|cause| Error::internal(cause.to_string()))?;
        let bytes = read.map_err(|cause| {
            let error = match cause.kind() {
                std::io::ErrorKind::NotFound => Error::not_found("no such file"),
                _ => Error::internal(cause.to_string()),
            };
            error.context(&format!("failed to load key '{name}'"))
        })?;
        let key = Key::parse(&bytes, form)
            .map_err(|cause| cause.context("failed to parse key from secret"))?;
        Ok(Arc::new(key))
    }
}
