//! The tables of items, as both versions of Dapr's store have them.

use outrider_components::Error;
use outrider_components::state::Value;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::Bound;
use crate::json;

/// What the columns of a table hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Values are JSON; bytes are a string in base64. The etag is the number
    /// of the transaction that wrote the row.
    Json,
    /// Values are bytes, etags UUIDs.
    Bytes,
}

/// A table of items. Its name is checked.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    pub layout: Layout,
}

/// What is said to a table, made once.
pub struct Statements {
    pub get: SqlStr,
    pub bulk_get: SqlStr,
    pub set: SqlStr,
    /// Only if there is no live row.
    pub set_new: SqlStr,
    /// Only if the etag matches.
    pub set_etag: SqlStr,
    pub delete: SqlStr,
    pub delete_etag: SqlStr,
    pub keys_like: SqlStr,
}

impl Table {
    pub fn is_json(&self) -> bool {
        self.layout == Layout::Json
    }

    /// The column of the time when a row expires.
    pub fn expires(&self) -> &'static str {
        match self.layout {
            Layout::Json => "expiredate",
            Layout::Bytes => "expires_at",
        }
    }

    /// The condition that a row has not expired.
    pub fn live(&self) -> String {
        let expires = self.expires();
        format!("({expires} IS NULL OR {expires} >= CURRENT_TIMESTAMP)")
    }

    /// The statement that deletes what has expired.
    pub fn delete_expired(&self) -> String {
        let (name, expires) = (&self.name, self.expires());
        format!("DELETE FROM {name} WHERE {expires} IS NOT NULL AND {expires} < now()")
    }

    pub fn statements(&self) -> Statements {
        let Table { name, layout } = self;
        let (expires, live) = (self.expires(), self.live());
        // Arguments: key, value, whether it is binary if the layout says that,
        // seconds until it expires, etag.
        let (columns, values, update, after, etag) = match layout {
            Layout::Json => (
                "convert_to(value::text, 'UTF8') AS value, isbinary AS is_binary, xmin::text AS etag",
                "key, value, isbinary, expiredate) VALUES ($1, CAST($2 AS jsonb), $3",
                "value = CAST($2 AS jsonb), isbinary = $3, updatedate = CURRENT_TIMESTAMP",
                4,
                "xmin = CAST($2 AS xid)",
            ),
            Layout::Bytes => (
                "value, false AS is_binary, etag::text AS etag",
                "key, value, expires_at) VALUES ($1, $2",
                "value = $2, etag = gen_random_uuid(), updated_at = CURRENT_TIMESTAMP",
                3,
                "etag = CAST($2 AS uuid)",
            ),
        };
        let expiry = format!("CURRENT_TIMESTAMP + CAST(${after} AS bigint) * interval '1 second'");
        let set_etag = etag.replace("$2", &format!("${}", after + 1));
        let select = format!(
            "SELECT key, {columns}, CAST(floor(extract(epoch FROM {expires})) AS bigint) AS expires FROM {name}"
        );
        let upsert = format!(
            "INSERT INTO {name} AS t ({values}, {expiry}) \
            ON CONFLICT (key) DO UPDATE SET {update}, {expires} = {expiry}"
        );
        let sql = |text: String| AssertSqlSafe(text).into_sql_str();
        Statements {
            get: sql(format!("{select} WHERE key = $1 AND {live}")),
            bulk_get: sql(format!("{select} WHERE key = ANY($1) AND {live}")),
            set_new: sql(format!("{upsert} WHERE t.{expires} < CURRENT_TIMESTAMP")),
            set: sql(upsert),
            set_etag: sql(format!(
                "UPDATE {name} SET {update}, {expires} = {expiry} \
                WHERE key = $1 AND {set_etag} AND {live}"
            )),
            delete: sql(format!("DELETE FROM {name} WHERE key = $1")),
            delete_etag: sql(format!("DELETE FROM {name} WHERE key = $1 AND {etag}")),
            keys_like: sql(format!(
                r"SELECT key, row_id FROM {name} WHERE key LIKE $1 ESCAPE '\' AND {live} AND row_id > $2 ORDER BY row_id LIMIT $3"
            )),
        }
    }

    /// An etag as statements take it.
    pub fn etag(&self, text: &str) -> Result<String, Error> {
        match self.layout {
            Layout::Json => match text.parse::<u32>() {
                Ok(number) => Ok(number.to_string()),
                Err(_) => {
                    let is_number = text.bytes().all(|b| b.is_ascii_digit());
                    let what = if is_number {
                        "value out of range"
                    } else {
                        "invalid syntax"
                    };
                    let quoted = outrider_kit::quote::go(text);
                    Err(Error::etag_invalid(&format!(
                        "strconv.ParseUint: parsing {quoted}: {what}"
                    )))
                }
            },
            Layout::Bytes => match uuid::Uuid::try_parse(text) {
                Ok(uuid) => Ok(uuid.to_string()),
                Err(_) if [36, 38, 32, 45].contains(&text.len()) => {
                    Err(Error::etag_mismatch("invalid UUID format"))
                }
                Err(_) => Err(Error::etag_mismatch(&format!(
                    "invalid UUID length: {}",
                    text.len()
                ))),
            },
        }
    }

    /// Adds the arguments of a value.
    pub fn bind(&self, statement: Bound, value: &Value) -> Result<Bound, Error> {
        match self.layout {
            Layout::Bytes => Ok(statement.bind(value.bytes().to_vec())),
            Layout::Json => {
                let (text, is_binary) = json::text(value)?;
                Ok(statement.bind(text).bind(is_binary))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_that_were_not_given_out_are_errors() {
        let name = "state".to_owned();
        let json = Table {
            name: name.clone(),
            layout: Layout::Json,
        };
        assert_eq!(json.etag("4294967295").expect("is one"), "4294967295");
        for (etag, error) in [
            (
                "x",
                r#"invalid etag value: strconv.ParseUint: parsing "x": invalid syntax"#,
            ),
            (
                "4294967296",
                r#"invalid etag value: strconv.ParseUint: parsing "4294967296": value out of range"#,
            ),
        ] {
            assert_eq!(json.etag(etag).expect_err(etag).to_string(), error);
        }
        let bytes = Table {
            name,
            layout: Layout::Bytes,
        };
        assert_eq!(
            bytes.etag("x").expect_err("is none").to_string(),
            "possible etag mismatch. error from state store: invalid UUID length: 1"
        );
    }
}
