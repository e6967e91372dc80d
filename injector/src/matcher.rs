//! Who may create pods that get a sidecar.

/// Controllers that make pods from templates; always allowed.
const CONTROLLERS: &str = "kube-system:replicaset-controller,kube-system:replication-controller,\
    kube-system:deployment-controller,kube-system:cronjob-controller,kube-system:job-controller,\
    kube-system:statefulset-controller,kube-system:daemon-set-controller,\
    openshift-operator-lifecycle-manager:olm-operator-serviceaccount,\
    tekton-pipelines:tekton-pipelines-controller,mirrord:mirrord-operator";
const MASTERS: &str = "system:masters";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid pattern {0:?}, must contain exactly one ':' separating namespace and name")]
    Colon(String),
    #[error("namespace and name patterns cannot both be empty")]
    Empty,
    #[error("invalid {half} pattern {pattern:?}: syntax error in pattern")]
    Glob { half: &'static str, pattern: String },
}

/// Patterns `namespace:name` of service accounts.
#[derive(Debug)]
pub struct Matcher(Vec<(String, String)>);

impl Matcher {
    /// The built-in controllers and those of comma-separated lists.
    pub fn new(lists: &[&str]) -> Result<Self, Error> {
        let patterns = lists
            .iter()
            .chain([&CONTROLLERS])
            .flat_map(|list| list.split(','));
        patterns
            .map(str::trim)
            .filter(|pattern| !pattern.is_empty())
            .map(parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// `user` and `groups` as the API server authenticated them.
    pub fn allows(&self, user: &str, groups: &[String]) -> bool {
        if groups.iter().any(|group| group == MASTERS) {
            return true;
        }
        let account = user
            .strip_prefix("system:serviceaccount:")
            .and_then(|account| account.split_once(':'));
        account.is_some_and(|(namespace, name)| {
            !name.contains(':')
                && self
                    .0
                    .iter()
                    .any(|(a, b)| glob(a, namespace) == Some(true) && glob(b, name) == Some(true))
        })
    }
}

fn parse(pattern: &str) -> Result<(String, String), Error> {
    let (namespace, name) = match pattern.split_once(':') {
        Some((namespace, name)) if !name.contains(':') => (namespace, name),
        _ => return Err(Error::Colon(pattern.to_owned())),
    };
    if namespace.is_empty() && name.is_empty() {
        return Err(Error::Empty);
    }
    for (half, pattern) in [("namespace", namespace), ("name", name)] {
        if glob(pattern, "").is_none() {
            return Err(Error::Glob {
                half,
                pattern: pattern.to_owned(),
            });
        }
    }
    Ok((namespace.to_owned(), name.to_owned()))
}

/// Whether the whole text matches: `*` is any run without `/`, `?` one character but `/`, `[a-z]` and `[^a-z]` one of
/// a class, `\` takes the next character as it is. Nothing if the pattern is malformed.
fn glob(pattern: &str, text: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let tokens = tokens(&pattern)?;
    let text: Vec<char> = text.chars().collect();
    // Where a `*` was, and how much of the text it has taken: on a mismatch it takes one more.
    let (mut at, mut position, mut star) = (0, 0, None);
    while position < text.len() {
        let c = text[position];
        match tokens.get(at) {
            Some(Token::Any) => {
                star = Some((at, position));
                at += 1;
            }
            Some(token) if token.takes(c) => {
                at += 1;
                position += 1;
            }
            _ => match star {
                Some((before, taken)) if text[taken] != '/' => {
                    star = Some((before, taken + 1));
                    at = before + 1;
                    position = taken + 1;
                }
                _ => return Some(false),
            },
        }
    }
    Some(tokens[at..].iter().all(|token| matches!(token, Token::Any)))
}

enum Token {
    Any,
    One,
    Literal(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => c != '/',
            Self::Literal(literal) => *literal == c,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (low..=high).contains(&&c)) != *negated
            }
        }
    }
}

fn tokens(pattern: &[char]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let [first, after @ ..] = rest {
        rest = after;
        tokens.push(match first {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => {
                let (literal, after) = rest.split_first()?;
                rest = after;
                Token::Literal(*literal)
            }
            '[' => {
                let negated = rest.first() == Some(&'^');
                rest = &rest[usize::from(negated)..];
                let mut ranges = Vec::new();
                while rest.first()? != &']' || ranges.is_empty() {
                    let low = member(&mut rest)?;
                    let high = match rest {
                        ['-', after @ ..] => {
                            rest = after;
                            member(&mut rest)?
                        }
                        _ => low,
                    };
                    ranges.push((low, high));
                }
                rest = &rest[1..];
                Token::Class { negated, ranges }
            }
            literal => Token::Literal(*literal),
        });
    }
    Some(tokens)
}

/// One end of a range in a class.
fn member(rest: &mut &[char]) -> Option<char> {
    let (first, after) = rest.split_first()?;
    let (taken, after) = match first {
        '-' | ']' => return None,
        '\\' => after.split_first()?,
        first => (first, after),
    };
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &str, account: &str) -> bool {
        Matcher::new(&[list])
            .unwrap()
            .allows(&format!("system:serviceaccount:{account}"), &[])
    }

    #[test]
    fn accounts_match_patterns() {
        for (list, account, expected) in [
            ("custom-ns:custom-sa", "custom-ns:custom-sa", true),
            ("custom-ns:custom-sa", "custom-ns:other", false),
            ("custom-ns:custom-sa", "other:custom-sa", false),
            ("proj-*:sa-*", "proj-alpha:sa-runner", true),
            ("proj-*:sa-*", "other-ns:sa-runner", false),
            ("staging-?:deploy", "staging-A:deploy", true),
            ("staging-?:deploy", "staging-AB:deploy", false),
            ("*:*", "any:one", true),
            ("a[b-d]:x[^y]", "ac:xz", true),
            ("a[b-d]:x[^y]", "ac:xy", false),
            (r"a\*:b", "a*:b", true),
            (r"a\*:b", "ab:b", false),
            ("*-x-*:b", "a-x-b-x-c:b", true),
            (" , one:a , two:b", "two:b", true),
            (":b", "a:b", false),
            ("", "kube-system:deployment-controller", true),
            ("", "kube-system:deployment-controller-extra", false),
            ("*:*", "a:b:c", false),
        ] {
            assert_eq!(allows(list, account), expected, "{list:?} {account}");
        }
    }

    #[test]
    fn only_service_accounts_and_cluster_admins_are_allowed() {
        let matcher = Matcher::new(&["*:*"]).unwrap();
        assert!(!matcher.allows("alice", &[]));
        assert!(matcher.allows("alice", &["x".into(), MASTERS.into()]));
    }

    #[test]
    fn a_malformed_pattern_is_an_error() {
        for (list, error) in [
            (
                "a",
                r#"invalid pattern "a", must contain exactly one ':' separating namespace and name"#,
            ),
            (
                "a:b:c",
                r#"invalid pattern "a:b:c", must contain exactly one ':' separating namespace and name"#,
            ),
            (":", "namespace and name patterns cannot both be empty"),
            (
                "[a:b",
                r#"invalid namespace pattern "[a": syntax error in pattern"#,
            ),
            (
                r"a:b\",
                r#"invalid name pattern "b\\": syntax error in pattern"#,
            ),
            (
                "a:[]",
                r#"invalid name pattern "[]": syntax error in pattern"#,
            ),
        ] {
            assert_eq!(Matcher::new(&[list]).unwrap_err().to_string(), error);
        }
    }
}
