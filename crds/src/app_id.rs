//! App ids as names in a cluster.

/// The longest name of a Service.
const LONGEST: usize = 63;
/// How much of a wrong one is shown.
const SHOWN: usize = 128;
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with \
     an alphanumeric character (e.g. 'my-name', or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("value for the dapr.io/app-id annotation is empty")]
    Empty,
    #[error("invalid app id (input: '{app_id}', service: '{app_id}-dapr'): {why}")]
    Invalid { app_id: String, why: String },
}

/// Name of the Service of an app's sidecars: `<app id>-dapr`.
pub fn service_name(app_id: &str) -> Result<String, Error> {
    if app_id.is_empty() {
        return Err(Error::Empty);
    }
    let name = format!("{app_id}-dapr");
    let mut faults = Vec::new();
    if name.len() > LONGEST {
        faults.push(format!("must be no more than {LONGEST} characters"));
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !name.chars().all(|c| plain(c) || c == '-') || !name.starts_with(plain) {
        faults.push(LABEL.to_owned());
    }
    match faults.is_empty() {
        true => Ok(name),
        false => Err(Error::Invalid {
            app_id: app_id.chars().take(SHOWN).collect(),
            why: faults.join(", "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_id_has_to_fit_into_the_name_of_a_service() {
        assert_eq!(service_name("a-1"), Ok("a-1-dapr".into()));
        assert_eq!(service_name(&"a".repeat(58)).map(|name| name.len()), Ok(63));
        assert_eq!(service_name(""), Err(Error::Empty));
        for (app_id, fault) in [
            ("a.b", "RFC 1123"),
            ("A", "RFC 1123"),
            ("-a", "RFC 1123"),
            (&"a".repeat(59), "no more than 63"),
        ] {
            let error = service_name(app_id).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!(
                    "invalid app id (input: '{app_id}', service: '{app_id}-dapr'): "
                )),
                "{error}"
            );
            assert!(error.contains(fault), "{error}");
        }
    }
}
