//! Connection strings of PostgreSQL, keywords with values or a URI:
//! <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>.

use outrider_components::Error;
use percent_encoding::percent_decode_str;

/// Keywords with their values, in their order.
pub type Keywords = Vec<(String, String)>;

/// Reads a connection string of either form.
pub fn parse(text: &str) -> Result<Keywords, Error> {
    for scheme in ["postgres://", "postgresql://"] {
        if let Some(rest) = text.strip_prefix(scheme) {
            return uri(rest);
        }
    }
    pairs(text)
}

fn wrong(what: &str) -> Error {
    Error::invalid(format!("failed to parse connection string: {what}"))
}

/// `name=value` with white space in between; values may have single quotes,
/// and a backslash escapes.
fn pairs(text: &str) -> Result<Keywords, Error> {
    let mut keywords = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest
            .split_once('=')
            .ok_or_else(|| wrong("invalid keyword/value"))?;
        let after = after.trim_start();
        let (value, left) = value(after)?;
        keywords.push((name.trim().to_owned(), value));
        rest = left.trim_start();
    }
    Ok(keywords)
}

/// The value that `text` starts with, and what is after it.
fn value(text: &str) -> Result<(String, &str), Error> {
    let (is_quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, escaped)) => value.push(escaped),
                None => return Err(wrong("invalid backslash")),
            },
            '\'' if is_quoted => return Ok((value, &body[at + 1..])),
            other if !is_quoted && other.is_whitespace() => return Ok((value, &body[at..])),
            other => value.push(other),
        }
    }
    if is_quoted {
        return Err(wrong(
            "unterminated quoted string in connection info string",
        ));
    }
    Ok((value, ""))
}

/// `user:password@host:port/database?name=value`.
fn uri(rest: &str) -> Result<Keywords, Error> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    // An IPv6 address has colons of its own, in brackets.
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (host, ""),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let mut keywords = Vec::new();
    for (name, text) in [
        ("user", user),
        ("password", password),
        ("host", host),
        ("port", port),
        ("dbname", database),
    ] {
        if !text.is_empty() {
            let text = percent_decode_str(text)
                .decode_utf8()
                .map_err(|_| wrong("it is not UTF-8"))?;
            keywords.push((name.to_owned(), text.into_owned()));
        }
    }
    let query = form_urlencoded::parse(query.as_bytes());
    keywords.extend(query.map(|(name, value)| (name.into_owned(), value.into_owned())));
    Ok(keywords)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let keywords = parse(text).expect(text);
        keywords.iter().map(|(k, v)| format!("{k}={v}")).collect()
    }

    #[test]
    fn both_forms_say_the_same() {
        let wanted = ["user=me", "password=a b'c", "host=h", "port=5", "dbname=d"];
        assert_eq!(read("postgres://me:a%20b'c@h:5/d"), wanted);
        assert_eq!(
            read(r"user=me password='a b\'c' host = h  port=5 dbname=d"),
            wanted
        );
        assert_eq!(
            read("postgresql://[::1]:5/?sslmode=disable"),
            ["host=::1", "port=5", "sslmode=disable"]
        );
        assert!(read("").is_empty());
    }

    #[test]
    fn a_string_that_cannot_be_read_is_an_error_without_its_text() {
        for text in ["secret", "password='secret", r"password=secret\"] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with("failed to parse connection string: "));
            assert!(!error.contains("secret"));
        }
    }
}
