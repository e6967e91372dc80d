//! `bindings.postgresql` and `bindings.mysql`.

use std::sync::Arc;

use outrider_components::bindings::{Answer, Binding, Failure};
use outrider_conformance::bindings::{has_directions, invoke, output};
use outrider_conformance::server::{self, Server};
use serde_json::{Value, json};

use crate::bindings::connect;

async fn run(
    binding: &Binding,
    operation: &str,
    sql: &str,
    params: Value,
) -> Result<Answer, Failure> {
    let params = params.to_string();
    let metadata = [("sql", sql), ("params", &*params)];
    let answer = invoke(output(binding), operation, "", &metadata).await?;
    Ok(answer.expect("an answer"))
}

async fn query(binding: &Binding, sql: &str, params: Value) -> Value {
    let answer = run(binding, "query", sql, params).await;
    let answer = answer.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let text = String::from_utf8_lossy(&answer.data).into_owned();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{sql}: {text}: {error}"))
}

async fn exec(binding: &Binding, sql: &str, params: Value) -> String {
    let answer = run(binding, "exec", sql, params).await;
    let answer = answer.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert!(answer.data.is_empty());
    answer.metadata["rows-affected"].clone()
}

async fn refused(binding: &Binding, operation: &str, sql: &str, params: Value) -> String {
    let refused = run(binding, operation, sql, params).await;
    refused.expect_err(sql).to_string()
}

/// What holds for every database. `number` is how a parameter is written.
async fn suite(binding: &Binding, first: &str, second: &str) {
    let all = |values: Value| values;
    let none = json!([]);
    exec(
        binding,
        "CREATE TABLE things (id INT, name VARCHAR(100))",
        none.clone(),
    )
    .await;
    let insert = format!("INSERT INTO things (id, name) VALUES ({first}, {second})");
    // Parameters are values, whatever they look like.
    let hostile = "x'); DROP TABLE things; --\\\" {} $1 ? \u{1F600}";
    assert_eq!(exec(binding, &insert, json!([1, hostile])).await, "1");
    assert_eq!(exec(binding, &insert, json!([2, null])).await, "1");
    let select = format!("SELECT id, name FROM things WHERE id = {first}");
    let rows = query(binding, &select, all(json!([1]))).await;
    let text = rows.to_string();
    assert!(text.contains(&Value::from(hostile).to_string()), "{text}");
    assert_eq!(
        exec(binding, "UPDATE things SET name = 'all'", none.clone()).await,
        "2"
    );
    let answer = run(binding, "exec", "DELETE FROM things", none.clone()).await;
    let metadata = answer.expect("exec").metadata;
    let names: Vec<&str> = metadata.keys().map(String::as_str).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "duration",
            "end-time",
            "operation",
            "rows-affected",
            "sql",
            "start-time"
        ]
    );
    assert_eq!(metadata["sql"], "DELETE FROM things");
    assert_eq!(metadata["operation"], "exec");
    let operations = output(binding).operations().join(" ");
    assert_eq!(operations, "exec query close");
    // A transaction that nobody ends is nobody else's.
    exec(binding, "BEGIN", none.clone()).await;
    assert_eq!(exec(binding, &insert, json!([3, "c"])).await, "1");
    for _ in 0..8 {
        let rows = query(binding, "SELECT COUNT(*) AS n FROM things", none.clone()).await;
        assert!(rows.to_string().contains('1'), "{rows}");
    }
    // The table changes while its statements are known.
    query(binding, "SELECT * FROM things", none.clone()).await;
    exec(
        binding,
        "ALTER TABLE things ADD COLUMN more INT",
        none.clone(),
    )
    .await;
    query(binding, "SELECT * FROM things", none.clone()).await;
    let unset = refused(binding, "query", "", none.clone()).await;
    assert_eq!(unset, "required metadata not set: sql");
    let params = [("sql", "SELECT 1"), ("params", "{}")];
    let wrong = invoke(output(binding), "query", "", &params).await;
    assert!(wrong.expect_err("no list").to_string().starts_with(
        "invalid metadata property params: failed to unserialize into an array: json: cannot"
    ));
    assert!(refused(binding, "query", &select, none.clone()).await.len() > 10);
    let large = "x".repeat(3_000_000);
    exec(
        binding,
        "CREATE TABLE large (text_of_it TEXT)",
        none.clone(),
    )
    .await;
    if first.starts_with('$') {
        let insert = "INSERT INTO large VALUES ($1)";
        assert_eq!(exec(binding, insert, json!([large])).await, "1");
        let rows = query(binding, "SELECT * FROM large", none.clone()).await;
        assert_eq!(rows[0][0].as_str().map(str::len), Some(3_000_000));
        let too_many = "SELECT repeat('x', 10000000) FROM generate_series(1, 20)";
        let error = refused(binding, "query", too_many, none.clone()).await;
        assert!(error.contains("larger than 64 MiB"), "{error}");
        assert_eq!(query(binding, "SELECT 1", none.clone()).await, json!([[1]]));
    }
    let closed = invoke(output(binding), "close", "", &[]).await;
    assert!(closed.expect("closes").is_none());
    assert_eq!(
        refused(binding, "query", "SELECT 1", none).await,
        "component is closed"
    );
    binding.close().await.expect("close");
}

async fn postgresql(server: &Server, more: &[(&str, &str)]) -> Arc<Binding> {
    let url = format!("postgres://postgres@{}/postgres", server.address());
    let mut properties = vec![("connectionString", url.as_str())];
    properties.extend(more);
    let binding = connect("bindings.postgresql", &properties).await;
    binding.expect("connects")
}

#[tokio::test]
async fn postgresql_runs_statements() {
    let Some(server) = server::postgresql().await else {
        return;
    };
    let binding = postgresql(&server, &[]).await;
    let none = || json!([]);
    // Several statements, of which the last counts.
    let two =
        "CREATE TABLE two (i INT); INSERT INTO two VALUES (1); INSERT INTO two VALUES (2),(3)";
    assert_eq!(exec(&binding, two, none()).await, "2");
    for (operation, params) in [("query", none()), ("exec", json!([1]))] {
        let sql = match operation {
            "exec" => "INSERT INTO two VALUES ($1); SELECT 1",
            _ => "SELECT 1; SELECT 2",
        };
        assert_eq!(
            refused(&binding, operation, sql, params).await,
            "error executing query: ERROR: cannot insert multiple commands into a prepared \
             statement (SQLSTATE 42601)"
        );
    }
    assert_eq!(
        refused(&binding, "query", "SELECT $1", none()).await,
        "error executing query: expected 1 arguments, got 0"
    );
    assert_eq!(
        refused(&binding, "query", "SELECT 1/0", none()).await,
        "error executing query: ERROR: division by zero (SQLSTATE 22012)"
    );
    assert_eq!(
        query(&binding, "SELECT 1 WHERE false", none()).await,
        json!([])
    );
    assert_eq!(query(&binding, "SELECT", none()).await, json!([[]]));
    suite(&binding, "$1", "$2").await;
    // Where nothing stays prepared.
    let binding = postgresql(&server, &[("queryExecMode", "exec"), ("maxConns", "2")]).await;
    exec(&binding, "DROP TABLE things; DROP TABLE large", none()).await;
    let prepared = "SELECT count(*)::int FROM pg_prepared_statements";
    let params = json!([1, "2024-02-03"]);
    let both = query(&binding, "SELECT $1::int + 1, $2::date", params).await;
    assert_eq!(both, json!([[2, "2024-02-03T00:00:00Z"]]));
    assert_eq!(query(&binding, prepared, none()).await, json!([[0]]));
    suite(&binding, "$1", "$2").await;
    let url = format!("postgres://postgres@{}/postgres", server.address());
    has_directions((false, true), |direction| {
        let url = url.clone();
        async move {
            let properties = [("url", &*url), ("direction", direction)];
            connect("bindings.postgresql", &properties).await
        }
    })
    .await;
}

#[tokio::test]
async fn postgresql_has_the_types_of_columns() {
    let Some(server) = server::postgresql().await else {
        return;
    };
    let binding = postgresql(&server, &[]).await;
    for (value, expected) in [
        ("1::int2", json!(1)),
        ("9007199254740993::int8", json!(9_007_199_254_740_993_i64)),
        ("0.1::float4", json!(0.1)),
        ("1e21::float8", json!(1e21)),
        ("1.0::float8", json!(1)),
        ("123.4500::numeric", json!(123.45)),
        ("'NaN'::numeric", json!("NaN")),
        ("0.00001::numeric", json!(0.00001)),
        ("'a<b>é'::text", json!("a<b>é")),
        ("'a'::char(4)", json!("a   ")),
        ("'a'::\"char\"", json!(97)),
        ("true", json!(true)),
        ("null", json!(null)),
        ("'2024-02-03'::date", json!("2024-02-03T00:00:00Z")),
        ("'infinity'::date", json!(1)),
        (
            "'2024-02-03 04:05:06.789'::timestamp",
            json!("2024-02-03T04:05:06.789Z"),
        ),
        (
            "'2024-02-03 04:05:06.789123+02'::timestamptz",
            json!("2024-02-03T02:05:06.789123Z"),
        ),
        (
            "'04:05:06.5'::time",
            json!({"Microseconds": 14_706_500_000_i64, "Valid": true}),
        ),
        ("'04:05:06.5+02'::timetz", json!("04:05:06.5+02")),
        (
            "'1 year 2 mons 3 days 04:05:06.7'::interval",
            json!({"Microseconds": 14_706_700_000_i64, "Days": 3, "Months": 14, "Valid": true}),
        ),
        (
            "'b4ef9c55-1f2b-4fd1-b1a8-70a1c2d1a111'::uuid",
            json!([
                180, 239, 156, 85, 31, 43, 79, 209, 177, 168, 112, 161, 194, 209, 161, 17
            ]),
        ),
        (
            "'{\"b\":1,\"a\":[1,2.50]}'::json",
            json!({"a": [1, 2.5], "b": 1}),
        ),
        ("'\"x\"'::jsonb", json!("x")),
        ("'\\x0102ff'::bytea", json!("AQL/")),
        ("'10.0.0.1'::inet", json!("10.0.0.1/32")),
        ("'::1'::inet", json!("::1/128")),
        ("'08:00:2b:01:02:03'::macaddr", json!("CAArAQID")),
        ("array[1,2,null]", json!([1, 2, null])),
        ("array[[1,2],[3,4]]", json!([1, 2, 3, 4])),
        ("'{}'::int4[]", json!([])),
        ("array['2024-02-03'::date]", json!(["2024-02-03T00:00:00Z"])),
        ("array['{\"a\":1}'::jsonb]", json!([{"a": 1}])),
        (
            "B'101'::bit(3)",
            json!({"Bytes": "oA==", "Len": 3, "Valid": true}),
        ),
        ("point(1,2)", json!("(1,2)")),
        (
            "'((0,0),(1,1))'::path",
            json!({"P": [{"X": 0, "Y": 0}, {"X": 1, "Y": 1}], "Closed": true, "Valid": true}),
        ),
        (
            "'<(0,0),1>'::circle",
            json!({"P": {"X": 0, "Y": 0}, "R": 1, "Valid": true}),
        ),
        (
            "'{1,2,3}'::line",
            json!({"A": 1, "B": 2, "C": 3, "Valid": true}),
        ),
        (
            "int4range(1,5)",
            json!({"Lower": 1, "Upper": 5, "LowerType": 105, "UpperType": 101, "Valid": true}),
        ),
        ("'<a/>'::xml", json!("PGEvPg==")),
        ("1::oid", json!(1)),
        ("row(1,'a')", json!([1, "a"])),
        ("row(1,row(2,null))", json!([1, [2, null]])),
        (
            "'(0,1)'::tid",
            json!({"BlockNumber": 0, "OffsetNumber": 1, "Valid": true}),
        ),
        ("'0/1'::pg_lsn", json!("0/1")),
        ("'$.a'::jsonpath", json!("$.\"a\"")),
        ("'42703'::xid8", json!(42703)),
    ] {
        let rows = query(&binding, &format!("SELECT {value}"), json!([])).await;
        assert_eq!(number_free(&rows[0][0]), number_free(&expected), "{value}");
    }
    let digits = run(
        &binding,
        "query",
        "SELECT 123.4500::numeric, 1e30::numeric",
        json!([]),
    )
    .await;
    assert_eq!(
        digits.expect("query").data,
        "[[123.4500,1000000000000000000000000000000]]"
    );
    for value in ["12.5::money", "'infinity'::float8", "'a b'::tsvector"] {
        let error = refused(&binding, "query", &format!("SELECT {value}"), json!([])).await;
        assert!(error.contains("cast them to text"), "{value}: {error}");
    }
    // Parameters become what their columns hold.
    exec(
        &binding,
        "CREATE TYPE mood AS ENUM ('x'); CREATE DOMAIN whole AS int; CREATE TYPE \"o\"\"dd\" AS (a int); \
        CREATE TABLE t(i int, j bigint, s text, b bool, d date, n numeric, f float8, u uuid, \
        js jsonb, a int[], sa text[], by bytea, en mood, w whole, o \"o\"\"dd\")",
        json!([]),
    )
    .await;
    for (column, value, expected) in [
        ("i", json!(1), json!(1)),
        ("i", json!("1"), json!(1)),
        ("i", json!(null), json!(null)),
        (
            "j",
            json!(9_007_199_254_740_993_i64),
            json!(9_007_199_254_740_993_i64),
        ),
        ("s", json!("a"), json!("a")),
        ("b", json!(true), json!(true)),
        ("b", json!("t"), json!(true)),
        ("d", json!("2024-01-02"), json!("2024-01-02T00:00:00Z")),
        ("n", json!(1.5), json!(1.5)),
        ("f", json!("1"), json!(1)),
        (
            "u",
            json!("b4ef9c55-1f2b-4fd1-b1a8-70a1c2d1a111"),
            json!([
                180, 239, 156, 85, 31, 43, 79, 209, 177, 168, 112, 161, 194, 209, 161, 17
            ]),
        ),
        ("js", json!({"b": 1}), json!({"b": 1})),
        ("js", json!("{\"q\":1}"), json!({"q": 1})),
        ("js", json!([1]), json!([1])),
        ("a", json!([1, 2]), json!([1, 2])),
        ("a", json!("{1,2}"), json!([1, 2])),
        ("a", json!([null]), json!([null])),
        ("sa", json!(["a", "b,\"c"]), json!(["a", "b,\"c"])),
        ("by", json!("abc"), json!("YWJj")),
        ("en", json!("x"), json!("x")),
        ("w", json!(5), json!(5)),
        ("o", json!("(3)"), json!([3])),
    ] {
        let insert = format!("INSERT INTO t({column}) VALUES ($1) RETURNING {column}");
        let rows = query(&binding, &insert, json!([value])).await;
        assert_eq!(
            number_free(&rows[0][0]),
            number_free(&expected),
            "{column} {value}"
        );
    }
    for (column, value) in [
        ("i", json!("x")),
        ("i", json!(99_999_999_999_i64)),
        ("i", json!(1.5)),
        ("s", json!("\0")),
        ("js", json!("x")),
        ("en", json!("y")),
    ] {
        let insert = format!("INSERT INTO t({column}) VALUES ($1)");
        let error = refused(&binding, "exec", &insert, json!([value])).await;
        assert!(
            error.starts_with("error executing query: ERROR: "),
            "{error}"
        );
    }
}

/// With all numbers as floating ones.
fn number_free(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(number_free).collect(),
        Value::Object(members) => {
            let members = members.iter();
            Value::Object(members.map(|(k, v)| (k.clone(), number_free(v))).collect())
        }
        Value::Number(number) => json!(number.as_f64()),
        other => other.clone(),
    }
}

/// A statement that takes too long ends, and its connection is not used again.
#[tokio::test]
async fn postgresql_bounds_the_time_of_statements() {
    let Some(server) = server::postgresql().await else {
        return;
    };
    let binding = postgresql(&server, &[("timeout", "1s"), ("maxConns", "2")]).await;
    for _ in 0..3 {
        let error = refused(&binding, "query", "SELECT pg_sleep(30)", json!([])).await;
        assert!(error.contains("deadline exceeded"), "{error}");
    }
    assert_eq!(query(&binding, "SELECT 1", json!([])).await, json!([[1]]));
}

async fn mysql(
    server: &Server,
    database: &str,
) -> Result<Arc<Binding>, outrider_components::Error> {
    let url = format!("root@tcp({})/{database}", server.address());
    connect("bindings.mysql", &[("url", &*url)]).await
}

#[tokio::test]
async fn mysql_runs_statements() {
    let Some(server) = server::mariadb().await else {
        return;
    };
    let none = || json!([]);
    let binding = mysql(&server, "").await.expect("connects");
    exec(
        &binding,
        "CREATE DATABASE one CHARACTER SET utf8mb4",
        none(),
    )
    .await;
    let binding = mysql(&server, "one?allowNativePasswords=true")
        .await
        .expect("connects");
    exec(
        &binding,
        "CREATE TABLE types (i INT, u BIGINT UNSIGNED, t TINYINT(1) NOT NULL, f FLOAT, \
        d DOUBLE, n DECIMAL(10,4), c CHAR(3), v VARCHAR(10), x TEXT, b BLOB, vb VARBINARY(4), \
        e ENUM('p','q'), da DATE, dt DATETIME(3), ti TIME(1), y YEAR, j JSON, bi BIT(8))",
        none(),
    )
    .await;
    let insert = "INSERT INTO types VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, UNHEX(?), UNHEX(?), ?, ?, ?, ?, ?, ?, b'101')";
    let values = json!([
        -1,
        18_446_744_073_709_551_615_u64,
        true,
        0.1,
        2.5,
        "1.5",
        "abc",
        "é",
        "long",
        "0102ff",
        "01",
        "q",
        "2024-02-03",
        "2024-02-03 04:05:06.789",
        "-34:05:06.5",
        2024,
        "{\"a\":1}"
    ]);
    assert_eq!(exec(&binding, insert, values).await, "1");
    assert_eq!(
        exec(&binding, "INSERT INTO types (t) VALUES (0)", none()).await,
        "1"
    );
    let rows = query(&binding, "SELECT * FROM types ORDER BY t DESC", none()).await;
    assert_eq!(
        rows,
        json!([
            {
                "i": -1, "u": 18_446_744_073_709_551_615_u64, "t": 1, "f": 0.1, "d": 2.5,
                "n": "1.5000", "c": "abc", "v": "é", "x": "long", "b": "AQL/", "vb": "AQ==",
                "e": "q", "da": "2024-02-03T00:00:00Z", "dt": "2024-02-03T04:05:06.789Z",
                "ti": "-34:05:06.500000", "y": 2024, "j": "{\"a\":1}", "bi": "BQ=="
            },
            {"t": 0, "b": null, "vb": null, "bi": null}
        ])
    );
    assert_eq!(
        query(&binding, "SELECT 1 FROM types WHERE t = 5", none()).await,
        json!(null)
    );
    let error = refused(&binding, "query", "SELEC 1", none()).await;
    assert!(
        error.starts_with("error executing query: Error 1064 (42000): You have"),
        "{error}"
    );
    let error = refused(&binding, "query", "SELECT ?", json!([[1]])).await;
    assert!(error.contains("unsupported type []interface {}"), "{error}");
    // One statement, unless the URL says otherwise.
    let two = "INSERT INTO types (t) VALUES (2); INSERT INTO types (t) VALUES (3), (4)";
    refused(&binding, "exec", two, none()).await;
    let many = mysql(&server, "one?multiStatements=true")
        .await
        .expect("connects");
    assert_eq!(exec(&many, two, none()).await, "2");
    let rows = query(
        &many,
        "SELECT da, dt, d, i, b FROM types WHERE i = -1",
        none(),
    )
    .await;
    assert_eq!(
        rows,
        json!([{
            "da": "2024-02-03T00:00:00Z", "dt": "2024-02-03T04:05:06.789Z", "d": 2.5, "i": -1,
            "b": "AQL/"
        }])
    );
    suite(&binding, "?", "?").await;
    let error = mysql(&server, "absent").await.err().expect("is refused");
    assert!(
        error.to_string().starts_with("unable to ping the DB: "),
        "{error}"
    );
    let url = format!("root@tcp({})/one", server.address());
    has_directions((false, true), |direction| {
        let url = url.clone();
        async move {
            let properties = [("url", &*url), ("direction", direction)];
            connect("bindings.mysql", &properties).await
        }
    })
    .await;
}
