//! `secretstores.local.file`: <https://docs.dapr.io/reference/components-reference/supported-secret-stores/file-secret-store/>.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::secrets::{Feature, GetRequest, Store};
use outrider_components::{Context, Error, Field, Metadata, Pairs, Truthy};
use serde_json::Value;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// Path of the JSON file with the secrets.
        "secretsFile" => path: String, missing "missing local secrets file in metadata";
        /// What separates the parts of the name of a nested value.
        "nestedSeparator" => separator: String = ":";
        /// Whether the members of the top object are the secrets, and the
        /// values below them their keys. If not, each value is a secret.
        "multiValued" => multi_valued: Truthy = "false";
    }
}

struct File {
    secrets: HashMap<String, Pairs>,
    features: &'static [Feature],
}

/// Reads the file once.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    let Fields {
        path,
        separator,
        multi_valued: Truthy(has_keys),
    } = Fields::read(&metadata)?;
    let text = tokio::fs::read(&path).await.map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        Error::invalid(format!("open {path}: {reason}")).because(error)
    })?;
    let document: serde_json::Map<String, Value> =
        serde_json::from_slice(&text).map_err(|error| {
            Error::invalid(format!("secrets file {path} is not a JSON object: {error}"))
        })?;
    let in_file = |error: Error| error.context(&format!("secrets file {path}"));
    let store = if has_keys {
        File {
            secrets: multi_valued(&document, &separator).map_err(in_file)?,
            features: &[Feature::MultipleKeyValuesPerSecret],
        }
    } else {
        File {
            secrets: single_valued(&document, &separator).map_err(in_file)?,
            features: &[],
        }
    };
    Ok(Arc::new(store))
}

/// Every leaf is a secret, named by its path.
fn single_valued(
    document: &serde_json::Map<String, Value>,
    separator: &str,
) -> Result<HashMap<String, Pairs>, Error> {
    let mut leaves = Pairs::new();
    for (name, value) in document {
        flatten(name.clone(), value, separator, &mut leaves)?;
    }
    Ok(leaves
        .into_iter()
        .map(|(name, value)| (name.clone(), Pairs::from([(name, value)])))
        .collect())
}

/// Every member of the document is a secret, and the leaves below it are its
/// keys.
fn multi_valued(
    document: &serde_json::Map<String, Value>,
    separator: &str,
) -> Result<HashMap<String, Pairs>, Error> {
    let mut secrets = HashMap::new();
    for (name, value) in document {
        let mut keys = Pairs::new();
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    flatten(key.clone(), value, separator, &mut keys)?;
                }
            }
            Value::Array(_) => flatten(name.clone(), value, separator, &mut keys)?,
            leaf => {
                keys.insert(name.clone(), text(leaf));
            }
        }
        secrets.insert(name.clone(), keys);
    }
    Ok(secrets)
}

fn flatten(path: String, value: &Value, separator: &str, leaves: &mut Pairs) -> Result<(), Error> {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                flatten(format!("{path}{separator}{name}"), value, separator, leaves)?;
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                flatten(
                    format!("{path}{separator}{index}"),
                    value,
                    separator,
                    leaves,
                )?;
            }
        }
        leaf => {
            if leaves.insert(path.clone(), text(leaf)).is_some() {
                return Err(Error::invalid(format!(
                    "two values are called {path}: rename one, or set another nestedSeparator"
                )));
            }
        }
    }
    Ok(())
}

fn text(leaf: &Value) -> String {
    match leaf {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[async_trait]
impl Store for File {
    fn features(&self) -> &[Feature] {
        self.features
    }

    async fn get(&self, request: &GetRequest) -> Result<Pairs, Error> {
        let name = &request.name;
        self.secrets
            .get(name)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("secret {name} not found")))
    }

    async fn bulk_get(&self, _: &Pairs) -> Result<HashMap<String, Pairs>, Error> {
        Ok(self.secrets.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(document: &str, more: &[(&str, &str)]) -> Result<Arc<dyn Store>, Error> {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), document).expect("write");
        let path = file.path().to_str().expect("path is text");
        let properties = [("secretsfile", path)]
            .into_iter()
            .chain(more.iter().copied());
        connect(Metadata::new("file", properties), Context::default()).await
    }

    const NESTED: &str =
        r#"{"top": "a", "db": {"user": "u", "ports": [1, 2.5], "tls": true, "ca": null}}"#;

    async fn all(store: &dyn Store) -> Vec<(String, String, String)> {
        let secrets = store.bulk_get(&Pairs::new()).await.expect("reads memory");
        let mut all: Vec<_> = secrets
            .into_iter()
            .flat_map(|(name, keys)| {
                keys.into_iter()
                    .map(move |(key, value)| (name.clone(), key, value))
            })
            .collect();
        all.sort();
        all
    }

    #[tokio::test]
    async fn a_leaf_is_a_secret_named_by_its_path() {
        for (more, separator) in [(vec![], ":"), (vec![("nestedSeparator", ".")], ".")] {
            let store = open(NESTED, &more).await.expect("is valid");
            let wanted: Vec<_> = [
                ("db.ca", ""),
                ("db.ports.0", "1"),
                ("db.ports.1", "2.5"),
                ("db.tls", "true"),
                ("db.user", "u"),
                ("top", "a"),
            ]
            .iter()
            .map(|(path, value)| {
                let path = path.replace('.', separator);
                (path.clone(), path, (*value).to_owned())
            })
            .collect();
            assert_eq!(all(&*store).await, wanted);
            assert!(store.features().is_empty());
            let error = store
                .get(&GetRequest::new("db"))
                .await
                .expect_err("is no leaf");
            assert_eq!(error.to_string(), "secret db not found");
        }
    }

    #[tokio::test]
    async fn with_multi_valued_a_member_is_a_secret_with_keys() {
        let store = open(NESTED, &[("multiValued", "true")])
            .await
            .expect("is valid");
        assert_eq!(store.features(), [Feature::MultipleKeyValuesPerSecret]);
        let db = store.get(&GetRequest::new("db")).await.expect("is there");
        assert_eq!(db.len(), 5);
        assert_eq!(db["ports:1"], "2.5");
        let top = store.get(&GetRequest::new("top")).await.expect("is there");
        assert_eq!(top, Pairs::from([("top".to_owned(), "a".to_owned())]));
    }

    #[tokio::test]
    async fn errors_say_what_is_wrong_with_the_file() {
        let no_file = connect(Metadata::default(), Context::default()).await;
        assert_eq!(
            no_file.err().expect("needs a file").to_string(),
            "missing local secrets file in metadata"
        );
        let absent = Metadata::new("file", [("secretsFile", "/absent/secrets.json")]);
        assert_eq!(
            connect(absent, Context::default())
                .await
                .err()
                .expect("absent")
                .to_string(),
            "open /absent/secrets.json: no such file or directory"
        );
        let twice = open(r#"{"a:b": "1", "a": {"b": "2"}}"#, &[]).await;
        assert!(
            twice
                .err()
                .expect("ambiguous")
                .to_string()
                .contains("two values are called a:b")
        );
        assert!(open("[]", &[]).await.is_err());
    }
}
