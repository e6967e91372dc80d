//! Names of Kubernetes objects, and the paths of its API that are made of
//! them. <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The longest name of an object (RFC 1123 subdomain). Namespaces have to be
/// shorter, but how long is left to the API server.
const LONGEST: usize = 253;
/// How much of a wrong name is shown.
const SHOWN: usize = 64;
/// What stays as it is in a segment of a path: the unreserved characters of
/// RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A text that cannot be the name of anything in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Namespaces are labels.
    #[error(
        "{0:?} cannot be a namespace: use at most 63 lower case letters, digits and '-', with a letter or digit at both ends"
    )]
    Namespace(String),
    /// Other objects have dots, too.
    #[error(
        "{0:?} cannot be the name of an object: use at most {LONGEST} lower case letters, digits, '-' and '.', with a letter or digit at both ends of each part"
    )]
    Object(String),
}

/// Whether a namespace can have this name.
pub fn check_namespace(text: &str) -> Result<(), InvalidName> {
    match text.len() <= LONGEST && is_label(text) {
        true => Ok(()),
        false => Err(InvalidName::Namespace(shown(text))),
    }
}

/// Whether an object such as a secret or a pod can have this name.
pub fn check_name(text: &str) -> Result<(), InvalidName> {
    match text.len() <= LONGEST && text.split('.').all(is_label) {
        true => Ok(()),
        false => Err(InvalidName::Object(shown(text))),
    }
}

/// The path of an object, or of a collection if no name is given. `version` is
/// `/api/v1` or `/apis/<group>/<version>`.
pub fn path(
    version: &str,
    plural: &str,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Result<String, InvalidName> {
    let mut path = version.to_owned();
    if let Some(namespace) = namespace {
        check_namespace(namespace)?;
        path.push_str("/namespaces");
        push(&mut path, namespace);
    }
    push(&mut path, plural);
    if let Some(name) = name {
        check_name(name)?;
        push(&mut path, name);
    }
    Ok(path)
}

/// What the names of Services end with in this cluster (`cluster.local`), by the
/// text of a pod's `/etc/resolv.conf`: of the last `search` line, the first
/// domain in alphabetical order that follows `svc.`.
pub fn cluster_domain(resolver: &str) -> Option<String> {
    let search = resolver.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("search")).then_some(words)
    })?;
    let domains = search.filter_map(|domain| domain.strip_prefix("svc."));
    domains
        .map(|domain| domain.trim_end_matches('.').to_owned())
        .min()
}

/// Encoded, so that even an unchecked text stays one segment.
fn push(path: &mut String, segment: &str) {
    path.push('/');
    path.extend(utf8_percent_encode(segment, SEGMENT));
}

fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain) && text.ends_with(plain) && text.chars().all(|c| plain(c) || c == '-')
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_cluster_domain_is_what_pods_search_for_services() {
        let pod = "search sys.svc.corp.local svc.corp.local. corp.local\nnameserver 10.0.0.10\n";
        assert_eq!(cluster_domain(pod), Some("corp.local".into()));
        let two = "search svc.z.local\nsearch svc.b.local svc.a.local\n";
        assert_eq!(cluster_domain(two), Some("a.local".into()));
        for none in [
            "nameserver 1.1.1.1\n",
            "search corp.local",
            "searching svc.x",
        ] {
            assert_eq!(cluster_domain(none), None, "{none}");
        }
    }

    #[test]
    fn names_are_labels_with_or_without_dots() {
        for name in ["a", "db-pass", "my.dotted.name", "0", &"a".repeat(253)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let wrong = [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a?b",
            "a#b",
            "a%2Fb",
            "a%3F",
            "é",
            "A",
            "a_b",
            "-a",
            "a-",
            ".a",
            "a.",
            "a..b",
            "a b",
            "a\n",
            "a\\b",
            &"a".repeat(254),
        ];
        for name in wrong {
            assert!(check_name(name).is_err(), "{name:?}");
            assert!(check_namespace(name).is_err(), "{name:?}");
        }
        assert!(check_namespace("a.b").is_err());
        assert_eq!(check_namespace("dapr-system"), Ok(()));
        let long = check_name(&"A".repeat(1 << 20)).unwrap_err().to_string();
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn a_path_is_made_of_checked_names() {
        let secrets = |namespace, name| path("/api/v1", "secrets", namespace, name);
        assert_eq!(secrets(None, None), Ok("/api/v1/secrets".into()));
        assert_eq!(
            secrets(Some("prod"), Some("db-pass")),
            Ok("/api/v1/namespaces/prod/secrets/db-pass".into())
        );
        assert_eq!(
            secrets(Some("prod/secrets/db-pass?"), Some("x")),
            Err(InvalidName::Namespace("prod/secrets/db-pass?".into()))
        );
        assert_eq!(
            secrets(Some("prod"), Some("db-pass?x")),
            Err(InvalidName::Object("db-pass?x".into()))
        );
    }

    proptest! {
        #[test]
        fn prop_a_segment_is_never_left(text in ".{0,40}") {
            let mut path = String::new();
            push(&mut path, &text);
            prop_assert!(!path[1..].contains(['/', '?', '#', '\\', ' ']));
            prop_assert!(path.is_ascii());
        }
    }
}
