//! Environment variables in the text of a file.

use std::collections::HashMap;

/// `text` with `$NAME` and `${NAME}` replaced by the variable's value; a
/// variable that is not set is empty. A dollar before anything else stays, and
/// a brace that is never closed is dropped with its dollar.
/// <https://pkg.go.dev/os#ExpandEnv>
pub fn expand(text: &str, environment: &HashMap<String, String>) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, tail) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or(("", braced)),
            None => after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len())),
        };
        if name.is_empty() && !after.starts_with('{') {
            expanded.push('$');
        }
        expanded.push_str(environment.get(name).map_or("", String::as_str));
        rest = tail;
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_with_and_without_braces_become_values() {
        let environment = HashMap::from([("A_1".to_owned(), "x".to_owned())]);
        for (text, expanded) in [
            ("a ${A_1}b", "a xb"),
            ("$A_1-$NONE.", "x-."),
            ("${NONE}", ""),
            ("100$", "100$"),
            ("$ 5", "$ 5"),
            ("${A_1", "A_1"),
            ("$A_1$A_1", "xx"),
        ] {
            assert_eq!(expand(text, &environment), expanded, "{text}");
        }
    }

    #[test]
    fn values_are_not_expanded_again() {
        let environment = HashMap::from([("A".to_owned(), "$A ${A}".to_owned())]);
        assert_eq!(expand("$A", &environment), "$A ${A}");
    }

    proptest! {
        #[test]
        fn prop_text_without_dollars_stays(text in "[^$]{0,60}", wild in ".{0,60}") {
            prop_assert_eq!(expand(&text, &HashMap::new()), text);
            let _ = expand(&wild, &HashMap::new());
        }
    }
}
