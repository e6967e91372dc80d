//! Operations by path segment, in the order in which they were configured.
//!
//! The search never goes back: at each level the first child that fits is
//! taken. A node that carries a rule covers everything below it, except that
//! `*` stands for exactly the last segment and `**` for one or more.

#[derive(Debug)]
pub struct Tree<T>(Vec<Node<T>>);

#[derive(Debug)]
struct Node<T> {
    segment: String,
    rule: Option<T>,
    children: Vec<Node<T>>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Tree<T> {
    /// Of two equal operations the first one stays.
    pub fn insert(&mut self, operation: &str, rule: T) {
        let (parents, last) = split(operation);
        let mut level = &mut self.0;
        for segment in parents {
            level = &mut child(level, segment).children;
        }
        child(level, last).rule.get_or_insert(rule);
    }

    pub fn find(&self, operation: &str) -> Option<&T> {
        let (parents, last) = split(operation);
        let mut level = &self.0;
        for segment in parents {
            let node = first_fit(level, segment, false)?;
            match &node.rule {
                // Met here only by a request segment that is itself an asterisk.
                Some(rule) if node.segment != "*" => return Some(rule),
                _ => level = &node.children,
            }
        }
        let node = first_fit(level, last, true)?;
        node.rule
            .as_ref()
            .or_else(|| first_fit(&node.children, "*", true)?.rule.as_ref())
    }
}

/// All segments but the last, and the last. A leading slash is not required.
fn split(operation: &str) -> (impl Iterator<Item = &str>, &str) {
    let path = operation.strip_prefix('/').unwrap_or(operation);
    let (parents, last) = match path.rsplit_once('/') {
        Some((parents, last)) => (Some(parents), last),
        None => (None, path),
    };
    (parents.into_iter().flat_map(|p| p.split('/')), last)
}

fn child<'a, T>(level: &'a mut Vec<Node<T>>, segment: &str) -> &'a mut Node<T> {
    let at = level
        .iter()
        .position(|node| node.segment == segment)
        .unwrap_or_else(|| {
            level.push(Node {
                segment: segment.to_owned(),
                rule: None,
                children: Vec::new(),
            });
            level.len() - 1
        });
    &mut level[at]
}

fn first_fit<'a, T>(level: &'a [Node<T>], segment: &str, is_last: bool) -> Option<&'a Node<T>> {
    level.iter().find(|node| {
        node.segment == segment
            || match node.segment.as_str() {
                "*" => is_last,
                "**" => true,
                pattern => matches(pattern.as_bytes(), segment.as_bytes()),
            }
    })
}

/// `*` stands for any run of bytes, also an empty one. Linear but for the last
/// asterisk seen, to which it goes back.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut asterisk = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            asterisk = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, from)) = asterisk {
            asterisk = Some((after, from + 1));
            p = after;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, without care for cost.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            ([b'*', rest @ ..], text) => (0..=text.len()).any(|n| plainly(rest, &text[n..])),
            ([p, rest @ ..], [t, more @ ..]) => p == t && plainly(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn prop_a_pattern_means_what_its_definition_says(
            pattern in "[ab*]{0,8}",
            text in "[ab*]{0,8}",
        ) {
            prop_assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                plainly(pattern.as_bytes(), text.as_bytes())
            );
        }

        #[test]
        fn prop_a_literal_operation_is_found_and_covers_what_is_below(
            operation in "(/[a-c]{1,3}){1,4}",
            below in "(/[a-c]{1,3}){0,3}",
        ) {
            let mut tree = Tree::default();
            tree.insert(&operation, 1);
            prop_assert_eq!(tree.find(&operation), Some(&1));
            let longer = format!("{operation}{below}");
            prop_assert_eq!(tree.find(&longer), Some(&1));
        }

        #[test]
        fn prop_searching_any_text_never_panics(
            operations in prop::collection::vec("[/*a-b]{0,8}", 0..6),
            request in ".{0,20}",
        ) {
            let mut tree = Tree::default();
            for (n, operation) in operations.iter().enumerate() {
                tree.insert(operation, n);
            }
            let found = tree.find(&request).copied();
            prop_assert!(found.is_none_or(|n| n < operations.len()));
        }
    }
}
