//! Conversations over HTTP: the messages of gRPC in JSON.
//! <https://docs.dapr.io/reference/api/conversation_api/>

use http::Response;
use outrider_net::body::Body;
use outrider_proto::runtime::v1 as wire;

use super::Api;
use crate::blocks::http::Request;
use crate::blocks::proto_json;

pub async fn alpha1(api: &Api, request: Request, name: &str) -> Response<Body> {
    let answered = async {
        let mut request: wire::ConversationRequest =
            proto_json::read(request, "ConversationRequest").await?;
        request.name = name.to_owned();
        api.converse_alpha1(request).await
    };
    proto_json::answer("ConversationResponse", answered.await)
}

pub async fn alpha2(api: &Api, request: Request, name: &str) -> Response<Body> {
    let answered = async {
        let mut request: wire::ConversationRequestAlpha2 =
            proto_json::read(request, "ConversationRequestAlpha2").await?;
        request.name = name.to_owned();
        api.converse_alpha2(request).await
    };
    proto_json::answer("ConversationResponseAlpha2", answered.await)
}
