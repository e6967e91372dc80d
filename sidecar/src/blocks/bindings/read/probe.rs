//! Asks the application whether it wants the events of a binding.

use bytes::Bytes;
use http::{HeaderMap, Method};
use outrider_kit::quote;
use outrider_net::grpc;
use outrider_proto::runtime::v1::ListInputBindingsResponse;
use tonic::Code;

use super::{Binding, Inner};
use crate::blocks::pubsub::subscribe::deliver;
use outrider_call::channel::{Channel, Kind, grpc as app};
use outrider_call::message;

const LIST: &str = "/dapr.proto.runtime.v1.AppCallback/ListInputBindings";

/// Fails where the application does not answer.
pub async fn wants(inner: &Inner, channel: &Channel, binding: &Binding) -> Result<bool, String> {
    let asking = async {
        match &channel.kind {
            Kind::Http(_) => options(channel, &binding.settings.route).await,
            Kind::Grpc(client) => {
                let listed = inner.listed.get_or_try_init(|| list(channel, client));
                let name = binding.instance.name();
                Ok(listed.await?.iter().any(|wanted| wanted == name))
            }
        }
    };
    tokio::time::timeout(inner.probe_limit, asking)
        .await
        .unwrap_or_else(|_| {
            let name = binding.instance.name();
            Err(format!(
                "the application has not said within {:?} whether it wants the events of {name}",
                inner.probe_limit
            ))
        })
}

/// An HTTP application has a route for them, or it has not.
async fn options(channel: &Channel, route: &str) -> Result<bool, String> {
    let mut request = deliver::post(route, Default::default(), "application/json", Bytes::new());
    request.verb = Some(Method::OPTIONS);
    let answer = channel.invoke(request).await.map_err(|status| {
        format!(
            "could not invoke OPTIONS method on input binding subscription endpoint {}: {}",
            quote::go(route),
            status.message()
        )
    })?;
    Ok(match answer.code {
        message::Code::Http(status) => matches!(status, 200..=299 | 405),
        message::Code::Grpc(_) => false,
    })
}

/// A gRPC application lists the bindings whose events it wants.
async fn list(channel: &Channel, client: &app::Client) -> Result<Vec<String>, String> {
    let permit = channel.permit().await;
    let asked = client.unary(permit, LIST, &(), HeaderMap::new());
    match asked.await {
        Ok((ListInputBindingsResponse { bindings }, _, _)) => Ok(bindings),
        Err(status) if status.code() == Code::Unimplemented => Ok(Vec::new()),
        Err(status) => Err(grpc::text(&status)),
    }
}
