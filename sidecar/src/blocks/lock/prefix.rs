//! What a lock is stored under.

const API: &str = "lock";
const SEPARATOR: &str = "||";

/// A store's strategy, already applied to this application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

/// A name with the separator in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input key/keyPrefix '{0}' can't contain '{SEPARATOR}'")]
pub struct Illegal(String);

impl Prefix {
    /// `strategy` is the component's `keyPrefix`; without one it is by app id.
    /// Unlike that of state stores it knows no namespaces.
    pub fn new(strategy: Option<&str>, app_id: &str, store: &str) -> Result<Self, Illegal> {
        let strategy = strategy.unwrap_or("appid").to_lowercase();
        let strategy = legal(&strategy)?;
        let of = match strategy {
            "none" => "",
            "name" => store,
            "appid" => app_id,
            literal => {
                let text = [API, SEPARATOR, literal, SEPARATOR].concat();
                return Ok(Self(text));
            }
        };
        Ok(Self(match of {
            "" => [API, SEPARATOR].concat(),
            of => [API, SEPARATOR, of, SEPARATOR].concat(),
        }))
    }

    /// The stored form of a client's name for a resource.
    pub fn apply(&self, resource: &str) -> Result<String, Illegal> {
        Ok([&self.0, legal(resource)?].concat())
    }
}

fn legal(text: &str) -> Result<&str, Illegal> {
    match text.contains(SEPARATOR) {
        true => Err(Illegal(text.to_owned())),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_a_prefix_by_strategy() {
        for (strategy, stored) in [
            (None, "lock||app||r"),
            (Some("AppId"), "lock||app||r"),
            (Some("name"), "lock||store||r"),
            (Some("none"), "lock||r"),
            (Some("namespace"), "lock||namespace||r"),
            (Some("Shared"), "lock||shared||r"),
            (Some(""), "lock||||r"),
        ] {
            let prefix = Prefix::new(strategy, "app", "store").unwrap();
            assert_eq!(prefix.apply("r").unwrap(), stored, "{strategy:?}");
        }
    }

    #[test]
    fn neither_a_resource_nor_a_prefix_has_the_separator() {
        let prefix = Prefix::new(None, "app", "store").unwrap();
        assert_eq!(
            prefix.apply("a||b").unwrap_err().to_string(),
            "input key/keyPrefix 'a||b' can't contain '||'"
        );
        assert!(Prefix::new(Some("a||b"), "app", "store").is_err());
    }
}
