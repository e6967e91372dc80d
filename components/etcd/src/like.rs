//! SQL's `LIKE`, with a backslash that escapes.

/// Whether `text` matches `pattern`: `%` is any text, `_` one character.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern = parse(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut read) = (0, 0);
    // Where to go on after the last `%`, if what follows does not match.
    let mut again = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(Part::Any) => {
                again = Some((at + 1, read));
                at += 1;
                continue;
            }
            Some(Part::One) => {
                (at, read) = (at + 1, read + 1);
                continue;
            }
            Some(Part::Exactly(wanted)) if *wanted == text[read] => {
                (at, read) = (at + 1, read + 1);
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = again else {
            return false;
        };
        again = Some((after, from + 1));
        (at, read) = (after, from + 1);
    }
    pattern[at..].iter().all(|part| *part == Part::Any)
}

/// What every text that matches starts with.
pub fn prefix(pattern: &str) -> String {
    let parts = parse(pattern).into_iter();
    parts
        .map_while(|part| match part {
            Part::Exactly(character) => Some(character),
            Part::Any | Part::One => None,
        })
        .collect()
}

#[derive(PartialEq)]
enum Part {
    Any,
    One,
    Exactly(char),
}

fn parse(pattern: &str) -> Vec<Part> {
    let mut characters = pattern.chars();
    let mut parts = Vec::new();
    while let Some(character) = characters.next() {
        parts.push(match character {
            '%' => Part::Any,
            '_' => Part::One,
            '\\' => Part::Exactly(characters.next().unwrap_or('\\')),
            other => Part::Exactly(other),
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text) in [
            ("a%c", "abbc"),
            ("%||m", "x||y||m"),
            ("a_c", "aüc"),
            (r"a\%", "a%"),
            ("%", ""),
            ("a%%", "a"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a", "ab"),
            ("a_", "a"),
            (r"a\%", "ab"),
            ("%b", "ba"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert_eq!(prefix(r"ab\%c%d"), "ab%c");
    }
}
