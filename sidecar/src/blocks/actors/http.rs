//! Actors over HTTP.

use http::{HeaderValue, Response, StatusCode, header};
use outrider_actors::Actor;
use outrider_call::headers;
use outrider_call::message::{self, Data, Origin};
use outrider_components::state::TTL_EXPIRE_TIME;
use outrider_net::body::{self, Body};

use super::{Api, error, state};
use crate::blocks::descriptor::Names;
use crate::blocks::error::{Error, malformed};
use crate::blocks::http::{Request, add_metadata, json, no_content};

pub async fn invoke(api: &Api, mut request: Request, names: Names<'_>) -> Response<Body> {
    let data = match request.bytes().await {
        Ok(data) => data,
        Err(cause) => return error::too_large(&cause).into(),
    };
    let Ok(content_type) = headers::content_type(&request.headers) else {
        return malformed("the content type is not UTF-8").into();
    };
    let call = message::Request {
        method: names.rest.to_owned(),
        query: request.query().to_owned(),
        verb: Some(request.method),
        metadata: headers::of_client(&request.headers),
        origin: Origin::Http,
        content_type,
        content_length: Some(data.len() as u64),
        data_type_url: String::new(),
        body: Data::Whole(data),
    };
    let actor = Actor::new(names.first, names.second);
    match api.invoke(actor, call, None).await {
        Ok(response) => answer(response),
        Err(failed) => Error::from(failed).into(),
    }
}

fn answer(response: message::Response) -> Response<Body> {
    let mut answer = Response::new(body::empty());
    let content_type = response
        .content_type()
        .and_then(|kind| HeaderValue::try_from(kind).ok());
    headers::to_http(response.headers, Origin::Http, answer.headers_mut());
    if let Some(content_type) = content_type {
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
    }
    *answer.body_mut() = response.body;
    answer
}

pub async fn get_state(api: &Api, names: Names<'_>) -> Response<Body> {
    let actor = Actor::new(names.first, names.second);
    match api.get_state(&actor, names.third).await {
        Err(error) => error.into(),
        Ok(None) => no_content(),
        Ok(Some(mut item)) => {
            let mut answer = json(StatusCode::OK, item.value);
            item.metadata.retain(|name, _| name == TTL_EXPIRE_TIME);
            add_metadata(answer.headers_mut(), &item.metadata);
            answer
        }
    }
}

pub async fn transact(api: &Api, request: Request, names: Names<'_>) -> Response<Body> {
    match try_transact(api, request, names).await {
        Ok(()) => no_content(),
        Err(error) => error.into(),
    }
}

async fn try_transact(api: &Api, mut request: Request, names: Names<'_>) -> Result<(), Error> {
    let body = request.bytes().await.map_err(|cause| {
        malformed(format!("failed to read request body: {cause}")).of_body(&cause)
    })?;
    let operations = state::decode(&body)?;
    let actor = Actor::new(names.first, names.second);
    api.transact(&actor, operations).await
}
