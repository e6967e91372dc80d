//! Small languages that flags, manifests and metadata are written in. No I/O.
#![deny(missing_docs)]

pub mod duration;
pub mod flags;
pub mod grpc;
pub mod kubernetes;
pub mod quantity;
pub mod quote;
pub mod usage;

/// Whether a setting's text means "on": `y`, `yes`, `true`, `t`, `on` or `1`
/// in any case, blanks around it ignored.
pub fn truthy(text: &str) -> bool {
    let text = text.trim();
    ["y", "yes", "true", "t", "on", "1"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    #[test]
    fn truthy_words() {
        for word in ["y", "YES", " true ", "T", "on", "1"] {
            assert!(super::truthy(word), "{word}");
        }
        for word in ["", "0", "no", "enabled", "false"] {
            assert!(!super::truthy(word), "{word}");
        }
    }
}
