use std::collections::HashSet;
use std::fmt::Display;

use serde_json::Value;

use crate::Error;

/// The properties of one component, which its file calls metadata. Names are
/// compared without regard to case; values are text.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    component: String,
    properties: Vec<(String, String)>,
    object: Option<Value>,
}

impl Metadata {
    /// The properties of the component called `component`, in file order.
    pub fn new<N, V>(
        component: impl Into<String>,
        properties: impl IntoIterator<Item = (N, V)>,
    ) -> Metadata
    where
        N: Into<String>,
        V: Into<String>,
    {
        Metadata {
            component: component.into(),
            properties: properties
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            object: None,
        }
    }

    /// The members of a JSON object as properties: text, numbers and booleans.
    /// Lists and objects are no values of properties and are left out. Of a name
    /// in several spellings the first counts. Anything but an object has no
    /// properties.
    pub fn from_json(component: &str, object: &Value) -> Metadata {
        let members = object.as_object().into_iter().flatten();
        let properties = members.filter_map(|(name, value)| {
            let text = match value {
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Some((name.clone(), text))
        });
        let mut seen = HashSet::new();
        let properties: Vec<_> = properties
            .filter(|(name, _)| seen.insert(name.to_lowercase()))
            .collect();
        Metadata {
            object: Some(object.clone()),
            ..Metadata::new(component, properties)
        }
    }

    /// The JSON that the properties are of, with its lists and objects, where
    /// they come from there.
    pub fn object(&self) -> Option<&Value> {
        self.object.as_ref()
    }

    /// The component's name.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// All properties as they were written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// An error if a property is given twice. Components that do not call
    /// this take the last of the two.
    pub fn unique(&self) -> Result<(), Error> {
        for (at, (name, _)) in self.properties.iter().enumerate() {
            let lower = name.to_lowercase();
            if self.properties[..at]
                .iter()
                .any(|(earlier, _)| earlier.to_lowercase() == lower)
            {
                return Err(Error::invalid(format!(
                    "failed to resolve aliases: key {lower} is duplicate in the metadata"
                )));
            }
        }
        Ok(())
    }

    /// The value of `name`, also when it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.properties
            .iter()
            .rev()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The value of `name` when it is there and not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// An error that says which property of which component is wrong.
    pub fn wrong(&self, name: &str, what: impl Display) -> Error {
        Error::invalid(format!(
            "component {}: property {name} {what}",
            self.component
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_match_in_any_case_and_the_last_wins() {
        let pairs = [("Host", "a"), ("HOST", "b"), ("empty", "")];
        let metadata = Metadata::new("store", pairs);
        assert_eq!(metadata.get("host"), Some("b"));
        assert_eq!(metadata.text("empty"), None);
        assert_eq!(
            metadata.unique().expect_err("given twice").to_string(),
            "failed to resolve aliases: key host is duplicate in the metadata"
        );
    }

    #[test]
    fn members_of_an_object_are_properties() {
        let object = json!({"text": "a", "number": 5, "flag": true, "nothing": null});
        let metadata = Metadata::from_json("nr", &object);
        assert_eq!(metadata.get("text"), Some("a"));
        assert_eq!(metadata.get("number"), Some("5"));
        assert_eq!(metadata.get("flag"), Some("true"));
        assert_eq!(metadata.get("nothing"), None);
        let odd = json!({"list": ["a"], "object": {"a": 1}, "Domain": "a", "domain": "b"});
        let metadata = Metadata::from_json("nr", &odd);
        assert_eq!(metadata.get("list"), None);
        assert_eq!(metadata.get("object"), None);
        assert!(metadata.unique().is_ok());
        assert_eq!(metadata.get("domain"), Some("a"));
        assert_eq!(Metadata::from_json("nr", &Value::Null).iter().count(), 0);
    }
}
