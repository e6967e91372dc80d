//! `middleware.http.routerchecker`: <https://docs.dapr.io/reference/components-reference/supported-middleware/middleware-routerchecker/>.

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use outrider_components::middleware::{Middleware, Next, Outcome, Request, refusal, target};
use outrider_components::{Context, Error, Field, Metadata};
use outrider_kit::pattern::Pattern;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// The regular expression that path and query of a request have to
        /// match, such as `^[A-Za-z0-9/._-]+$`.
        "rule" => rule: String;
    }
}

struct Checker {
    rule: Pattern,
}

/// Compiles the rule.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Middleware>, Error> {
    let Fields { rule } = Fields::read(&metadata)?;
    let rule = Pattern::new(&rule)
        .map_err(|cause| Error::invalid(format!("failed to compile rule regexp: {cause}")))?;
    Ok(Arc::new(Checker { rule }))
}

#[async_trait]
impl Middleware for Checker {
    async fn handle(&self, request: Request, next: Next<'_>) -> Outcome {
        if self.rule.is_match(target(request.uri())) {
            next.run(request).await
        } else {
            Ok(refusal(StatusCode::BAD_REQUEST, "invalid router"))
        }
    }
}

#[cfg(test)]
mod tests {
    use outrider_components::middleware::{End, Response, full};

    use super::*;

    struct Ok204;

    #[async_trait]
    impl End for Ok204 {
        async fn answer(&self, _: Request) -> Outcome {
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
    }

    async fn checker(rule: &str) -> Result<Arc<dyn Middleware>, Error> {
        connect(Metadata::new("c", [("rule", rule)]), Context::default()).await
    }

    #[tokio::test]
    async fn the_rule_is_about_path_and_query() {
        let chain = [checker("^[A-Za-z0-9/._-]+$").await.expect("a pattern")];
        for (target, status) in [
            ("/v1.0/invoke/a/method/b", 204),
            ("/v1.0/invoke/a/method/b?x=1", 400),
            ("/v1.0/invoke/a/method/%62", 400),
        ] {
            let mut request = Request::new(full(""));
            *request.uri_mut() = target.parse().expect("a URI");
            let response = Next::new(&chain, &Ok204).run(request).await;
            assert_eq!(response.expect("an answer").status(), status, "{target}");
        }
    }

    #[tokio::test]
    async fn a_rule_is_needed_and_has_to_compile() {
        let error = checker("(").await.err().expect("no pattern").to_string();
        assert!(
            error.starts_with("failed to compile rule regexp: "),
            "{error}"
        );
        assert!(checker("").await.is_err());
    }
}
