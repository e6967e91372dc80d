//! What Dapr's command lines accept beyond ordinary GNU flags.

/// `arguments` (without the program's name) with a single leading dash doubled,
/// so that `-app-id x` means `--app-id x`. Short flags of one letter and
/// everything after `--` stay as they are.
pub fn normalise(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut literal = false;
    arguments
        .into_iter()
        .map(|argument| {
            literal |= argument == "--";
            let single = argument.starts_with('-') && !argument.starts_with("--");
            if !literal && single && argument.len() > 2 {
                format!("-{argument}")
            } else {
                argument
            }
        })
        .collect()
}

/// The entries of a list flag's values: each value is split at commas, with
/// double quotes around an entry that holds one.
pub fn list<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut entries = Vec::new();
    for value in values.into_iter().filter(|v| !v.is_empty()) {
        let mut entry = String::new();
        let mut quoted = false;
        let mut chars = value.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    entry.push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => entries.push(std::mem::take(&mut entry)),
                c => entry.push(c),
            }
        }
        entries.push(entry);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_dash() {
        let given = [
            "-app-id",
            "x",
            "--mode=standalone",
            "-h",
            "-1",
            "-10",
            "--",
            "-raw",
        ];
        assert_eq!(
            normalise(given.map(str::to_owned)),
            [
                "--app-id",
                "x",
                "--mode=standalone",
                "-h",
                "-1",
                "--10",
                "--",
                "-raw"
            ]
        );
    }

    #[test]
    fn lists() {
        assert_eq!(list(["a,b", "c"]), ["a", "b", "c"]);
        assert_eq!(list(["\"a,b\",c"]), ["a,b", "c"]);
        assert_eq!(list(["", "\"\""]), [""]);
    }
}
