//! Reminders over gRPC.

use outrider_actors::Actor;
use outrider_actors::reminders::{Reminder, Request};
use outrider_proto::runtime::v1 as wire;
use tonic::{Response, Status};

use super::Api;
use crate::blocks::actors::{any, error};

pub async fn register(
    api: &Api,
    request: wire::RegisterActorReminderRequest,
) -> Result<Response<()>, Status> {
    if request.name.is_empty() {
        let error = error::bad_request("reminder name cannot be empty");
        return Err(error.into());
    }
    let actor = Actor::new(request.actor_type, request.actor_id);
    let request = Request {
        name: request.name,
        due_time: request.due_time,
        period: request.period,
        ttl: request.ttl,
        data: any::to_json(&request.data).map(outrider_actors::any::of),
        overwrite: request.overwrite.unwrap_or(true),
        failure_policy: request.failure_policy,
    };
    api.register(&actor, request).await?;
    Ok(Response::new(()))
}

pub async fn unregister(
    api: &Api,
    request: wire::UnregisterActorReminderRequest,
) -> Result<Response<()>, Status> {
    let actor = Actor::new(request.actor_type, request.actor_id);
    api.delete(&actor, &request.name).await?;
    Ok(Response::new(()))
}

pub async fn unregister_by_type(
    api: &Api,
    request: wire::UnregisterActorRemindersByTypeRequest,
) -> Result<Response<wire::UnregisterActorRemindersByTypeResponse>, Status> {
    let id = request.actor_id.as_deref();
    api.delete_all(&request.actor_type, id).await?;
    let done = wire::UnregisterActorRemindersByTypeResponse {};
    Ok(Response::new(done))
}

pub async fn get(
    api: &Api,
    request: wire::GetActorReminderRequest,
) -> Result<Response<wire::GetActorReminderResponse>, Status> {
    let actor = Actor::new(request.actor_type, request.actor_id);
    let found = api.get(&actor, &request.name).await?;
    Ok(Response::new(wire::GetActorReminderResponse {
        actor_type: found.actor.kind.to_string(),
        actor_id: found.actor.id.to_string(),
        due_time: found.due_time,
        period: found.period,
        data: found.data,
        ttl: found.ttl,
    }))
}

pub async fn list(
    api: &Api,
    request: wire::ListActorRemindersRequest,
) -> Result<Response<wire::ListActorRemindersResponse>, Status> {
    let id = request.actor_id.as_deref();
    let found = api.list(&request.actor_type, id).await?;
    let reminders = found.into_iter().map(named).collect();
    Ok(Response::new(wire::ListActorRemindersResponse {
        reminders,
    }))
}

fn named(reminder: Reminder) -> wire::NamedActorReminder {
    wire::NamedActorReminder {
        name: reminder.name,
        reminder: Some(wire::ActorReminder {
            actor_type: reminder.actor.kind.to_string(),
            actor_id: reminder.actor.id.to_string(),
            due_time: reminder.due_time,
            period: reminder.period,
            data: reminder.data,
            ttl: reminder.ttl,
        }),
    }
}
