//! Errors as lines of a log.

/// The text of an error with those of its causes, outermost first, each once:
/// many messages end with their cause's.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Caused(&'static str, #[source] Option<Box<Caused>>);

    #[test]
    fn each_cause_is_named_once() {
        let caused = |text, cause| Caused(text, Some(Box::new(cause)));
        let taken = caused("API", Caused("port 1 is taken", None));
        assert_eq!(chain(&taken), "API: port 1 is taken");
        let repeated = caused("x", caused("a: b", Caused("b", None)));
        assert_eq!(chain(&repeated), "x: a: b");
    }
}
