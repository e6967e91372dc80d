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
            // Lines of a quoted text may begin anywhere, which our parser takes for an indentation.
            if read.is_err()
                && let Some(indented) = with_indented_quotes(document)
                && let Ok(value) = serde_saphyr::from_str_with_options(&indented, dialect())
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

/// Blanks that a line of a quoted text begins with at most.
const DEEPEST: usize = 200;

/// A document whose quoted texts are indented as deep as they begin, which changes nothing of what they say. None if
/// each is on one line.
fn with_indented_quotes(document: &str) -> Option<String> {
    let mut out = String::with_capacity(document.len());
    // The quotation mark of the text that a line begins in, and where that begins.
    let mut open: Option<(char, usize)> = None;
    // The indentation of the key of a block of text, which has no quotation marks of YAML.
    let mut block: Option<usize> = None;
    let mut changed = false;
    for line in document.split_inclusive('\n') {
        let content = line.trim_start_matches([' ', '\t']);
        let indentation = line.len() - content.len();
        let is_blank = content.trim_end().is_empty();
        if block.is_some_and(|of| is_blank || indentation > of) {
            out.push_str(line);
            continue;
        }
        block = None;
        let rest = match open {
            Some((quote, depth)) => {
                changed = true;
                if !is_blank {
                    out.push_str(&" ".repeat(depth));
                }
                out.push_str(content);
                match after_quote(content, quote) {
                    Some(rest) => rest,
                    None => continue,
                }
            }
            None => {
                out.push_str(line);
                line
            }
        };
        open = quote_left_open(rest)
            .map(|(quote, at)| (quote, (line.len() - rest.len() + at + 1).min(DEEPEST)));
        let words = rest.trim_end();
        let start = words.trim_end_matches(|c: char| c.is_ascii_digit() || "+-".contains(c));
        if open.is_none()
            && [": |", ": >", "- |", "- >"]
                .iter()
                .any(|end| start.ends_with(end))
        {
            block = Some(indentation);
        }
    }
    changed.then_some(out)
}

/// What follows the end of a quoted text.
fn after_quote(text: &str, quote: char) -> Option<&str> {
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' if quote == '"' => {
                characters.next();
            }
            '\'' if quote == '\'' && characters.peek().is_some_and(|(_, next)| *next == '\'') => {
                characters.next();
            }
            character if character == quote => return Some(&text[at + 1..]),
            _ => {}
        }
    }
    None
}

/// The quotation mark of a text that begins in this line and does not end in it, and where it begins.
fn quote_left_open(line: &str) -> Option<(char, usize)> {
    let mut at = 0;
    let mut before = ' ';
    // A mark within a word is one of its letters.
    let mut is_start = true;
    while let Some(character) = line[at..].chars().next() {
        let next = at + character.len_utf8();
        match character {
            '#' if before.is_whitespace() => return None,
            '\'' | '"' if is_start => match after_quote(&line[next..], character) {
                Some(rest) => {
                    at = line.len() - rest.len();
                    (before, is_start) = (character, false);
                    continue;
                }
                None => return Some((character, at)),
            },
            '[' | '{' | ',' => is_start = true,
            character if character.is_whitespace() => {
                is_start |= matches!(before, ':' | '-' | '?');
            }
            _ => is_start = false,
        }
        (before, at) = (character, next);
    }
    None
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
    fn lines_of_a_quoted_text_may_begin_anywhere() {
        for (text, value) in [
            ("a:\n  - v: '{\n\"x\": 1\n}'\n    w: 2", "{ \"x\": 1 }"),
            (
                "a:\n  - v: \"{\n  \\\"x\\\": 1\n}\"\n    w: 2",
                "{ \"x\": 1 }",
            ),
            ("a:\n  - v: 'it''s\n\n\tone'\n    w: 2", "it's\none"),
            ("a: [{v: 'x\ny', w: 2}]", "x y"),
        ] {
            assert_eq!(
                read(text),
                [Ok(json!({"a": [{"v": value, "w": 2}]}))],
                "{text}"
            );
        }
        // What is not quoted stays as it is.
        let text =
            "a: it's 'so'\nb: |\n  v: 'x\n    y\nc: 'q\nr' # it's\nd: >-\n  \"\n e\nf: \"\n\"\n";
        assert_eq!(
            with_indented_quotes(text).as_deref(),
            Some(
                "a: it's 'so'\nb: |\n  v: 'x\n    y\nc: 'q\n    r' # it's\nd: >-\n  \"\n e\nf: \"\n    \"\n"
            )
        );
        assert_eq!(with_indented_quotes("a: 'b'\nc: d"), None);
        for text in ["a: 'b\nc: d", "a: \"\\", "a: '\n\n\n", "'", "\"é\n\\é"] {
            let _ = read(text);
        }
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
