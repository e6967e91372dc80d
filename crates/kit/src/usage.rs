//! What is said of a command line that cannot be read: one line with the
//! reason, the flag that was probably meant, and where all are listed.
//!
//! Needs nothing but the standard library: `xtask` compiles this file too.

/// `--ap-id` is unknown; `known` are the flags that there are, with or without
/// their dashes. `help` is the command that lists them.
pub fn unknown_flag<'a>(
    flag: &str,
    known: impl IntoIterator<Item = &'a str>,
    help: &str,
) -> String {
    let known = known.into_iter().map(|name| name.trim_start_matches('-'));
    let meant = nearest(flag.trim_start_matches('-'), known).map(|name| format!("--{name}"));
    line(&format!("unknown flag: {flag}"), meant.as_deref(), help)
}

/// The same for a command such as `up` in `cluster up`.
pub fn unknown_command<'a>(
    command: &str,
    known: impl IntoIterator<Item = &'a str>,
    help: &str,
) -> String {
    let meant = nearest(command, known);
    line(&format!("unknown command: {command}"), meant, help)
}

/// `reason` as one line, followed by what was probably meant and by `help`.
pub fn line(reason: &str, meant: Option<&str>, help: &str) -> String {
    let line = match meant {
        Some(meant) => format!("{reason}; did you mean {meant}? See {help}"),
        None => format!("{reason}; see {help}"),
    };
    // What was given may hold anything, and the line goes to a terminal.
    let line = line.replace(['\n', '\r'], " ");
    let mut shown = String::with_capacity(line.len());
    for c in line.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_debug()),
            false => shown.push(c),
        }
    }
    shown
}

/// The word of `known` that takes the fewest edits to become `word`, unless
/// these are more than one for every three characters.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count() / 3;
    known
        .into_iter()
        .map(|name| (distance(word, name), name))
        .filter(|(edits, _)| (1..=limit).contains(edits))
        .min()
        .map(|(_, name)| name)
}

/// How many characters have to be put in, left out, replaced or swapped with
/// their neighbour to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Rows of the table of edits: between beginnings of `a` and of `b`.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut edits = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                edits = edits.min(before[j - 1] + 1);
            }
            row.push(edits);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_each_kind_of_edit_once() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "ab", 2),
            ("port", "port", 0),
            ("prot", "port", 1),
            ("app-id", "ap-id", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn only_a_near_flag_is_offered() {
        let known = ["--app-id", "--app-port", "--help", "-h"];
        assert_eq!(
            unknown_flag("--ap-id", known, "daprd --help"),
            "unknown flag: --ap-id; did you mean --app-id? See daprd --help"
        );
        for far in ["--x", "--completely-different", "--i"] {
            assert_eq!(
                unknown_flag(far, known, "daprd --help"),
                format!("unknown flag: {far}; see daprd --help")
            );
        }
    }

    #[test]
    fn the_nearest_of_several_is_offered() {
        let known = ["app-port", "app-protocol", "app-post"];
        assert_eq!(nearest("app-prot", known), Some("app-port"));
        assert_eq!(
            unknown_command("stauts", ["up", "status"], "cluster --help"),
            "unknown command: stauts; did you mean status? See cluster --help"
        );
    }

    #[test]
    fn a_flag_with_something_behind_it_is_shown_whole_and_not_offered_again() {
        assert_eq!(
            unknown_flag("--app-id x\u{1b}[0m", ["app-id"], "daprd --help"),
            "unknown flag: --app-id x\\u{1b}[0m; see daprd --help"
        );
        assert_eq!(nearest("app-id", ["app-id"]), None);
    }

    #[test]
    fn a_reason_of_many_lines_becomes_one() {
        assert_eq!(line("a\nb\r\nc", None, "x --help"), "a b  c; see x --help");
    }
}
