//! `secretstores.local.env`: <https://docs.dapr.io/reference/components-reference/supported-secret-stores/envvar-secret-store/>.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::secrets::{Feature, GetRequest, Store};
use outrider_components::{Context, Error, Field, Metadata, Pairs};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// What the names of all variables start with. A secret's name is the
        /// rest.
        "prefix" => prefix: Option<String>;
    }
}

struct Environment {
    prefix: String,
    variables: Arc<BTreeMap<String, String>>,
}

/// Serves the environment of the process.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Store>, Error> {
    let fields = Fields::read(&metadata)?;
    Ok(Arc::new(Environment {
        prefix: fields.prefix.unwrap_or_default(),
        variables: context.environment,
    }))
}

/// Variables of the sidecar itself are not for the application.
fn is_allowed(variable: &str) -> bool {
    let variable = variable.to_uppercase();
    variable != "APP_API_TOKEN" && !variable.starts_with("DAPR_")
}

#[async_trait]
impl Store for Environment {
    fn features(&self) -> &[Feature] {
        &[]
    }

    /// A variable that is absent or not allowed reads as empty.
    async fn get(&self, request: &GetRequest) -> Result<Pairs, Error> {
        let name = &request.name;
        let variable = format!("{}{name}", self.prefix);
        let value = if is_allowed(&variable) {
            self.variables.get(&variable).cloned().unwrap_or_default()
        } else {
            tracing::warn!(target: "dapr.contrib", "Access to env var {name} is forbidden");
            String::new()
        };
        Ok(Pairs::from([(name.clone(), value)]))
    }

    async fn bulk_get(&self, _: &Pairs) -> Result<HashMap<String, Pairs>, Error> {
        Ok(self
            .variables
            .iter()
            .filter(|(variable, _)| is_allowed(variable))
            .filter_map(|(variable, value)| {
                let name = variable.strip_prefix(&self.prefix)?;
                (!name.is_empty()).then(|| {
                    (
                        name.to_owned(),
                        Pairs::from([(name.to_owned(), value.clone())]),
                    )
                })
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store(prefix: &str) -> Arc<dyn Store> {
        let variables = [
            ("HOME", "/home/app"),
            ("APP_SECRET", "s3cret"),
            ("APP_", "bare prefix"),
            ("APP_API_TOKEN", "token"),
            ("dapr_thing", "internal"),
        ];
        let environment = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let context = Context {
            environment: Arc::new(environment),
            ..Context::default()
        };
        connect(Metadata::new("env", [("PREFIX", prefix)]), context)
            .await
            .expect("needs nothing")
    }

    #[tokio::test]
    async fn a_secret_is_a_variable_without_the_prefix() {
        for (prefix, name, value) in [
            ("", "HOME", "/home/app"),
            ("", "absent", ""),
            ("", "APP_API_TOKEN", ""),
            ("", "dapr_thing", ""),
            ("APP_", "SECRET", "s3cret"),
            ("APP_", "API_TOKEN", ""),
        ] {
            let found = store(prefix).await.get(&GetRequest::new(name)).await;
            let wanted = Pairs::from([(name.to_owned(), value.to_owned())]);
            assert_eq!(found.expect("always answers"), wanted, "{prefix}{name}");
        }
    }

    #[tokio::test]
    async fn bulk_get_lists_allowed_variables_with_the_prefix() {
        for (prefix, wanted) in [
            ("", vec!["APP_", "APP_SECRET", "HOME"]),
            ("APP_", vec!["SECRET"]),
        ] {
            let all = store(prefix)
                .await
                .bulk_get(&Pairs::new())
                .await
                .expect("always answers");
            let mut names: Vec<_> = all.keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, wanted);
        }
    }
}
