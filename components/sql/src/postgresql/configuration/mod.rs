//! `configuration.postgresql`: <https://docs.dapr.io/reference/components-reference/supported-configuration-stores/postgresql-configuration-store/>.
//!
//! Items are rows with a key, a value, a version and metadata; of several rows
//! of a key the one with the highest version counts. Changes are announced by a
//! trigger of the table, which notifies a channel.

mod listen;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use outrider_components::configuration::{
    Changes, Handler, Item, Items, Read, Request, Store, Subscription,
};
use outrider_components::{Context, Error, Field, Kind, Metadata, Pairs};
use serde_json::Value;
use sqlx::postgres::PgPool;

use self::listen::Listening;
use super::connection::{self, Connection};
use crate::statement::{failed, in_time};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, connection::Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// Name of the table, with or without a schema: lower case letters,
        /// digits and `_`.
        "table" => table: String, missing "missing postgreSQL configuration table name";
        /// The channel that the table's trigger notifies. Without it each
        /// subscription names one, as `pgNotifyChannel` in its metadata.
        "notifyChannel" | "pgNotifyChannel" => channel: Option<String>;
        /// How long one operation may take; at least 1s.
        "timeout" | "timeoutInSeconds" => timeout: Duration = "20s";
        /// An older name of `connectionMaxIdleTime`.
        "connMaxIdleTime" => max_idle_time: Option<Duration>;
    }
}

/// The name of the channel in the metadata of a subscription.
const CHANNEL: &str = "pgNotifyChannel";
/// The longest name that the server takes is one shorter; such is not found.
const LONGEST_NAME: usize = 64;
/// Bytes of the keys and values of one answer. Without keys the whole table is
/// asked for.
const MOST_BYTES: usize = 64 << 20;
const SCOPE: &str = "dapr.contrib";

struct PostgreSql {
    rows: Arc<Rows>,
    channel: Option<String>,
    listening: Listening,
}

/// Reads items.
pub struct Rows {
    pool: PgPool,
    timeout: Duration,
    /// Quoted.
    table: String,
}

/// Connects, and looks whether the table is there.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    let fields = Fields::read(&metadata)?;
    check("table name", &fields.table)?;
    if let Some(channel) = &fields.channel {
        check("notifyChannel name", channel)?;
    }
    let mut connection = connection::Fields::read(&metadata)?;
    connection.max_idle_time = connection.max_idle_time.or(fields.max_idle_time);
    let connection = Connection::new(&connection, fields.timeout)?;
    let pool = connection
        .open()
        .await
        .map_err(|error| error.context("PostgreSQL configuration store connection error"))?;
    let parts = fields.table.split('.');
    let quoted: Vec<String> = parts.map(|part| format!("\"{part}\"")).collect();
    let rows = Arc::new(Rows {
        pool,
        timeout: fields.timeout,
        table: quoted.join("."),
    });
    if !rows.has_table().await? {
        let table = &fields.table;
        let text = format!("postgreSQL configuration table '{table}' does not exist");
        return Err(Error::new(Kind::Precondition, text));
    }
    Ok(Arc::new(PostgreSql {
        listening: Listening::new(rows.clone()),
        rows,
        channel: fields.channel,
    }))
}

/// Names of tables and channels become part of statements.
fn check(what: &str, name: &str) -> Result<(), Error> {
    if name.len() > LONGEST_NAME {
        return Err(Error::invalid(format!(
            "{what} is too long - {name:?}. max allowed length is {LONGEST_NAME}"
        )));
    }
    let is_part = |part: &str| {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !part.is_empty() && part.chars().all(is_allowed)
    };
    match name.split('.').all(is_part) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "invalid {what} {name:?}. non-alphanumerics or upper cased names are not supported"
        ))),
    }
}

impl Rows {
    async fn has_table(&self) -> Result<bool, Error> {
        let asking = async {
            let found = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&self.table);
            found.fetch_one(&self.pool).await.map_err(failed)
        };
        in_time(self.timeout, asking).await
    }

    /// The items that there are of some keys, or of all.
    async fn get(&self, keys: Option<&[String]>) -> Result<Items, Error> {
        let reading = self.select(keys);
        let read = in_time(self.timeout, reading).await;
        read.map_err(|error| error.context("error in querying configuration store"))
    }

    async fn select(&self, keys: Option<&[String]>) -> Result<Items, Error> {
        let table = &self.table;
        // What is too large is measured, not read.
        let large = format!(
            "octet_length(key::text) + octet_length(value::text) + coalesce(octet_length(metadata::text), 0) > {MOST_BYTES}"
        );
        let select = format!(
            "SELECT key::text, CASE WHEN {large} THEN NULL ELSE value::text END, version::text, \
             CASE WHEN {large} THEN NULL ELSE metadata::text END, coalesce({large}, false) \
             FROM {table} WHERE key IS NOT NULL"
        );
        let text = match keys {
            None => select,
            Some(_) => format!("{select} AND key = ANY($1)"),
        };
        // The name of the table is checked.
        let mut query = sqlx::query_as::<_, Row>(sqlx::AssertSqlSafe(text));
        if let Some(keys) = keys {
            query = query.bind(keys);
        }
        let mut rows = query.fetch(&self.pool);
        let mut latest: HashMap<String, (i64, Item)> = HashMap::new();
        let mut bytes = 0;
        while let Some((key, value, version, metadata, is_large)) =
            rows.try_next().await.map_err(failed)?
        {
            let (value, version) = (value.unwrap_or_default(), version.unwrap_or_default());
            bytes += key.len() + value.len() + metadata.as_ref().map_or(0, String::len);
            if is_large || bytes > MOST_BYTES {
                let most = MOST_BYTES >> 20;
                let text = format!(
                    "the keys and values are larger than {most} MiB: name the keys that are wanted"
                );
                return Err(Error::new(Kind::Precondition, text));
            }
            // A version that is no number counts as the lowest.
            let number = version.parse().unwrap_or(-1);
            let is_newer = latest.get(&key).is_none_or(|(known, _)| *known < number);
            if is_newer {
                let item = Item {
                    value,
                    version,
                    metadata: pairs(metadata.as_deref()),
                };
                latest.insert(key, (number, item));
            }
        }
        let items = latest.into_iter().map(|(key, (_, item))| (key, item));
        Ok(items.collect())
    }
}

#[async_trait]
impl Read for Rows {
    async fn read(&self, keys: &[String]) -> Result<Items, Error> {
        self.get(Some(keys)).await
    }
}

/// Key, value, version, metadata in JSON, and whether these are left out because
/// they are too large.
type Row = (String, Option<String>, Option<String>, Option<String>, bool);

/// The members of an object as texts.
fn pairs(json: Option<&str>) -> Pairs {
    let object: Value = json
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    let members = object.as_object().into_iter().flatten();
    let texts = members.map(|(name, value)| match value {
        Value::String(text) => (name.clone(), text.clone()),
        other => (name.clone(), other.to_string()),
    });
    texts.collect()
}

impl PostgreSql {
    /// The channel of a subscription.
    fn channel(&self, request: &Request) -> Result<String, Error> {
        let mut metadata = request.metadata.iter();
        let said = metadata.find(|(name, _)| name.eq_ignore_ascii_case(CHANNEL));
        let said = said.map(|(_, channel)| channel).filter(|c| !c.is_empty());
        let Some(channel) = self.channel.as_ref().or(said) else {
            let table = &self.rows.table;
            return Err(Error::invalid(format!(
                "unable to subscribe to {table}. notifyChannel must be set in component metadata or request metadata"
            )));
        };
        check("notifyChannel name", channel)?;
        Ok(channel.clone())
    }
}

#[async_trait]
impl Store for PostgreSql {
    async fn get(&self, request: &Request) -> Result<Items, Error> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_');
        let is_wrong = |key: &&String| !key.chars().all(is_allowed);
        if let Some(wrong) = request.keys.iter().find(is_wrong) {
            return Err(Error::invalid(format!("invalid key : '{wrong}'")));
        }
        let keys = Some(&*request.keys).filter(|keys| !keys.is_empty());
        self.rows.get(keys).await
    }

    async fn subscribe(
        &self,
        request: &Request,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error> {
        let channel = self.channel(request)?;
        let changes = Arc::new(Changes::new(&request.keys));
        let listened = self.listening.add(&channel, &changes).await?;
        let mut subscription = Subscription::default();
        let (rows, stopping) = (self.rows.clone(), subscription.stopping());
        subscription.spawn(async move {
            let _listened = listened;
            changes.pass_on(&*rows, &*handler, &stopping).await;
        });
        Ok(subscription)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.rows.has_table().await.map(drop)
    }

    async fn close(&self) -> Result<(), Error> {
        self.listening.close();
        self.rows.pool.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_they_are_part_of_a_statement() {
        for name in ["config", "dapr.config_1"] {
            assert!(check("table name", name).is_ok(), "{name}");
        }
        for name in ["", "Config", "a\"b", "a;b", "a..b", "a b", &*"a".repeat(65)] {
            assert!(check("table name", name).is_err(), "{name}");
        }
    }

    #[test]
    fn metadata_are_texts() {
        let all = pairs(Some(r#"{"a":"b","n":1}"#));
        assert_eq!((&*all["a"], &*all["n"]), ("b", "1"));
        assert!(pairs(None).is_empty() && pairs(Some("[1]")).is_empty());
    }
}
