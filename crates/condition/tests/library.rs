//! The standard library, as expressions and their results.
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md#list-of-standard-definitions>

use std::time::Instant;

use outrider_condition::{Condition, Error, Invalid, Scope, of_json};
use proptest::prelude::*;

const EVENT: &str = r#"{
    "id": "1", "type": "order", "source": "shop", "time": "2026-03-04T05:06:07.089Z",
    "data": {
        "n": 5, "big": 9007199254740993, "huge": 18446744073709551615, "f": 1.5, "no": null,
        "list": ["a", "b"], "items": [{"id": 1, "tags": ["x"]}, {"id": 2, "tags": []}],
        "text": "caf\u00e9", "wait": "90m", "pattern": "^o.*r$", "yes": true
    }
}"#;

fn scope() -> Scope {
    let event = serde_json::from_str(EVENT).expect("JSON");
    Scope::new([("event", of_json(event))], EVENT.len())
}

fn compile(text: &str) -> Result<Condition, Invalid> {
    Condition::compile(text, &["event"])
}

fn answer(text: &str) -> Result<bool, Error> {
    scope().holds(&compile(text).unwrap_or_else(|e| panic!("{text}: {e}")))
}

/// Every one holds.
const TRUE: [&str; 105] = [
    // Times.
    "timestamp(event.time) > timestamp('2020-01-01T00:00:00Z')",
    "timestamp(event.time) < timestamp('2030-01-01T00:00:00+01:00')",
    "timestamp('2026-01-01T00:00:00Z') == timestamp('2026-01-01T01:00:00+01:00')",
    "timestamp(0) == timestamp('1970-01-01T00:00:00Z')",
    "timestamp(timestamp(event.time)) == timestamp(event.time)",
    "int(timestamp('1970-01-01T00:01:00Z')) == 60",
    "string(timestamp('2026-01-01T00:00:00Z')) == '2026-01-01T00:00:00Z'",
    "timestamp('2026-01-01T00:00:00Z') + duration('24h') == timestamp('2026-01-02T00:00:00Z')",
    "duration('24h') + timestamp('2026-01-01T00:00:00Z') == timestamp('2026-01-02T00:00:00Z')",
    "timestamp('2026-01-02T00:00:00Z') - duration('1h') < timestamp('2026-01-02T00:00:00Z')",
    "timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')",
    "timestamp(event.time).getFullYear() == 2026",
    "timestamp(event.time).getMonth() == 2",
    "timestamp(event.time).getDate() == 4",
    "timestamp(event.time).getDayOfMonth() == 3",
    "timestamp(event.time).getDayOfYear() == 62",
    "timestamp(event.time).getDayOfWeek() == 3",
    "timestamp(event.time).getHours() == 5",
    "timestamp(event.time).getMinutes() == 6",
    "timestamp(event.time).getSeconds() == 7",
    "timestamp(event.time).getMilliseconds() == 89",
    "timestamp(event.time).getHours('+02:00') == 7",
    "timestamp(event.time).getHours('Asia/Kolkata') == 10",
    "timestamp(event.time).getDate('America/Los_Angeles') == 3",
    "timestamp(event.time).getMinutes('Asia/Kolkata') == 36",
    // Durations.
    "duration(event.data.wait) == duration('1h30m')",
    "duration('1h') > duration('59m')",
    "duration('1h') + duration('1m') == duration('61m')",
    "duration('1h') - duration('1m') == duration('59m')",
    "duration('1h30m').getHours() == 1",
    "duration('1h30m').getMinutes() == 90",
    "duration('1m30s').getSeconds() == 90",
    "duration('1.5s').getMilliseconds() == 1500",
    "string(duration('1m30s')) == '90s'",
    "duration('-1h') < duration('0s')",
    // Strings and bytes.
    "event.type.contains('rde')",
    "event.type.startsWith('or') && event.type.endsWith('er')",
    "event.type.matches('^o.*r$')",
    "event.type.matches(event.data.pattern)",
    "matches(event.type, 'rd')",
    "!event.type.matches('^r')",
    "size(event.data.text) == 4 && event.data.text.size() == 4",
    "bytes(event.data.text).size() == 5",
    "bytes('abc') == b'abc'",
    "string(b'abc') == 'abc'",
    "event.type + '!' == 'order!'",
    "'a' < 'b' && 'b' <= 'b' && 'b' > 'a' && 'b' >= 'a'",
    "'\\u00e9' == event.data.text.matches('\\u00e9$') ? true : event.data.text == 'caf\\u00e9'",
    "r'\\d' == '\\\\d'",
    "\"\"\"a'b\"\"\" == \"a'b\"",
    "b'a' + b'b' == b'ab'",
    // Numbers.
    "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9",
    "7 / 2 == 3 && 7 % 2 == 1 && -7 / 2 == -3",
    "7.0 / 2.0 == 3.5",
    "7u / 2u == 3u",
    "0x10 == 16",
    "1e3 == 1000.0",
    "int('42') == 42 && int(3.9) == 3 && int(5u) == 5",
    "uint(5) == 5u && uint('5') == 5u && uint(5.5) == 5u",
    "double('1.5') == 1.5 && double(2) == 2.0 && double(2u) == 2.0",
    "string(5) == '5' && string(5u) == '5' && string(1.5) == '1.5' && string(true) == 'true'",
    "bool('true') && !bool('false')",
    "1 == 1.0 && 1u == 1.0 && 1 < 1.5 && 2u > 1",
    "event.data.n == 5 && event.data.n > 4 && event.data.n < 5.5",
    "event.data.f + 1.0 == 2.5",
    "-event.data.f == -1.5",
    "event.data.big == 9007199254740993 && event.data.big != 9007199254740992",
    "event.data.huge == 18446744073709551615u",
    // Logic.
    "true || event.missing == 1",
    "event.missing == 1 || true",
    "!(false && event.missing == 1)",
    "!(event.missing == 1 && false)",
    "event.data.yes ? true : event.missing",
    "event.data.yes",
    "null == event.data.no",
    "event.type != event.id",
    // Lists and maps.
    "event['type'] in ['order', 'x']",
    "!('z' in event.data.list)",
    "'n' in event.data",
    "event.data.list[1] == 'b'",
    "event.data.list[int(event.data.f)] == 'b'",
    "event.data.list == ['a', 'b']",
    "event.data.list + ['c'] == ['a', 'b', 'c']",
    "size(event.data.list) == 2 && event.data.list.size() == 2",
    "size({'a': 1}) == 1 && {'a': 1}.a == 1 && {'a': 1}['a'] == 1",
    "{1: 'a', 2u: 'b', true: 'c'}[1] == 'a'",
    // Macros.
    "has(event.data.n) && !has(event.data.x)",
    "event.data.list.exists(x, x == 'a')",
    "event.data.list.all(x, x != 'c')",
    "event.data.list.exists_one(x, x == 'a')",
    "event.data.list.map(x, x + x) == ['aa', 'bb']",
    "event.data.items.map(x, x.id > 1, x.id) == [2]",
    "event.data.list.filter(x, x > 'a') == ['b']",
    "event.data.items.exists(i, i.tags.exists(t, t == 'x'))",
    "event.data.items.all(i, i.tags.all(t, t.startsWith('x')))",
    "event.data.items.filter(i, size(i.tags) > 0).map(i, i.id) == [1]",
    "{'a': 1, 'b': 2}.exists(k, k == 'b')",
    // Types.
    "type(1) == int && type(1u) == uint && type(1.0) == double && type('') == string",
    "type(b'') == bytes && type(true) == bool && type(null) == null_type",
    "type([]) == list && type({}) == map && type(int) == type",
    "type(timestamp(event.time)) == google.protobuf.Timestamp",
    "type(duration('1s')) == google.protobuf.Duration",
    "dyn(1) == 1",
    "// a remark\n event.type == 'order'",
    "int(event.id) == 1 && event.id == string(1)",
];

#[test]
fn every_function_of_the_standard_library_works() {
    let wrong: Vec<String> = TRUE
        .iter()
        .filter_map(|text| match answer(text) {
            Ok(true) => None,
            other => Some(format!("{text}: {other:?}")),
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn undeclared_names_functions_and_types_are_errors() {
    let name = |n: &str| Invalid::Name(n.into());
    let function = |n: &str| Invalid::Function(n.into());
    for (text, why) in [
        ("event.type.lowerCase() == 'x'", function("lowerCase")),
        ("lower(event.type) == 'x'", function("lower")),
        ("event.data.list.sum(x, x) == 1", function("sum")),
        ("foo == 1", name("foo")),
        ("foo.bar == 1", name("foo")),
        ("event.data.list.exists(x, y == 1)", name("y")),
        ("event.data.list.exists(x, true) && x == 1", name("x")),
        ("@result", Invalid::Syntax(String::new())),
        ("strings.quote('a') == 'a'", function("quote")),
        (
            "google.protobuf.Any{} == 1",
            Invalid::Type("google.protobuf.Any".into()),
        ),
        ("Order{id: 1} == 1", Invalid::Type("Order".into())),
        ("type(1) == number", name("number")),
        ("event.type ==", Invalid::Syntax(String::new())),
        ("event.?type == 'x'", Invalid::Syntax(String::new())),
    ] {
        let got = compile(text).unwrap_err();
        match (&got, &why) {
            (Invalid::Syntax(_), Invalid::Syntax(_)) => {}
            _ => assert_eq!(got, why, "{text}"),
        }
    }
    for (text, message) in [
        (
            "event.type.startsWith()",
            "function 'startsWith' cannot be called on a value with 0 arguments",
        ),
        (
            "startsWith(event.type, 'x')",
            "function 'startsWith' cannot be called with 2 arguments",
        ),
        (
            "event.type.size(1) == 1",
            "function 'size' cannot be called on a value with 1 argument",
        ),
        (
            "event.data.list.exists(x)",
            "function 'exists' cannot be called on a value with 1 argument",
        ),
        ("event.type.lower()", "undeclared function 'lower'"),
        (
            "event.type.int() == 1",
            "function 'int' cannot be called on a value with 0 arguments",
        ),
    ] {
        assert_eq!(compile(text).unwrap_err().to_string(), message, "{text}");
    }
    let pattern = compile("event.type.matches('(')").unwrap_err();
    assert!(matches!(pattern, Invalid::Pattern { .. }), "{pattern}");
    let large = compile("event.type.matches('((a{100}){100}){100}')").unwrap_err();
    assert!(matches!(large, Invalid::Pattern { .. }), "{large}");
}

#[test]
fn conditions_that_cannot_be_evaluated_are_errors() {
    assert_eq!(
        answer("event.data.x > 5").unwrap_err().to_string(),
        "no such key: x"
    );
    assert_eq!(
        answer("\"a\"").unwrap_err().to_string(),
        "the result of match expression \"\\\"a\\\"\" was not a boolean"
    );
    for text in [
        "event.type > 1",
        "timestamp(event.type) == timestamp(event.time)",
        "1 / 0 == 1",
        "9223372036854775807 + 1 > 0",
        "event.data.list[9] == 'a'",
        "duration('1y') == duration('1h')",
        "timestamp('9999-12-31T00:00:00Z') + duration('8760h') > timestamp(event.time)",
        "timestamp(event.time).getHours('Mars/Base') == 1",
        "string(b'\\xff') == ''",
        "event.type.matches(event.source + '(')",
    ] {
        assert!(answer(text).is_err(), "{text}");
    }
}

#[test]
fn conditions_that_would_exhaust_the_stack_are_refused() {
    for text in [
        "(".repeat(100) + "true" + &")".repeat(100),
        "1+".repeat(5000) + "1 == 1",
        "event".to_owned() + &".a".repeat(3000),
        "!".repeat(3000) + "true",
    ] {
        assert!(matches!(compile(&text), Err(Invalid::TooLong(_))));
    }
    let many = vec!["event.type == 'com.example.order.created'"; 40].join(" || ");
    assert!(compile(&many).is_ok());
}

/// A list of as many short texts as an event of a megabyte holds.
fn long() -> Scope {
    let items: Vec<String> = (0..120_000).map(|n| format!("\"{n}\"")).collect();
    let event = format!(
        "{{\"data\":[{}],\"text\":\"{}\"}}",
        items.join(","),
        "a".repeat(1 << 16)
    );
    let size = event.len();
    let event = serde_json::from_str(&event).expect("JSON");
    Scope::new([("event", of_json(event))], size)
}

#[test]
fn the_work_of_one_evaluation_is_bounded() {
    let mut worst = std::time::Duration::ZERO;
    for text in [
        "event.data.exists(a, event.data.exists(b, event.data.exists(c, a + b == c + 'x')))",
        "event.data.all(a, event.data.all(b, event.data.all(c, a + b + c != 'x')))",
        "event.data.map(a, event.data.map(b, event.data.map(c, a + b + c))).size() == 1",
        "event.data.filter(a, event.data.filter(b, a == b).size() > 1).size() == 1",
        "event.data.exists_one(a, event.data.exists_one(b, a == b && b != a))",
        "event.data.map(a, event.data).map(a, a.map(b, event.data)).size() == 1",
        "event.data.exists(a, event.data + event.data == event.data + [a])",
        "event.data.all(a, !event.text.matches('(a|a)*b'))",
        "event.data.all(a, !event.text.matches('(a?){40}(a*)*b' + a))",
        "event.data.all(a, !(event.text + event.text + event.text).contains(a))",
    ] {
        let condition = compile(text).unwrap();
        let scope = long();
        let started = Instant::now();
        let answer = scope.holds(&condition);
        let took = started.elapsed();
        worst = worst.max(took);
        println!("{took:?} {text}");
        assert!(
            matches!(answer, Err(Error::TooExpensive(_))),
            "{text}: {answer:?}"
        );
    }
    println!("worst: {worst:?}");
    // Generous, for machines that are busy with other things.
    assert!(worst < std::time::Duration::from_secs(1), "{worst:?}");
}

/// Many rules on one event may not take longer than one.
#[test]
fn conditions_on_the_same_data_share_one_limit() {
    let scope = long();
    let simple = compile("event.data.exists(a, a == '5000')").unwrap();
    let answers: Vec<_> = (0..20).map(|_| scope.holds(&simple)).collect();
    assert_eq!(answers[0], Ok(true));
    assert!(matches!(answers[19], Err(Error::TooExpensive(_))));
    assert_eq!(long().holds(&simple), Ok(true));
}

#[test]
fn long_data_in_few_steps_is_fine_and_in_many_is_not() {
    let scope = long();
    assert_eq!(
        scope.holds(&compile("event.data == event.data").unwrap()),
        Ok(true)
    );
    let many = vec!["event.data == event.data"; 150].join(" && ");
    let answer = scope.holds(&compile(&many).unwrap());
    assert!(matches!(answer, Err(Error::TooExpensive(_))), "{answer:?}");
}

proptest! {
    #[test]
    fn prop_conditions_never_panic(text in "[a-z.'()&|=<>!0-9 \\[\\]{}:,?+*/%-]{0,40}") {
        if let Ok(condition) = compile(&text) {
            let _ = scope().holds(&condition);
        }
    }

    #[test]
    fn prop_calls_never_panic(
        function in "(timestamp|duration|int|uint|double|string|bytes|bool|size|dyn|type|matches)",
        argument in "('[a-z0-9:.+-]{0,12}'|-?[0-9]{1,20}|-?[0-9]{1,4}\\.[0-9]|b'.{0,4}'|\\[1, 2\\]|null|true|event)",
        method in "(\\.getHours\\(\\)|\\.size\\(\\)|\\.getDate\\('[+-]?[0-9]{1,2}:[0-9]{1,2}'\\)| \\+ duration\\('-?[0-9]{1,12}h'\\)|)",
    ) {
        let text = format!("{function}({argument}){method} == 1");
        if let Ok(condition) = compile(&text) {
            let _ = scope().holds(&condition);
        }
    }
}
