//! Parameters in JSON become those of a statement. They never become part of
//! its text.

use outrider_components::Error;
use serde_json::Value;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgConnection, PgTypeInfo, PgTypeKind};
use sqlx::{
    Arguments as _, AssertSqlSafe, Either, Executor as _, Postgres, Row as _, SqlSafeStr as _,
    Statement as _, Type, TypeInfo as _, ValueRef as _,
};

use super::Failed;

/// Types of the catalog whose bytes are their text.
const TEXTS: [u32; 6] = [19, 25, 114, 705, 1042, 1043];
const BOOL: u32 = 16;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const FLOAT8: u32 = 701;
const JSON: u32 = 114;
const JSONB: u32 = 3802;
/// The numbers of types beyond belong to types that somebody has made.
const LAST_OF_CATALOG: u32 = 16383;

/// The bytes of a value of some type.
struct Parameter {
    kind: PgTypeInfo,
    bytes: Option<Vec<u8>>,
}

impl Type<Postgres> for Parameter {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Parameter {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let Some(bytes) = &self.bytes else {
            return Ok(IsNull::Yes);
        };
        buffer.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.kind.clone())
    }
}

/// The parameters as the types want them that the server finds for a statement.
pub async fn arguments(
    connection: &mut PgConnection,
    sql: &str,
    values: &[Value],
) -> Result<PgArguments, Failed> {
    let sql = AssertSqlSafe(sql.to_owned()).into_sql_str();
    let statement = connection.prepare(sql).await?;
    let kinds = match statement.parameters() {
        Some(Either::Left(kinds)) => kinds.to_vec(),
        _ => Vec::new(),
    };
    if kinds.len() != values.len() {
        let (expected, got) = (kinds.len(), values.len());
        let text = format!("expected {expected} arguments, got {got}");
        return Err(Error::invalid(text).into());
    }
    let mut parameters = Vec::new();
    let mut left = Vec::new();
    for (kind, value) in kinds.into_iter().zip(values) {
        let text = text(value, &kind);
        let bytes = text.as_deref().and_then(|text| bytes(&kind, text));
        if let (Some(text), None) = (text, &bytes) {
            left.push((parameters.len(), text));
        }
        parameters.push(Parameter { kind, bytes });
    }
    if !left.is_empty() {
        let texts = left.iter().map(|(_, text)| text.as_str());
        let kinds = left.iter().map(|(index, _)| &parameters[*index].kind);
        let converted = convert(connection, kinds.cloned().collect(), texts.collect()).await?;
        for ((index, _), bytes) in left.iter().zip(converted) {
            parameters[*index].bytes = Some(bytes);
        }
    }
    let mut arguments = PgArguments::default();
    for parameter in parameters {
        arguments.add(parameter).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

fn oid(kind: &PgTypeInfo) -> u32 {
    kind.oid().map_or(0, |oid| oid.0)
}

/// The text of a value as the server reads it; none for null.
fn text(value: &Value, kind: &PgTypeInfo) -> Option<String> {
    let is_json = [JSON, JSONB].contains(&oid(kind));
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(list) if !is_json => Some(list_text(list)),
        Value::Number(number) if !is_json => Some(number_text(number)),
        other => Some(other.to_string()),
    }
}

/// Whole numbers have no point.
fn number_text(number: &serde_json::Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => format!("{float}"),
        _ => number.to_string(),
    }
}

/// A list in the server's words:
/// <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-INPUT>.
fn list_text(list: &[Value]) -> String {
    let elements = list.iter().map(|element| match element {
        Value::Null => "NULL".to_owned(),
        Value::Array(list) => list_text(list),
        Value::Number(number) => number_text(number),
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    });
    format!("{{{}}}", elements.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The bytes of simple values; of others the server knows them.
fn bytes(kind: &PgTypeInfo, text: &str) -> Option<Vec<u8>> {
    if matches!(kind.kind(), PgTypeKind::Enum(_)) {
        return Some(text.as_bytes().to_vec());
    }
    match oid(kind) {
        oid if TEXTS.contains(&oid) => Some(text.as_bytes().to_vec()),
        BOOL => text.parse::<bool>().ok().map(|value| vec![u8::from(value)]),
        INT2 => text.parse::<i16>().ok().map(|n| n.to_be_bytes().to_vec()),
        INT4 => text.parse::<i32>().ok().map(|n| n.to_be_bytes().to_vec()),
        INT8 => text.parse::<i64>().ok().map(|n| n.to_be_bytes().to_vec()),
        FLOAT8 => {
            let number = text.parse::<f64>().ok().filter(|n| n.is_finite())?;
            Some(number.to_be_bytes().to_vec())
        }
        JSONB => Some([&[1], text.as_bytes()].concat()),
        _ => None,
    }
}

/// Has the server read texts as values of some types.
async fn convert(
    connection: &mut PgConnection,
    kinds: Vec<PgTypeInfo>,
    texts: Vec<&str>,
) -> Result<Vec<Vec<u8>>, Failed> {
    let mut casts = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let name = match oid(kind) {
            1..=LAST_OF_CATALOG => kind.name().to_owned(),
            // As the server quotes it.
            oid => {
                let asking = sqlx::query_scalar("SELECT format_type($1::bigint::oid, NULL)");
                let asking = asking.bind(i64::from(oid)).persistent(false);
                asking.fetch_one(&mut *connection).await?
            }
        };
        casts.push(format!("CAST(${}::text AS {name})", index + 1));
    }
    let select = format!("SELECT {}", casts.join(", "));
    let mut query = sqlx::query(AssertSqlSafe(select)).persistent(false);
    for text in texts {
        query = query.bind(text);
    }
    let row = query.fetch_one(&mut *connection).await?;
    let mut all = Vec::new();
    for index in 0..kinds.len() {
        let value = row.try_get_raw(index)?;
        let bytes = match value.is_null() {
            true => &[],
            false => value.as_bytes().map_err(sqlx::Error::Decode)?,
        };
        all.push(bytes.to_vec());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_quoted_as_the_server_reads_them() {
        let Value::Array(list) = json!([1, 2.0, null, "a\"b\\c,{", ["x"], true, {"k": 1}]) else {
            panic!("is a list");
        };
        assert_eq!(
            list_text(&list),
            r#"{1,2,NULL,"a\"b\\c,{",{"x"},"true","{\"k\":1}"}"#
        );
    }
}
