//! Timers over gRPC.

use outrider_actors::Actor;
use outrider_actors::timers::{Request, Timer};
use outrider_proto::runtime::v1 as wire;
use tonic::{Response, Status};

use super::Api;
use crate::blocks::actors::any;

pub async fn register(
    api: &Api,
    request: wire::RegisterActorTimerRequest,
) -> Result<Response<()>, Status> {
    let actor = Actor::new(request.actor_type, request.actor_id);
    let request = Request {
        name: request.name,
        due_time: request.due_time,
        period: request.period,
        ttl: request.ttl,
        callback: request.callback,
        data: any::to_json(&request.data),
    };
    api.register(actor, request).await?;
    Ok(Response::new(()))
}

pub async fn unregister(
    api: &Api,
    request: wire::UnregisterActorTimerRequest,
) -> Result<Response<()>, Status> {
    let actor = Actor::new(request.actor_type, request.actor_id);
    api.delete(actor, &request.name).await?;
    Ok(Response::new(()))
}

pub async fn get(
    api: &Api,
    request: wire::GetActorTimerRequest,
) -> Result<Response<wire::GetActorTimerResponse>, Status> {
    let actor = Actor::new(request.actor_type, request.actor_id);
    let timer = api.get(&actor, &request.name).await?;
    let shown = shown(&actor, &timer);
    Ok(Response::new(wire::GetActorTimerResponse {
        actor_type: shown.actor_type,
        actor_id: shown.actor_id,
        due_time: shown.due_time,
        period: shown.period,
        ttl: shown.ttl,
        callback: shown.callback,
        data: shown.data,
    }))
}

pub async fn list(
    api: &Api,
    request: wire::ListActorTimersRequest,
) -> Result<Response<wire::ListActorTimersResponse>, Status> {
    let actor = Actor::new(request.actor_type, request.actor_id);
    let listed = api.list(&actor).await?;
    let timers = listed.iter().map(|timer| wire::NamedActorTimer {
        name: timer.name.to_string(),
        timer: Some(shown(&actor, timer)),
    });
    Ok(Response::new(wire::ListActorTimersResponse {
        timers: timers.collect(),
    }))
}

fn shown(actor: &Actor, timer: &Timer) -> wire::ActorTimer {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    wire::ActorTimer {
        actor_type: actor.kind.to_string(),
        actor_id: actor.id.to_string(),
        due_time: text(&timer.due_time),
        period: text(&timer.shown_period()),
        ttl: text(&timer.ttl),
        callback: text(&timer.callback),
        data: timer.data.as_ref().map(any::of_json),
    }
}
