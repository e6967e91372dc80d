use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::Error;

/// The properties of one component. Names are compared without regard to
/// case; values are text, with the conversions that component files rely on.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    component: String,
    properties: Vec<(String, String)>,
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
        }
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

    /// Refuses properties that are given twice. Components that do not call
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

    /// The first of several names (a name and its aliases) that has a value.
    pub fn any(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.text(name))
    }

    /// The value of `name`, which the component cannot do without.
    pub fn required(&self, name: &str) -> Result<&str, Error> {
        self.text(name)
            .ok_or_else(|| self.wrong(name, "is missing or empty"))
    }

    /// Whether the value of `name` means yes: `y`, `yes`, `true`, `t`, `on`
    /// or `1` in any case. Everything else means no, as does absence.
    pub fn truthy(&self, name: &str) -> bool {
        self.get(name).is_some_and(outrider_kit::truthy)
    }

    /// A boolean in Go's spelling (`true`, `T`, `1`, ..). Anything else is an
    /// error. See <https://pkg.go.dev/strconv#ParseBool>.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Error> {
        self.text(name)
            .map(|value| match value {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                other => Err(self.wrong(
                    name,
                    format_args!(
                        "must be true or false, not {}",
                        outrider_kit::quote::go(other)
                    ),
                )),
            })
            .transpose()
    }

    /// A whole number.
    pub fn integer<T: FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        self.text(name)
            .map(|value| {
                value.parse().map_err(|_| {
                    self.wrong(
                        name,
                        format_args!(
                            "must be a whole number in range, not {}",
                            outrider_kit::quote::go(value)
                        ),
                    )
                })
            })
            .transpose()
    }

    /// A duration such as `1m30s`, or a bare number of seconds. Zero or less
    /// gives a zero duration.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, Error> {
        self.duration_in(name, Duration::from_secs(1))
    }

    /// As [`Metadata::duration`], a bare number being multiples of `unit`.
    pub fn duration_in(&self, name: &str, unit: Duration) -> Result<Option<Duration>, Error> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        if let Ok(count) = value.parse::<i64>() {
            let count = u32::try_from(count.max(0)).unwrap_or(u32::MAX);
            return Ok(Some(unit.saturating_mul(count)));
        }
        match outrider_kit::duration::parse_signed(value) {
            Ok(nanoseconds) => Ok(Some(Duration::from_nanos(
                u64::try_from(nanoseconds).unwrap_or(0),
            ))),
            Err(error) => Err(self.wrong(name, format_args!("must be a duration: {error}"))),
        }
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
    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        Metadata::new("store", pairs.iter().copied())
    }

    #[test]
    fn names_match_in_any_case_and_the_last_wins() {
        let metadata = metadata(&[("Host", "a"), ("HOST", "b"), ("empty", "")]);
        assert_eq!(metadata.get("host"), Some("b"));
        assert_eq!(metadata.text("empty"), None);
        assert_eq!(metadata.any(&["url", "hosT"]), Some("b"));
        assert_eq!(
            metadata.unique().expect_err("given twice").to_string(),
            "failed to resolve aliases: key host is duplicate in the metadata"
        );
    }

    #[test]
    fn booleans() {
        let metadata = metadata(&[("a", " Yes "), ("b", "no"), ("c", "T"), ("d", "yes")]);
        assert!(metadata.truthy("a"));
        assert!(!metadata.truthy("b"));
        assert!(!metadata.truthy("absent"));
        assert_eq!(metadata.boolean("c").expect("is a boolean"), Some(true));
        assert_eq!(metadata.boolean("absent").expect("may be absent"), None);
        assert_eq!(
            metadata
                .boolean("d")
                .expect_err("not Go's spelling")
                .to_string(),
            r#"component store: property d must be true or false, not "yes""#
        );
    }

    #[test]
    fn numbers_and_durations() {
        let metadata = metadata(&[("n", "12"), ("neg", "-1"), ("d", "1m30s"), ("bad", "soon")]);
        assert_eq!(metadata.integer::<u16>("n").expect("fits"), Some(12));
        assert!(metadata.integer::<u16>("neg").is_err());
        let seconds = |name| metadata.duration(name).expect("is a duration");
        assert_eq!(seconds("n"), Some(Duration::from_secs(12)));
        assert_eq!(seconds("neg"), Some(Duration::ZERO));
        assert_eq!(seconds("d"), Some(Duration::from_secs(90)));
        assert_eq!(
            metadata
                .duration_in("n", Duration::from_millis(1))
                .expect("is a duration"),
            Some(Duration::from_millis(12))
        );
        assert_eq!(
            metadata.duration("bad").expect_err("is none").to_string(),
            r#"component store: property bad must be a duration: time: invalid duration "soon""#
        );
    }
}
