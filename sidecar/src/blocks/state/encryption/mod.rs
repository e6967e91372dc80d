//! Encryption at rest: a store with a `primaryEncryptionKey` keeps values that
//! only sidecars with its key can read.
//! <https://docs.dapr.io/developing-applications/building-blocks/state-management/howto-encrypt-state/>

mod key;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use outrider_components::Error as Cause;
use outrider_components::state::Value;
use outrider_crds::property::NameValue;

use key::Key;

const PRIMARY: &str = "primaryEncryptionKey";
const SECONDARY: &str = "secondaryEncryptionKey";
/// Between the encrypted value and the name of its key.
const SEPARATOR: &[u8] = b"||";

/// The keys of one store.
pub struct Keys {
    store: String,
    /// What is written is encrypted with this one.
    primary: Key,
    /// What was written under it can still be read.
    secondary: Option<Key>,
}

impl Keys {
    /// The keys of a store, if its properties name any. The value of each is
    /// beside it. A key that cannot be used is an error, so that nothing is
    /// kept in clear that should not be.
    pub fn of<'a>(
        store: &str,
        properties: impl IntoIterator<Item = (&'a NameValue, &'a str)>,
    ) -> Result<Option<Self>, String> {
        let (mut primary, mut secondary) = (None, None);
        for (item, value) in properties {
            let slot = match item.name.as_str() {
                PRIMARY => &mut primary,
                SECONDARY => &mut secondary,
                _ => continue,
            };
            *slot = Some(of_secret(item, value)?);
        }
        match (primary, secondary) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(unusable(&format!("{SECONDARY} needs a {PRIMARY}"))),
            (Some(primary), secondary) => Ok(Some(Self {
                store: store.to_owned(),
                primary,
                secondary,
            })),
        }
    }

    /// The stored form: base64 of nonce, encrypted value and tag, `||`, and the
    /// name of the key. The text of a JSON string is encrypted without its
    /// quotes, as Dapr does; other values as they are.
    pub fn encrypt(&self, value: &Value) -> Result<Value, Cause> {
        let text = match value {
            Value::Json(json) if json.starts_with(b"\"") => {
                serde_json::from_slice::<String>(json).ok()
            }
            _ => None,
        };
        let plain = text.as_deref().map_or(&value.bytes()[..], str::as_bytes);
        let sealed = self.primary.seal(plain)?;
        let mut stored = STANDARD.encode(sealed).into_bytes();
        stored.extend_from_slice(SEPARATOR);
        stored.extend_from_slice(self.primary.name.as_bytes());
        Ok(Value::Binary(stored.into()))
    }

    /// The value that was encrypted. An empty one is a value without content.
    pub fn decrypt(&self, stored: &[u8]) -> Result<Bytes, Cause> {
        if stored.is_empty() {
            return Ok(Bytes::new());
        }
        let (sealed, name) =
            parts(stored).ok_or_else(|| self.failure("encryption key name not found on record"))?;
        // Both keys may be in one secret, and then have one name.
        let keys = [Some(&self.primary), self.secondary.as_ref()];
        let named = keys
            .into_iter()
            .flatten()
            .filter(|key| key.name.as_bytes() == name);
        let named: Vec<&Key> = named.collect();
        if named.is_empty() {
            let name = String::from_utf8_lossy(name);
            return Err(self.failure(&format!("the store has no encryption key {name}")));
        }
        let sealed = STANDARD
            .decode(sealed)
            .map_err(|_| self.failure("the stored value is not base64"))?;
        named
            .into_iter()
            .find_map(|key| key.open(&sealed))
            .ok_or_else(|| Cause::internal("cipher: message authentication failed"))
    }

    fn failure(&self, why: &str) -> Cause {
        let store = &self.store;
        Cause::internal(format!(
            "could not decrypt data for state store {store}: {why}"
        ))
    }
}

/// The encrypted value, and the name of its key.
fn parts(stored: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = stored
        .windows(SEPARATOR.len())
        .rposition(|part| part == SEPARATOR)?;
    let name = &stored[at + SEPARATOR.len()..];
    (!name.is_empty()).then(|| (&stored[..at], name))
}

fn of_secret(item: &NameValue, value: &str) -> Result<Key, String> {
    let name = item.secret_key_ref.name.as_str();
    match (name, value) {
        ("", _) => Err(unusable("secretKeyRef cannot be empty")),
        (_, "") => Err(unusable("encryption key cannot be empty")),
        (name, _) if name.contains("||") => Err(unusable("its name cannot contain '||'")),
        (name, value) => Key::new(name, value),
    }
}

fn unusable(why: &str) -> String {
    format!("failed to extract encryption key: {why}")
}
