//! What a key is stored under.
//! <https://docs.dapr.io/developing-applications/building-blocks/state-management/howto-share-state/>

const SEPARATOR: &str = "||";

/// A store's strategy, already applied to this application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Option<String>);

impl Prefix {
    /// `strategy` is the component's `keyPrefix`; without one it is by app id.
    /// An empty one is a prefix like any other text, so that keys which are
    /// stored that way are found.
    pub fn new(
        strategy: Option<&str>,
        app_id: &str,
        namespace: &str,
        store: &str,
    ) -> Result<Self, String> {
        let strategy = strategy.unwrap_or("appid").to_lowercase();
        if strategy.contains(SEPARATOR) {
            return Err(format!(
                "input key/keyPrefix '{strategy}' can't contain '{SEPARATOR}'"
            ));
        }
        let text = match strategy.as_str() {
            "appid" => app_id.to_owned(),
            "name" => store.to_owned(),
            "namespace" if namespace.is_empty() => app_id.to_owned(),
            "namespace" => format!("{namespace}.{app_id}"),
            "none" => return Ok(Self(None)),
            literal => literal.to_owned(),
        };
        Ok(Self(Some(text)))
    }

    /// The stored form of a client's key, if it can have one.
    pub fn apply(&self, key: &str) -> Option<String> {
        if key.contains(SEPARATOR) {
            return None;
        }
        Some(match &self.0 {
            Some(prefix) => [prefix, SEPARATOR, key].concat(),
            None => key.to_owned(),
        })
    }

    /// The client's form of a stored key.
    pub fn strip<'a>(&self, key: &'a str) -> &'a str {
        key.split_once(SEPARATOR).map_or(key, |(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies() {
        let stored = |strategy, namespace| {
            Prefix::new(strategy, "app", namespace, "Store")
                .unwrap()
                .apply("k")
                .unwrap()
        };
        assert_eq!(stored(None, "ns"), "app||k");
        assert_eq!(stored(Some("AppId"), "ns"), "app||k");
        assert_eq!(stored(Some("name"), "ns"), "Store||k");
        assert_eq!(stored(Some("namespace"), "ns"), "ns.app||k");
        assert_eq!(stored(Some("namespace"), ""), "app||k");
        assert_eq!(stored(Some("none"), ""), "k");
        assert_eq!(stored(Some("Shared"), ""), "shared||k");
        assert_eq!(stored(Some(""), ""), "||k");
        let prefix = Prefix::new(None, "a", "", "s").unwrap();
        assert!(prefix.apply("x||y").is_none());
        assert_eq!((prefix.strip("a||k"), prefix.strip("||k")), ("k", "k"));
        assert!(Prefix::new(Some("a||b"), "a", "", "s").is_err());
    }
}
