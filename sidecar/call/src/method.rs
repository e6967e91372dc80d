//! The method of a call: what it is judged by, and how it is sent.

use outrider_security::acl;
use tonic::Status;

/// A method as the path of a URL. Escapes that the client had escaped once
/// more become escapes; a percent sign that begins none is refused.
pub fn escape(method: &str) -> Result<String, Status> {
    let mut path = String::with_capacity(method.len() + 8);
    let bytes = method.as_bytes();
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'%' => {
                let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
                if !hex(index + 1) || !hex(index + 2) {
                    let rest: String = method[index..].chars().take(3).collect();
                    return Err(Status::internal(format!(
                        "invalid URL escape {}",
                        outrider_kit::quote::go(&rest)
                    )));
                }
                path.push('%');
            }
            b if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]".contains(b) => {
                path.push(char::from(*b))
            }
            b => path.push_str(&format!("%{b:02X}")),
        }
    }
    Ok(path)
}

/// A method in the form in which it is judged and passed on.
pub fn normal(text: String) -> Result<String, Status> {
    let normal = acl::normalise(&text).map_err(|why| invalid(&why))?;
    let bare = normal.trim_start_matches('/');
    // Nothing is ever added.
    let changed = (bare.len() != text.len()).then(|| bare.to_owned());
    Ok(changed.unwrap_or(text))
}

/// The path of a proxied call, which is judged and passed on as it is. One
/// with a second spelling is refused: some servers would resolve what was not
/// judged.
pub fn proxied(path: &str) -> Result<&str, Status> {
    let normal = acl::normalise(path).map_err(|why| invalid(&why))?;
    if normal != path {
        let why = format!("{path} has to be {normal}");
        return Err(invalid(&why));
    }
    Ok(path)
}

/// A method that cannot be judged.
fn invalid(why: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!("invalid method: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods() {
        let judged = |text: &str| normal(text.to_owned()).map_err(|e| e.message().to_owned());
        assert_eq!(judged("/a/../b"), Ok("b".to_owned()));
        assert_eq!(judged("a%20b"), Ok("a%20b".to_owned()));
        let refused = judged("a%2Fb").unwrap_err();
        assert!(refused.starts_with("invalid method: "), "{refused}");
        assert!(proxied("/pkg.Service/Do").is_ok());
        for path in [
            "/pkg.Service//Do",
            "/pkg.Service/a/../Do",
            "/pkg.Service%2FDo",
        ] {
            assert!(proxied(path).is_err(), "{path}");
        }
    }

    #[test]
    fn escaping() {
        assert_eq!(escape("a b/c+d").unwrap(), "a%20b/c+d");
        assert_eq!(escape("a%41b").unwrap(), "a%41b");
        assert_eq!(escape("x\"*\\\u{e9}").unwrap(), "x%22*%5C%C3%A9");
        assert_eq!(
            escape("50%").unwrap_err().message(),
            "invalid URL escape \"%\""
        );
        assert_eq!(
            escape("50%zz").unwrap_err().message(),
            "invalid URL escape \"%zz\""
        );
    }
}
