//! Searches items by their content:
//! <https://docs.dapr.io/developing-applications/building-blocks/state-management/howto-state-query-api/>.

use outrider_components::Error;
use outrider_components::state::{Match, Matches, Query};
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::table::Table;
use crate::statement::failed;

/// A query as a statement.
pub struct Search {
    pub sql: String,
    pub arguments: Vec<Argument>,
    /// Rows before this page; `None` without pages.
    before: Option<i64>,
}

/// What stands for a `$1` of a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    Text(String),
    /// The names that lead to a property.
    Path(Vec<String>),
}

impl Search {
    pub fn new(query: &Query, table: &Table) -> Result<Search, Error> {
        let mut search = Search {
            sql: String::new(),
            arguments: Vec::new(),
            before: None,
        };
        let mut conditions = table.live();
        if !query.filter.is_empty() {
            let filter = search.condition(&query.filter)?;
            conditions = format!("{conditions} AND {filter}");
        }
        let mut order = String::new();
        for sorting in &query.sort {
            let direction = if sorting.order.eq_ignore_ascii_case("DESC") {
                "DESC"
            } else {
                "ASC"
            };
            let property = search.property(&sorting.key);
            order.push_str(&format!("value #> {property} {direction}, "));
        }
        let name = &table.name;
        // Rows that are equal stay in one order, from page to page.
        search.sql = format!(
            "SELECT key, convert_to(value::text, 'UTF8') AS value, xmin::text AS etag \
            FROM {name} WHERE {conditions} ORDER BY {order}row_id"
        );
        let before = match &*query.page.token {
            "" => 0,
            token => token.parse::<i64>().map_err(|_| {
                let quoted = outrider_kit::quote::go(token);
                Error::invalid(format!(
                    "strconv.ParseInt: parsing {quoted}: invalid syntax"
                ))
            })?,
        };
        let limit = query.page.limit;
        if limit > 0 {
            search.sql.push_str(&format!(" LIMIT {limit}"));
            search.before = Some(before);
        }
        if before != 0 {
            search.sql.push_str(&format!(" OFFSET {before}"));
        }
        Ok(search)
    }

    /// What was found. As long as there are pages, each says where the next
    /// one starts, also the last.
    pub fn matches(&self, rows: &[PgRow]) -> Result<Matches, Error> {
        let items = rows.iter().map(|row| {
            let value: Vec<u8> = row.try_get("value").map_err(failed)?;
            Ok(Match {
                key: row.try_get("key").map_err(failed)?,
                value: value.into(),
                etag: row.try_get("etag").map_err(failed)?,
                error: String::new(),
            })
        });
        let items: Vec<Match> = items.collect::<Result<_, Error>>()?;
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let token = self.before.map_or_else(String::new, |before| {
            before.saturating_add(count).to_string()
        });
        Ok(Matches {
            items,
            token,
            ..Matches::default()
        })
    }

    /// The place of a new argument.
    fn argument(&mut self, argument: Argument) -> String {
        self.arguments.push(argument);
        format!("${}", self.arguments.len())
    }

    fn property(&mut self, key: &str) -> String {
        let path = key.split('.').map(str::to_owned).collect();
        self.argument(Argument::Path(path))
    }

    /// A condition, whose form was checked when the query was read.
    fn condition(&mut self, unit: &Map<String, Value>) -> Result<String, Error> {
        let Some((operator, operand)) = unit.iter().next() else {
            return Err(Error::invalid("filter unit must have a single element"));
        };
        if let ("AND" | "OR", Some(units)) = (&**operator, operand.as_array()) {
            let conditions = units.iter().filter_map(Value::as_object);
            let conditions: Vec<String> = conditions
                .map(|unit| self.condition(unit))
                .collect::<Result<_, _>>()?;
            return Ok(format!("({})", conditions.join(&format!(" {operator} "))));
        }
        let pair = operand.as_object().and_then(|pairs| pairs.iter().next());
        let Some((key, value)) = pair else {
            return Err(Error::invalid(format!("{operator} filter must be a map")));
        };
        let comparison = match &**operator {
            "EQ" => return Ok(self.equal(key, value)),
            "NEQ" => return Ok(format!("NOT {}", self.equal(key, value))),
            "IN" => return self.any_of(key, value),
            "GT" => ">",
            "GTE" => ">=",
            "LT" => "<",
            "LTE" => "<=",
            other => {
                let quoted = outrider_kit::quote::go(other);
                return Err(Error::invalid(format!("unsupported filter {quoted}")));
            }
        };
        if let Value::String(text) = value {
            return Err(Error::invalid(format!(
                "unsupported type of value {text}; string type not permitted"
            )));
        }
        let property = self.property(key);
        let value = self.argument(Argument::Text(value.to_string()));
        let value = format!("CAST({value} AS jsonb)");
        // Values of different types have an order in PostgreSQL.
        Ok(format!(
            "(jsonb_typeof(value #> {property}) = jsonb_typeof({value}) \
            AND value #> {property} {comparison} {value})"
        ))
    }

    /// Also true for a string with the text of a number or a boolean.
    fn equal(&mut self, key: &str, value: &Value) -> String {
        let property = self.property(key);
        match value {
            Value::Null => format!("(value #>> {property} IS NULL)"),
            Value::String(text) => {
                let text = self.argument(Argument::Text(text.clone()));
                format!("(value #>> {property} = {text})")
            }
            other => {
                let text = self.argument(Argument::Text(other.to_string()));
                format!(
                    "(value #> {property} = CAST({text} AS jsonb) OR value #>> {property} = {text})"
                )
            }
        }
    }

    fn any_of(&mut self, key: &str, values: &Value) -> Result<String, Error> {
        let values = values.as_array().map_or(&[][..], Vec::as_slice);
        if values.is_empty() {
            let quoted = outrider_kit::quote::go(key);
            return Err(Error::invalid(format!(
                "empty IN operator for key {quoted}"
            )));
        }
        let conditions: Vec<String> = values.iter().map(|value| self.equal(key, value)).collect();
        Ok(format!("({})", conditions.join(" OR ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Layout;
    use super::*;

    fn search(document: &str) -> Result<Search, Error> {
        let table = Table {
            name: "state".to_owned(),
            layout: Layout::Json,
        };
        let query = Query::parse(document.as_bytes()).expect("is a query");
        Search::new(&query, &table)
    }

    #[test]
    fn nothing_of_a_query_is_part_of_the_statement() {
        let search = search(
            r#"{"filter": {"OR": [{"EQ": {"a.b'c": "x'y"}}, {"IN": {"d": [1, true]}}]},
                "sort": [{"key": "e'f", "order": "desc; drop"}], "page": {"limit": 2, "token": "4"}}"#,
        )
        .expect("can be asked");
        assert!(!search.sql.contains("drop") && !search.sql.contains("'y"));
        assert!(search.sql.ends_with("LIMIT 2 OFFSET 4"), "{}", search.sql);
        let path = |names: &[&str]| Argument::Path(names.iter().map(|n| (*n).to_owned()).collect());
        let text = |text: &str| Argument::Text(text.to_owned());
        assert_eq!(
            search.arguments,
            [
                path(&["a", "b'c"]),
                text("x'y"),
                path(&["d"]),
                text("1"),
                path(&["d"]),
                text("true"),
                path(&["e'f"]),
            ]
        );
    }

    #[test]
    fn queries_that_cannot_be_answered_are_errors() {
        for (document, error) in [
            (
                r#"{"filter": {"GT": {"a": "x"}}}"#,
                "unsupported type of value x; string type not permitted",
            ),
            (
                r#"{"filter": {"IN": {"a": []}}}"#,
                r#"empty IN operator for key "a""#,
            ),
            (
                r#"{"page": {"limit": 1, "token": "x"}}"#,
                r#"strconv.ParseInt: parsing "x": invalid syntax"#,
            ),
        ] {
            let refused = search(document).err().expect(document);
            assert_eq!(refused.to_string(), error);
        }
    }
}
