//! Addresses by a pattern: <https://docs.dapr.io/reference/components-reference/supported-name-resolution/setup-nr-nameformat/>.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::Error;
use outrider_components::resolve::{Request, Resolver};
use serde_json::Value;

const PLACE: &str = "{appid}";

struct Format(String);

/// Reads the `format` setting.
pub fn start(config: &Value) -> Result<Arc<dyn Resolver>, Error> {
    let format = super::setting(config, "format")
        .ok_or_else(|| Error::invalid("format is required in metadata"))?;
    if !format.contains(PLACE) {
        return Err(Error::invalid("format must contain {appid} placeholder"));
    }
    Ok(Arc::new(Format(format.to_owned())))
}

#[async_trait]
impl Resolver for Format {
    async fn resolve(&self, request: &Request) -> Result<String, Error> {
        if request.app_id.is_empty() {
            return Err(Error::invalid("empty ID not allowed"));
        }
        Ok(self.0.replace(PLACE, &request.app_id))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(config: Value) -> String {
        start(&config).err().expect("is wrong").to_string()
    }

    #[tokio::test]
    async fn puts_the_id_everywhere() {
        let config = json!({"format": "{appid}.example:50002?{appid}"});
        let resolver = start(&config).expect("is right");
        let mut request = Request {
            app_id: "cart".to_owned(),
            ..Request::default()
        };
        assert_eq!(
            resolver.resolve(&request).await.expect("has an id"),
            "cart.example:50002?cart"
        );
        request.app_id.clear();
        assert_eq!(
            resolver
                .resolve(&request)
                .await
                .expect_err("has none")
                .to_string(),
            "empty ID not allowed"
        );
    }

    #[test]
    fn formats_that_cannot_work() {
        assert_eq!(refused(Value::Null), "format is required in metadata");
        assert_eq!(
            refused(json!({"format": "all:1"})),
            "format must contain {appid} placeholder"
        );
    }
}
