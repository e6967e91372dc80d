//! PEM: <https://www.rfc-editor.org/rfc/rfc7468>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// The first block of a text: its label and what is in it. Lines before it are
/// not looked at.
pub fn first(text: &str) -> Option<(&str, Zeroizing<Vec<u8>>)> {
    let (_, after) = text.split_once(BEGIN)?;
    let (label, after) = after.split_once(DASHES)?;
    let (body, _) = after.split_once(&format!("-----END {label}-----"))?;
    let base64: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    let der = STANDARD.decode(base64.as_bytes()).ok()?;
    Some((label, Zeroizing::new(der)))
}

/// A block of this label.
pub fn write(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = format!("{BEGIN}{label}{DASHES}\n");
    for line in base64.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for size in [0, 1, 47, 48, 49, 1_000] {
            let der: Vec<u8> = (0..size).map(|n| n as u8).collect();
            let text = format!("a comment\n{}rest", write("PUBLIC KEY", &der));
            let (label, read) = first(&text).expect("is a block");
            assert_eq!((label, &read[..]), ("PUBLIC KEY", &der[..]));
        }
    }

    #[test]
    fn what_is_no_block_is_none() {
        for text in [
            "",
            "-----BEGIN ",
            "-----BEGIN A-----\nAA==\n-----END B-----",
            "-----BEGIN A-----\n!\n-----END A-----",
        ] {
            assert!(first(text).is_none(), "{text}");
        }
    }
}
