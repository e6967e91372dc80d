//! `nameresolution.nameformat`: <https://docs.dapr.io/reference/components-reference/supported-name-resolution/setup-nr-nameformat/>.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::resolve::{Request, Resolver};
use outrider_components::{Context, Error, Field, Metadata};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// The address of a sidecar, with `{appid}` in place of the id.
        "format" => format: String, missing "format is required in metadata";
    }
}

const PLACEHOLDER: &str = "{appid}";

struct Format(String);

/// Reads the format.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Resolver>, Error> {
    let Fields { format } = Fields::read(&metadata)?;
    if !format.contains(PLACEHOLDER) {
        return Err(Error::invalid("format must contain {appid} placeholder"));
    }
    Ok(Arc::new(Format(format)))
}

#[async_trait]
impl Resolver for Format {
    async fn resolve(&self, request: &Request<'_>) -> Result<String, Error> {
        if request.app_id.is_empty() {
            return Err(Error::invalid("empty ID not allowed"));
        }
        Ok(self.0.replace(PLACEHOLDER, request.app_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolver(properties: &[(&str, &str)]) -> Result<Arc<dyn Resolver>, Error> {
        let metadata = Metadata::new("nr", properties.iter().copied());
        connect(metadata, Context::default()).await
    }

    #[tokio::test]
    async fn every_placeholder_becomes_the_id() {
        let resolver = resolver(&[("format", "{appid}.example:50002?{appid}")]).await;
        let resolver = resolver.expect("is right");
        let mut request = Request {
            app_id: "cart",
            ..Request::default()
        };
        assert_eq!(
            resolver.resolve(&request).await.expect("has an id"),
            "cart.example:50002?cart"
        );
        request.app_id = "";
        assert_eq!(
            resolver
                .resolve(&request)
                .await
                .expect_err("has none")
                .to_string(),
            "empty ID not allowed"
        );
    }

    #[tokio::test]
    async fn a_format_without_placeholder_is_an_error() {
        for (properties, error) in [
            (&[][..], "format is required in metadata"),
            (
                &[("format", "all:1")],
                "format must contain {appid} placeholder",
            ),
        ] {
            let refused = resolver(properties).await.err().expect("is wrong");
            assert_eq!(refused.to_string(), error);
        }
    }
}
