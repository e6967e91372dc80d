/// A case-sensitive SQL `LIKE` pattern: `%` matches any text, `_` any one
/// character, a backslash escapes the next one.
pub struct Pattern(Vec<Token>);

#[derive(PartialEq)]
enum Token {
    Text(char),
    One,
    Any,
}

impl Pattern {
    pub fn new(pattern: &str) -> Pattern {
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '%' => Token::Any,
                '_' => Token::One,
                '\\' => Token::Text(chars.next().unwrap_or('\\')),
                c => Token::Text(c),
            });
        }
        Pattern(tokens)
    }

    /// Takes at most time in proportion to the product of the two lengths.
    pub fn matches(&self, text: &str) -> bool {
        let (mut rest, mut at) = (text.chars(), 0);
        // Where to try again: the token after the last `%`, and the text after
        // what this `%` has matched so far.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            let before = rest.clone();
            match (self.0.get(at), rest.next()) {
                (Some(Token::Any), _) => {
                    at += 1;
                    retry = Some((at, before.clone()));
                    rest = before;
                    continue;
                }
                (None, None) => return true,
                (Some(Token::One), Some(_)) => {
                    at += 1;
                    continue;
                }
                (Some(Token::Text(wanted)), Some(have)) if *wanted == have => {
                    at += 1;
                    continue;
                }
                _ => {}
            }
            let Some((token, unmatched)) = &mut retry else {
                return false;
            };
            if unmatched.next().is_none() {
                return false;
            }
            at = *token;
            rest = unmatched.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_match_the_whole_text_by_case() {
        for (pattern, text, wanted) in [
            ("abc", "abc", true),
            ("abc", "ABC", false),
            ("a%", "a", true),
            ("a%c", "abbc", true),
            ("a%c", "abcd", false),
            ("%b%", "abc", true),
            ("%ab%ab", "abaabab", true),
            ("a_c", "abc", true),
            ("a_c", "ac", false),
            ("_", "ü", true),
            (r"100\%", "100%", true),
            (r"100\%", "1000", false),
            (r"a\", r"a\", true),
            ("", "", true),
            ("", "a", false),
            ("%", "line\nbreak", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(text),
                wanted,
                "{pattern} {text}"
            );
        }
    }
}
