//! Where a text stops being JSON, in the words of Go's decoder.
//! <https://pkg.go.dev/encoding/json#SyntaxError>, <https://www.rfc-editor.org/rfc/rfc8259>

use std::fmt;

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is nothing but white space.
    Empty,
    /// It ends too early.
    End,
    /// A byte that cannot stand where it stands.
    Byte(u8, Place),
}

/// Where a byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Value,
    Key,
    AfterKey,
    AfterPair,
    AfterItem,
    String,
    Escape,
    Hexadecimal,
    Number,
    Fraction,
    Exponent,
    /// A word, and which of its letters was expected.
    Word(&'static str, u8),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("EOF"),
            Self::End => f.write_str("unexpected EOF"),
            Self::Byte(byte, place) => {
                write!(f, "invalid character {} {place}", quoted(*byte))
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "looking for beginning of value",
            Self::Key => "looking for beginning of object key string",
            Self::AfterKey => "after object key",
            Self::AfterPair => "after object key:value pair",
            Self::AfterItem => "after array element",
            Self::String => "in string literal",
            Self::Escape => "in string escape code",
            Self::Hexadecimal => "in \\u hexadecimal character escape",
            Self::Number => "in numeric literal",
            Self::Fraction => "after decimal point in numeric literal",
            Self::Exponent => "in exponent of numeric literal",
            Self::Word(word, expected) => {
                let expected = quoted(*expected);
                return write!(f, "in literal {word} (expecting {expected})");
            }
        })
    }
}

/// A byte as Go quotes the character with its number.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        0x07 => "'\\a'".to_owned(),
        0x08 => "'\\b'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        0x0b => "'\\v'".to_owned(),
        0x0c => "'\\f'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

/// The end of the first value of a text. What follows it is not looked at.
pub fn first_value(text: &[u8]) -> Result<usize, Fault> {
    let mut scanner = Scanner { text, at: 0 };
    // What is open, by its first byte.
    let mut open = Vec::new();
    let mut expected = Expected::Value;
    loop {
        scanner.skip_space();
        let Some(byte) = scanner.peek() else {
            let is_empty = open.is_empty() && text.iter().all(is_space);
            return Err(if is_empty { Fault::Empty } else { Fault::End });
        };
        let wrong = |place| Err(Fault::Byte(byte, place));
        expected = match (expected, byte) {
            (Expected::ItemOrEnd, b']') | (Expected::KeyOrEnd, b'}') => {
                scanner.at += 1;
                open.pop();
                Expected::Next
            }
            (Expected::Value | Expected::ItemOrEnd, b'{') => {
                scanner.at += 1;
                open.push(byte);
                Expected::KeyOrEnd
            }
            (Expected::Value | Expected::ItemOrEnd, b'[') => {
                scanner.at += 1;
                open.push(byte);
                Expected::ItemOrEnd
            }
            (Expected::Value | Expected::ItemOrEnd, _) => {
                scanner.scalar(byte)?;
                Expected::Next
            }
            (Expected::Key | Expected::KeyOrEnd, b'"') => {
                scanner.string()?;
                Expected::Colon
            }
            (Expected::Key | Expected::KeyOrEnd, _) => return wrong(Place::Key),
            (Expected::Colon, b':') => {
                scanner.at += 1;
                Expected::Value
            }
            (Expected::Colon, _) => return wrong(Place::AfterKey),
            (Expected::Next, _) => match (open.last(), byte) {
                (Some(b'{'), b',') => {
                    scanner.at += 1;
                    Expected::Key
                }
                (Some(b'['), b',') => {
                    scanner.at += 1;
                    Expected::Value
                }
                (Some(b'{'), b'}') | (Some(b'['), b']') => {
                    scanner.at += 1;
                    open.pop();
                    Expected::Next
                }
                (Some(b'{'), _) => return wrong(Place::AfterPair),
                _ => return wrong(Place::AfterItem),
            },
        };
        if open.is_empty() && matches!(expected, Expected::Next) {
            return Ok(scanner.at);
        }
    }
}

#[derive(Clone, Copy)]
enum Expected {
    Value,
    ItemOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    /// A comma, or the end of what is open.
    Next,
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, Fault> {
        let byte = self.peek().ok_or(Fault::End)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip_space(&mut self) {
        while self.peek().as_ref().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn scalar(&mut self, first: u8) -> Result<(), Fault> {
        match first {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => Err(Fault::Byte(first, Place::Value)),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), Fault> {
        for expected in word.bytes() {
            let byte = self.next()?;
            if byte != expected {
                return Err(Fault::Byte(byte, Place::Word(word, expected)));
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                byte @ 0..0x20 => return Err(Fault::Byte(byte, Place::String)),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                for _ in 0..4 {
                    let byte = self.next()?;
                    if !byte.is_ascii_hexdigit() {
                        return Err(Fault::Byte(byte, Place::Hexadecimal));
                    }
                }
                Ok(())
            }
            byte => Err(Fault::Byte(byte, Place::Escape)),
        }
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            byte => return Err(Fault::Byte(byte, Place::Number)),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits(Place::Fraction)?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits(Place::Exponent)?;
        }
        Ok(())
    }

    /// At least one.
    fn digits(&mut self, place: Place) -> Result<(), Fault> {
        let byte = self.next()?;
        if !byte.is_ascii_digit() {
            return Err(Fault::Byte(byte, place));
        }
        self.skip_digits();
        Ok(())
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_words_of_each_fault() {
        let says = |text: &str| first_value(text.as_bytes()).unwrap_err().to_string();
        for text in ["", " \n"] {
            assert_eq!(says(text), "EOF");
        }
        for text in [
            "{", "[1,", "{\"a\"", "{\"a\":", "tru", "-", "1.", "1e+", "\"a", "\"\\u12",
        ] {
            assert_eq!(says(text), "unexpected EOF", "{text}");
        }
        for (text, fault) in [
            ("hello", "'h' looking for beginning of value"),
            ("+1", "'+' looking for beginning of value"),
            ("[1,]", "']' looking for beginning of value"),
            ("{\"a\":}", "'}' looking for beginning of value"),
            ("é", "'Ã' looking for beginning of value"),
            ("\u{0}", "'\\x00' looking for beginning of value"),
            ("'", "'\\'' looking for beginning of value"),
            ("{not", "'n' looking for beginning of object key string"),
            (
                "{\"a\":1,}",
                "'}' looking for beginning of object key string",
            ),
            ("{\"a\" 1}", "'1' after object key"),
            ("{\"a\":1 \"b\"}", "'\"' after object key:value pair"),
            ("[1 2]", "'2' after array element"),
            ("\"a\nb\"", "'\\n' in string literal"),
            ("\"\\x\"", "'x' in string escape code"),
            ("\"\\u12\"", "'\"' in \\u hexadecimal character escape"),
            ("-a", "'a' in numeric literal"),
            ("1.x", "'x' after decimal point in numeric literal"),
            ("1ex", "'x' in exponent of numeric literal"),
            ("nope", "'o' in literal null (expecting 'u')"),
        ] {
            assert_eq!(says(text), format!("invalid character {fault}"), "{text}");
        }
    }

    #[test]
    fn the_first_value_ends_where_it_ends() {
        for (text, end) in [("01", 1), (" [] x", 3), ("{\"a\":[{}]}{", 10), ("1 2", 1)] {
            assert_eq!(first_value(text.as_bytes()), Ok(end), "{text}");
        }
        let deep = "[".repeat(1_000_000);
        assert_eq!(first_value(deep.as_bytes()), Err(Fault::End));
    }

    proptest! {
        /// What one takes for JSON the other does.
        #[test]
        fn prop_agrees_with_the_decoder(text in r#"[\[\]{},:" 01.eE+\-truefalsn\\ux]{0,20}"#) {
            let mut values = serde_json::Deserializer::from_str(&text)
                .into_iter::<&serde_json::value::RawValue>();
            let value = values.next();
            let is_json = matches!(value, Some(Ok(_)));
            // That decoder wants white space behind a number or a word.
            match first_value(text.as_bytes()) {
                Ok(end) => prop_assert!(is_json || end < text.len(), "{}", text),
                Err(_) => prop_assert!(!is_json, "{}", text),
            }
        }

        #[test]
        fn prop_never_panics(text in proptest::collection::vec(any::<u8>(), 0..50)) {
            let _ = first_value(&text).map_err(|fault| fault.to_string());
        }
    }
}
