//! YAML text to JSON trees, in the dialect that manifests are written in: scalars as YAML 1.1 reads them (`yes`
//! and `off` are booleans, `0x10` and `010` numbers), one broken document does not spoil its neighbours.

use serde_json::Value;

/// A document that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("document {document} (line {line}): {message}")]
pub struct Error {
    /// The first is 1.
    pub document: usize,
    /// Of the whole text; the first is 1.
    pub line: usize,
    pub message: String,
}

/// The documents of a text in their order. Empty ones are passed over.
pub fn documents(text: &str) -> impl Iterator<Item = Result<Value, Error>> {
    split(text)
        .into_iter()
        .enumerate()
        .filter_map(|(index, (start, document))| {
            let mut read: Result<Value, _> =
                serde_saphyr::from_str_with_options(document, dialect());
            // Lines of a quoted text may begin with tabs, which our parser takes for an indentation.
            if read.is_err()
                && document.contains("\n\t")
                && let Ok(value) =
                    serde_saphyr::from_str_with_options(&without_tabs(document), dialect())
            {
                read = Ok(value);
            }
            match read {
                Ok(Value::Null) => None,
                Ok(value) => Some(Ok(value)),
                Err(error) => Some(Err(Error {
                    document: index + 1,
                    line: start + error.location().map_or(0, |at| at.line() as usize).max(1),
                    message: error.without_snippet().to_string(),
                })),
            }
        })
}

/// A document whose lines begin with eight blanks for each tab.
fn without_tabs(document: &str) -> String {
    let lines = document.split_inclusive('\n').map(|line| {
        let rest = line.trim_start_matches('\t');
        format!("{}{rest}", "        ".repeat(line.len() - rest.len()))
    });
    lines.collect()
}

fn dialect() -> serde_saphyr::Options {
    serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        strict_booleans: false,
        with_snippet: false,
    }
}

/// Cuts at lines that start with `---`, whatever follows on them. Such a line that opens the text, or follows
/// another one, belongs to its document. Each piece comes with the number of lines before it.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut pieces = Vec::new();
    let (mut start, mut lines_before) = (0, 0);
    let (mut at, mut opening) = (0, true);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let end = at + line.len();
        if line.starts_with("---") && !opening {
            pieces.push((lines_before, &text[start..at]));
            (start, lines_before) = (end, number + 1);
            opening = true;
        } else {
            opening = false;
        }
        at = end;
    }
    pieces.push((lines_before, &text[start..]));
    pieces
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Vec<Result<Value, Error>> {
        documents(text).collect()
    }

    #[test]
    fn scalars_are_of_yaml_1_1() {
        for (text, value) in [
            ("yes", json!(true)),
            ("n", json!(false)),
            ("Off", json!(false)),
            ("0x10", json!(16)),
            ("010", json!(8)),
            ("'010'", json!("010")),
            ("1_000", json!(1000)),
            ("1.5", json!(1.5)),
            ("-3", json!(-3)),
            ("~", Value::Null),
            ("2020-01-02", json!("2020-01-02")),
            ("{a: [1, x]}", json!({"a": [1, "x"]})),
        ] {
            assert_eq!(
                read(&format!("v: {text}")),
                [Ok(json!({"v": value}))],
                "{text}"
            );
        }
    }

    #[test]
    fn lines_of_a_quoted_text_may_begin_with_tabs() {
        let all = read("routes: '{\n\t  \"/a\": 1,\n\t\t\"/b\": 2\n\t}'\nx: \"a\\tb\"\n");
        let value = all.into_iter().next().unwrap().unwrap();
        assert_eq!(value["routes"], "{ \"/a\": 1, \"/b\": 2 }");
        assert_eq!(value["x"], "a\tb");
    }

    #[test]
    fn documents_are_split_at_separator_lines() {
        for (text, values) in [
            ("a: 1\n---\na: 2\n", vec![json!({"a": 1}), json!({"a": 2})]),
            (
                "---\na: 1\n--- text\na: 2",
                vec![json!({"a": 1}), json!({"a": 2})],
            ),
            (
                "a: 1\r\n---# c\r\na: 2\r\n",
                vec![json!({"a": 1}), json!({"a": 2})],
            ),
            (
                "a: 1\n---\n---\na: 2",
                vec![json!({"a": 1}), json!({"a": 2})],
            ),
            ("# only a comment\n---\na: 1\n---\n", vec![json!({"a": 1})]),
            ("a: |\n  x\n  ---\n  y\n", vec![json!({"a": "x\n---\ny\n"})]),
            ("", vec![]),
        ] {
            let read: Vec<_> = documents(text).map(|document| document.unwrap()).collect();
            assert_eq!(read, values, "{text:?}");
        }
    }

    #[test]
    fn a_bad_document_leaves_the_others() {
        let read = read("a: 1\n---\nb: [\n---\nc: 3\n");
        assert_eq!(read.len(), 3);
        assert_eq!(read[0], Ok(json!({"a": 1})));
        assert_eq!(read[2], Ok(json!({"c": 3})));
        let error = read[1].clone().unwrap_err();
        assert_eq!(error.document, 2);
        assert!((3..=4).contains(&error.line), "{error}");
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        assert_eq!(read("a: 1\na: 2"), [Ok(json!({"a": 2}))]);
    }

    #[test]
    fn long_documents_are_read() {
        let text = format!("a: {}\n---\nb: 1", "x".repeat(1 << 20));
        assert_eq!(read(&text).len(), 2);
    }
}
