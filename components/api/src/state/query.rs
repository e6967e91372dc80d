use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::Pairs;

/// A query of the state query API:
/// <https://docs.dapr.io/developing-applications/building-blocks/state-management/howto-state-query-api/>.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Query {
    /// One condition, which may be made of others. All items match an empty one.
    #[serde(default, deserialize_with = "nullable")]
    pub filter: Map<String, Value>,
    /// What the items are sorted by, the most important first.
    #[serde(default, deserialize_with = "nullable")]
    pub sort: Vec<Sorting>,
    /// Which part of the answer is wanted.
    #[serde(default, deserialize_with = "nullable")]
    pub page: Page,
    /// The client's metadata, which is no part of the document.
    #[serde(skip)]
    pub metadata: Pairs,
}

/// One property to sort by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Sorting {
    /// The path of the property.
    #[serde(default, deserialize_with = "nullable")]
    pub key: String,
    /// `ASC` or `DESC`; everything else counts as `ASC`.
    #[serde(default, deserialize_with = "nullable")]
    pub order: String,
}

/// A part of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Page {
    /// Items at most; zero leaves it to the store.
    #[serde(default, deserialize_with = "nullable")]
    pub limit: i64,
    /// Where the page before this one ended.
    #[serde(default, deserialize_with = "nullable")]
    pub token: String,
}

/// An item that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// Its whole key, prefix included.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// Its version, if the store keeps one.
    pub etag: Option<String>,
    /// Why it could not be read; empty if it could.
    pub error: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    /// The items of this page.
    pub items: Vec<Match>,
    /// Where the next page starts; empty at the end.
    pub token: String,
    /// More about the answer.
    pub metadata: Pairs,
}

/// Reads null as the default.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Query {
    /// Reads a document. The error is the text for the client.
    pub fn parse(document: &[u8]) -> Result<Query, String> {
        let query: Query = serde_json::from_slice(document).map_err(|e| e.to_string())?;
        if !query.filter.is_empty() {
            check(&query.filter)?;
        }
        Ok(query)
    }
}

/// Conditions nest only as deep as the JSON decoder lets them.
fn check(unit: &Map<String, Value>) -> Result<(), String> {
    let mut entries = unit.iter();
    let (Some((operator, operand)), None) = (entries.next(), entries.next()) else {
        return Err("filter unit must have a single element".to_owned());
    };
    match operator.as_str() {
        "EQ" | "NEQ" | "GT" | "GTE" | "LT" | "LTE" | "IN" => {
            let operand = operand
                .as_object()
                .ok_or_else(|| format!("{operator} filter must be a map"))?;
            if operand.len() != 1 {
                return Err(format!(
                    "{operator} filter must contain a single key/value pair"
                ));
            }
            if operator == "IN" && !operand.values().all(Value::is_array) {
                return Err("IN filter value must be an array".to_owned());
            }
            Ok(())
        }
        "AND" | "OR" => {
            let units = operand
                .as_array()
                .ok_or_else(|| format!("{operator} filter must be an array"))?;
            if units.len() < 2 {
                return Err(format!(
                    "{operator} filter must contain at least two entries"
                ));
            }
            units.iter().try_for_each(|unit| match unit.as_object() {
                Some(unit) => check(unit),
                None => Err("filter unit must be a map".to_owned()),
            })
        }
        other => Err(format!(
            "unsupported filter {}",
            outrider_kit::quote::go(other)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_sort_and_page_are_read_and_optional() {
        let document = br#"{
            "filter": {"AND": [{"EQ": {"a": 1}}, {"IN": {"b": ["x", "y"]}}]},
            "sort": [{"key": "a", "order": "DESC"}, {"key": "b"}],
            "page": {"limit": 3, "token": "t"}
        }"#;
        let query = Query::parse(document).unwrap();
        assert_eq!(query.filter.keys().collect::<Vec<_>>(), ["AND"]);
        assert_eq!((query.sort.len(), &*query.sort[0].order), (2, "DESC"));
        assert_eq!((query.page.limit, &*query.page.token), (3, "t"));
        for nothing in ["{}", r#"{"filter": null, "sort": null, "page": null}"#] {
            assert_eq!(Query::parse(nothing.as_bytes()).unwrap(), Query::default());
        }
    }

    #[test]
    fn an_invalid_filter_is_an_error() {
        for (filter, error) in [
            (
                r#"{"A": 1, "B": 2}"#,
                "filter unit must have a single element",
            ),
            (r#"{"LIKE": {}}"#, r#"unsupported filter "LIKE""#),
            (r#"{"EQ": []}"#, "EQ filter must be a map"),
            (
                r#"{"GT": {"a": 1, "b": 2}}"#,
                "GT filter must contain a single key/value pair",
            ),
            (r#"{"IN": {"a": 1}}"#, "IN filter value must be an array"),
            (r#"{"OR": {}}"#, "OR filter must be an array"),
            (
                r#"{"OR": [{}]}"#,
                "OR filter must contain at least two entries",
            ),
            (r#"{"OR": [1, 2]}"#, "filter unit must be a map"),
        ] {
            let document = format!(r#"{{"filter": {filter}}}"#);
            assert_eq!(Query::parse(document.as_bytes()).unwrap_err(), error);
        }
        assert!(Query::parse(b"no").is_err());
    }
}
