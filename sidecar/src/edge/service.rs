//! The gRPC API: one delegating line per method. What is not here answers
//! Unimplemented.

use std::sync::Arc;

use outrider_proto::runtime::v1 as wire;
use outrider_proto::runtime::v1::dapr_server::Dapr;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::blocks::{
    actors, bindings, configuration, conversation, crypto, invoke, jobs, lock, metadata, pubsub,
    secrets, state,
};
use crate::edge::Apis;
use crate::edge::spans::describe;

#[derive(Clone)]
pub struct Service {
    pub apis: Arc<Apis>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Dapr for Service {
    async fn invoke_service(
        &self,
        request: Request<wire::InvokeServiceRequest>,
    ) -> Answer<outrider_proto::common::v1::InvokeResponse> {
        describe(&request);
        invoke::grpc::invoke(&self.apis.blocks.invoke, request).await
    }

    async fn invoke_actor(
        &self,
        request: Request<wire::InvokeActorRequest>,
    ) -> Answer<wire::InvokeActorResponse> {
        describe(&request);
        actors::grpc::invoke(&self.apis.blocks.actors, request).await
    }

    async fn get_actor_state(
        &self,
        request: Request<wire::GetActorStateRequest>,
    ) -> Answer<wire::GetActorStateResponse> {
        actors::grpc::get_state(&self.apis.blocks.actors, request.into_inner()).await
    }

    async fn execute_actor_state_transaction(
        &self,
        request: Request<wire::ExecuteActorStateTransactionRequest>,
    ) -> Answer<()> {
        actors::grpc::transact(&self.apis.blocks.actors, request.into_inner()).await
    }

    async fn subscribe_actor_events_alpha1(
        &self,
        request: Request<Streaming<wire::SubscribeActorEventsRequestAlpha1>>,
    ) -> Answer<BoxStream<wire::SubscribeActorEventsResponseAlpha1>> {
        actors::grpc::subscribe(&self.apis.blocks.actors, request.into_inner()).await
    }

    async fn register_actor_timer(
        &self,
        request: Request<wire::RegisterActorTimerRequest>,
    ) -> Answer<()> {
        describe(&request);
        actors::timers::grpc::register(&self.apis.blocks.timers, request.into_inner()).await
    }

    async fn unregister_actor_timer(
        &self,
        request: Request<wire::UnregisterActorTimerRequest>,
    ) -> Answer<()> {
        describe(&request);
        actors::timers::grpc::unregister(&self.apis.blocks.timers, request.into_inner()).await
    }

    async fn get_actor_timer(
        &self,
        request: Request<wire::GetActorTimerRequest>,
    ) -> Answer<wire::GetActorTimerResponse> {
        describe(&request);
        actors::timers::grpc::get(&self.apis.blocks.timers, request.into_inner()).await
    }

    async fn list_actor_timers(
        &self,
        request: Request<wire::ListActorTimersRequest>,
    ) -> Answer<wire::ListActorTimersResponse> {
        describe(&request);
        actors::timers::grpc::list(&self.apis.blocks.timers, request.into_inner()).await
    }

    async fn register_actor_reminder(
        &self,
        request: Request<wire::RegisterActorReminderRequest>,
    ) -> Answer<()> {
        describe(&request);
        actors::reminders::grpc::register(&self.apis.blocks.reminders, request.into_inner()).await
    }

    async fn unregister_actor_reminder(
        &self,
        request: Request<wire::UnregisterActorReminderRequest>,
    ) -> Answer<()> {
        describe(&request);
        actors::reminders::grpc::unregister(&self.apis.blocks.reminders, request.into_inner()).await
    }

    async fn unregister_actor_reminders_by_type(
        &self,
        request: Request<wire::UnregisterActorRemindersByTypeRequest>,
    ) -> Answer<wire::UnregisterActorRemindersByTypeResponse> {
        describe(&request);
        actors::reminders::grpc::unregister_by_type(
            &self.apis.blocks.reminders,
            request.into_inner(),
        )
        .await
    }

    async fn get_actor_reminder(
        &self,
        request: Request<wire::GetActorReminderRequest>,
    ) -> Answer<wire::GetActorReminderResponse> {
        describe(&request);
        actors::reminders::grpc::get(&self.apis.blocks.reminders, request.into_inner()).await
    }

    async fn list_actor_reminders(
        &self,
        request: Request<wire::ListActorRemindersRequest>,
    ) -> Answer<wire::ListActorRemindersResponse> {
        describe(&request);
        actors::reminders::grpc::list(&self.apis.blocks.reminders, request.into_inner()).await
    }

    async fn schedule_job(
        &self,
        request: Request<wire::ScheduleJobRequest>,
    ) -> Answer<wire::ScheduleJobResponse> {
        jobs::grpc::schedule(&self.apis.blocks.jobs, request.into_inner()).await
    }

    async fn schedule_job_alpha1(
        &self,
        request: Request<wire::ScheduleJobRequest>,
    ) -> Answer<wire::ScheduleJobResponse> {
        jobs::grpc::schedule(&self.apis.blocks.jobs, request.into_inner()).await
    }

    async fn get_job(&self, request: Request<wire::GetJobRequest>) -> Answer<wire::GetJobResponse> {
        jobs::grpc::get(&self.apis.blocks.jobs, request.into_inner()).await
    }

    async fn get_job_alpha1(
        &self,
        request: Request<wire::GetJobRequest>,
    ) -> Answer<wire::GetJobResponse> {
        jobs::grpc::get(&self.apis.blocks.jobs, request.into_inner()).await
    }

    async fn delete_job(
        &self,
        request: Request<wire::DeleteJobRequest>,
    ) -> Answer<wire::DeleteJobResponse> {
        jobs::grpc::delete(&self.apis.blocks.jobs, request.into_inner()).await
    }

    async fn delete_job_alpha1(
        &self,
        request: Request<wire::DeleteJobRequest>,
    ) -> Answer<wire::DeleteJobResponse> {
        jobs::grpc::delete(&self.apis.blocks.jobs, request.into_inner()).await
    }

    async fn delete_jobs_by_prefix(
        &self,
        request: Request<wire::DeleteJobsByPrefixRequest>,
    ) -> Answer<wire::DeleteJobsByPrefixResponse> {
        let prefix = request.into_inner().name_prefix.unwrap_or_default();
        self.apis.blocks.jobs.delete_by_prefix(prefix).await?;
        Ok(Response::new(wire::DeleteJobsByPrefixResponse {}))
    }

    async fn delete_jobs_by_prefix_alpha1(
        &self,
        request: Request<wire::DeleteJobsByPrefixRequestAlpha1>,
    ) -> Answer<wire::DeleteJobsByPrefixResponseAlpha1> {
        let prefix = request.into_inner().name_prefix.unwrap_or_default();
        self.apis.blocks.jobs.delete_by_prefix(prefix).await?;
        Ok(Response::new(wire::DeleteJobsByPrefixResponseAlpha1 {}))
    }

    async fn list_jobs(&self, _: Request<wire::ListJobsRequest>) -> Answer<wire::ListJobsResponse> {
        let jobs = self.apis.blocks.jobs.list().await?;
        Ok(Response::new(wire::ListJobsResponse { jobs }))
    }

    async fn list_jobs_alpha1(
        &self,
        _: Request<wire::ListJobsRequestAlpha1>,
    ) -> Answer<wire::ListJobsResponseAlpha1> {
        let jobs = self.apis.blocks.jobs.list().await?;
        Ok(Response::new(wire::ListJobsResponseAlpha1 { jobs }))
    }

    async fn get_state(
        &self,
        request: Request<wire::GetStateRequest>,
    ) -> Answer<wire::GetStateResponse> {
        describe(&request);
        state::grpc::get(&self.apis.blocks.state, request.into_inner()).await
    }

    async fn get_bulk_state(
        &self,
        request: Request<wire::GetBulkStateRequest>,
    ) -> Answer<wire::GetBulkStateResponse> {
        state::grpc::bulk_get(&self.apis.blocks.state, request.into_inner()).await
    }

    async fn save_state(&self, request: Request<wire::SaveStateRequest>) -> Answer<()> {
        describe(&request);
        state::grpc::save(&self.apis.blocks.state, request.into_inner()).await
    }

    async fn query_state_alpha1(
        &self,
        request: Request<wire::QueryStateRequest>,
    ) -> Answer<wire::QueryStateResponse> {
        state::grpc::query(&self.apis.blocks.state, request.into_inner()).await
    }

    async fn delete_state(&self, request: Request<wire::DeleteStateRequest>) -> Answer<()> {
        describe(&request);
        state::grpc::delete(&self.apis.blocks.state, request.into_inner()).await
    }

    async fn delete_bulk_state(
        &self,
        request: Request<wire::DeleteBulkStateRequest>,
    ) -> Answer<()> {
        state::grpc::bulk_delete(&self.apis.blocks.state, request.into_inner()).await
    }

    async fn execute_state_transaction(
        &self,
        request: Request<wire::ExecuteStateTransactionRequest>,
    ) -> Answer<()> {
        state::grpc::transact(&self.apis.blocks.state, request).await
    }

    async fn invoke_binding(
        &self,
        request: Request<wire::InvokeBindingRequest>,
    ) -> Answer<wire::InvokeBindingResponse> {
        describe(&request);
        bindings::grpc::invoke(&self.apis.blocks.bindings, request).await
    }

    async fn get_secret(
        &self,
        request: Request<wire::GetSecretRequest>,
    ) -> Answer<wire::GetSecretResponse> {
        describe(&request);
        secrets::grpc::get(&self.apis.blocks.secrets, request.into_inner()).await
    }

    async fn get_bulk_secret(
        &self,
        request: Request<wire::GetBulkSecretRequest>,
    ) -> Answer<wire::GetBulkSecretResponse> {
        secrets::grpc::bulk_get(&self.apis.blocks.secrets, request.into_inner()).await
    }

    async fn publish_event(&self, request: Request<wire::PublishEventRequest>) -> Answer<()> {
        describe(&request);
        pubsub::grpc::publish(&self.apis.blocks.pubsub, request).await
    }

    async fn bulk_publish_event(
        &self,
        request: Request<wire::BulkPublishRequest>,
    ) -> Answer<wire::BulkPublishResponse> {
        describe(&request);
        pubsub::grpc::bulk_publish(&self.apis.blocks.pubsub, request).await
    }

    async fn bulk_publish_event_alpha1(
        &self,
        request: Request<wire::BulkPublishRequest>,
    ) -> Answer<wire::BulkPublishResponse> {
        describe(&request);
        pubsub::grpc::bulk_publish(&self.apis.blocks.pubsub, request).await
    }

    async fn subscribe_topic_events_alpha1(
        &self,
        request: Request<Streaming<wire::SubscribeTopicEventsRequestAlpha1>>,
    ) -> Answer<pubsub::subscribe::stream::Responses> {
        pubsub::grpc::subscribe(&self.apis.blocks.pubsub, request).await
    }

    async fn get_configuration(
        &self,
        request: Request<wire::GetConfigurationRequest>,
    ) -> Answer<wire::GetConfigurationResponse> {
        configuration::grpc::get(&self.apis.blocks.configuration, request.into_inner()).await
    }

    async fn get_configuration_alpha1(
        &self,
        request: Request<wire::GetConfigurationRequest>,
    ) -> Answer<wire::GetConfigurationResponse> {
        self.get_configuration(request).await
    }

    async fn subscribe_configuration(
        &self,
        request: Request<wire::SubscribeConfigurationRequest>,
    ) -> Answer<configuration::grpc::Changes> {
        configuration::grpc::subscribe(&self.apis.blocks.configuration, request.into_inner()).await
    }

    async fn subscribe_configuration_alpha1(
        &self,
        request: Request<wire::SubscribeConfigurationRequest>,
    ) -> Answer<configuration::grpc::Changes> {
        self.subscribe_configuration(request).await
    }

    async fn unsubscribe_configuration(
        &self,
        request: Request<wire::UnsubscribeConfigurationRequest>,
    ) -> Answer<wire::UnsubscribeConfigurationResponse> {
        let api = &self.apis.blocks.configuration;
        Ok(configuration::grpc::unsubscribe(api, request.get_ref()))
    }

    async fn unsubscribe_configuration_alpha1(
        &self,
        request: Request<wire::UnsubscribeConfigurationRequest>,
    ) -> Answer<wire::UnsubscribeConfigurationResponse> {
        self.unsubscribe_configuration(request).await
    }

    async fn try_lock_alpha1(
        &self,
        request: Request<wire::TryLockRequest>,
    ) -> Answer<wire::TryLockResponse> {
        lock::grpc::try_lock(&self.apis.blocks.lock, request.get_ref()).await
    }

    async fn unlock_alpha1(
        &self,
        request: Request<wire::UnlockRequest>,
    ) -> Answer<wire::UnlockResponse> {
        lock::grpc::unlock(&self.apis.blocks.lock, request.get_ref()).await
    }

    async fn converse_alpha1(
        &self,
        request: Request<wire::ConversationRequest>,
    ) -> Answer<wire::ConversationResponse> {
        describe(&request);
        conversation::grpc::alpha1(&self.apis.blocks.conversation, request.into_inner()).await
    }

    async fn converse_alpha2(
        &self,
        request: Request<wire::ConversationRequestAlpha2>,
    ) -> Answer<wire::ConversationResponseAlpha2> {
        describe(&request);
        conversation::grpc::alpha2(&self.apis.blocks.conversation, request.into_inner()).await
    }

    async fn encrypt_alpha1(
        &self,
        request: Request<Streaming<wire::EncryptRequest>>,
    ) -> Answer<BoxStream<wire::EncryptResponse>> {
        crypto::grpc::encrypt(&self.apis.blocks.crypto, request).await
    }

    async fn decrypt_alpha1(
        &self,
        request: Request<Streaming<wire::DecryptRequest>>,
    ) -> Answer<BoxStream<wire::DecryptResponse>> {
        crypto::grpc::decrypt(&self.apis.blocks.crypto, request).await
    }

    async fn subtle_get_key_alpha1(
        &self,
        request: Request<wire::SubtleGetKeyRequest>,
    ) -> Answer<wire::SubtleGetKeyResponse> {
        crypto::grpc::get_key(&self.apis.blocks.crypto, request.into_inner()).await
    }

    async fn subtle_encrypt_alpha1(
        &self,
        request: Request<wire::SubtleEncryptRequest>,
    ) -> Answer<wire::SubtleEncryptResponse> {
        crypto::grpc::subtle_encrypt(&self.apis.blocks.crypto, request.into_inner()).await
    }

    async fn subtle_decrypt_alpha1(
        &self,
        request: Request<wire::SubtleDecryptRequest>,
    ) -> Answer<wire::SubtleDecryptResponse> {
        crypto::grpc::subtle_decrypt(&self.apis.blocks.crypto, request.into_inner()).await
    }

    async fn subtle_wrap_key_alpha1(
        &self,
        request: Request<wire::SubtleWrapKeyRequest>,
    ) -> Answer<wire::SubtleWrapKeyResponse> {
        crypto::grpc::wrap_key(&self.apis.blocks.crypto, request.into_inner()).await
    }

    async fn subtle_unwrap_key_alpha1(
        &self,
        request: Request<wire::SubtleUnwrapKeyRequest>,
    ) -> Answer<wire::SubtleUnwrapKeyResponse> {
        crypto::grpc::unwrap_key(&self.apis.blocks.crypto, request.into_inner()).await
    }

    async fn subtle_sign_alpha1(
        &self,
        request: Request<wire::SubtleSignRequest>,
    ) -> Answer<wire::SubtleSignResponse> {
        crypto::grpc::sign(&self.apis.blocks.crypto, request.into_inner()).await
    }

    async fn subtle_verify_alpha1(
        &self,
        request: Request<wire::SubtleVerifyRequest>,
    ) -> Answer<wire::SubtleVerifyResponse> {
        crypto::grpc::verify(&self.apis.blocks.crypto, request.into_inner()).await
    }

    async fn get_metadata(
        &self,
        _: Request<wire::GetMetadataRequest>,
    ) -> Answer<wire::GetMetadataResponse> {
        Ok(Response::new(metadata::grpc_get(
            &self.apis.blocks.metadata,
        )))
    }

    async fn set_metadata(&self, request: Request<wire::SetMetadataRequest>) -> Answer<()> {
        let request = request.into_inner();
        let set = self.apis.blocks.metadata.set(&request.key, request.value);
        set.map_err(Status::invalid_argument)?;
        Ok(Response::new(()))
    }

    async fn shutdown(&self, request: Request<wire::ShutdownRequest>) -> Answer<()> {
        self.apis
            .blocks
            .shutdown
            .shutdown(request.metadata().as_ref());
        Ok(Response::new(()))
    }
}
