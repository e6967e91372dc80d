//! An event from its arrival to its end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use outrider_components::bindings::{Event, Handler, Input};
use outrider_components::{Error, Kind as Why, Pairs};
use outrider_net::grpc;
use outrider_proto::runtime::v1 as wire;
use outrider_resiliency::{Block, Direction, Error as Unserved, Failure};
use tokio::sync::watch;

use super::{Binding, Inner, Reader, answer};
use crate::blocks::invoke::ops::code_number;
use crate::blocks::pubsub::subscribe::deliver;
use outrider_call::channel::{Channel, Kind, grpc as app};
use outrider_trace::{self as trace, Span};
use tokio_util::sync::CancellationToken;

const SCOPE: &str = "dapr.runtime.processor.binding.input";
const DELIVER: &str = "/dapr.proto.runtime.v1.AppCallback/OnBindingEvent";
/// How long a binding is still read from after its last event, so that it can
/// send the application's verdict to where the event came from.
const LAST_ACK: Duration = Duration::from_millis(400);

/// Takes the events of one binding.
struct Inlet {
    inner: Arc<Inner>,
    channel: Arc<Channel>,
    binding: Arc<Binding>,
    /// No event is taken any more.
    closed: AtomicBool,
    /// Events that the application has and has not answered.
    in_flight: watch::Sender<usize>,
    /// No delivery is tried again.
    stop: CancellationToken,
}

/// Why a delivery failed.
#[derive(Debug)]
struct Failed {
    cause: String,
    /// The application's HTTP status or gRPC code.
    code: Option<u16>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl Failure for Failed {
    fn code(&self) -> Option<u16> {
        self.code
    }
}

/// What the application answered, and what it wants done.
struct Verdict {
    body: Bytes,
    wanted: Option<answer::Wanted>,
}

impl Reader {
    /// Reads until `stop` is cancelled; fails only at the start.
    pub async fn read(&mut self, input: &dyn Input) -> Result<(), Error> {
        let inlet = Arc::new(Inlet {
            inner: self.inner.clone(),
            channel: self.channel.clone(),
            binding: self.binding.clone(),
            closed: AtomicBool::new(false),
            in_flight: watch::Sender::new(0),
            stop: self.stop.clone(),
        });
        let subscription = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(()),
            begun = input.read(inlet.clone()) => begun?,
        };
        self.tried = None;
        self.stop.cancelled().await;
        inlet.close().await;
        subscription.close().await;
        Ok(())
    }
}

/// One event in flight.
struct InFlight<'a>(&'a watch::Sender<usize>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[async_trait]
impl Handler for Inlet {
    async fn handle(&self, event: Event) -> Result<Bytes, Error> {
        self.in_flight.send_modify(|count| *count += 1);
        let _counted = InFlight(&self.in_flight);
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::new(Why::Precondition, "input binding is closed"));
        }
        let started = Instant::now();
        let delivered = self.deliver(&event).await;
        let (success, took) = (delivered.is_ok(), started.elapsed());
        self.binding.metrics.delivered(success, took);
        match delivered {
            Ok(verdict) => {
                // The event is not acknowledged before all of it is done.
                if let Some(wanted) = verdict.wanted {
                    self.inner.outputs.serve(wanted).await;
                }
                Ok(verdict.body)
            }
            Err(failed) => {
                let name = self.binding.instance.name();
                tracing::debug!(target: SCOPE, "error from app consumer for binding [{name}]: {failed}");
                Err(Error::internal(failed.cause))
            }
        }
    }
}

impl Inlet {
    /// Takes no further event, and waits for those that the application has.
    async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut in_flight = self.in_flight.subscribe();
        if *in_flight.borrow_and_update() == 0 {
            return;
        }
        // The sender is this one's own.
        let _ = in_flight.wait_for(|count| *count == 0).await;
        tokio::time::sleep(LAST_ACK).await;
    }

    async fn deliver(&self, event: &Event) -> Result<Verdict, Failed> {
        let (name, resiliency) = (self.binding.instance.name(), &self.inner.resiliency);
        let policy = resiliency.component(name, Block::Binding, Direction::Inbound);
        let Some(policy) = policy else {
            return self.once(event).await;
        };
        let policy = policy.until(&self.stop);
        let running = policy.run(|_| self.once(event));
        Box::pin(running).await.map_err(|error| match error {
            Unserved::Failed(failed) => failed,
            refused => invoking(&refused, None),
        })
    }

    async fn once(&self, event: &Event) -> Result<Verdict, Failed> {
        match &self.channel.kind {
            Kind::Http(_) => self.over_http(event).await,
            Kind::Grpc(client) if self.channel.healthy.is_healthy() => {
                self.over_grpc(client, event).await
            }
            Kind::Grpc(_) => Err(invoking(&"app is not in a healthy state", None)),
        }
    }

    /// The application's path for the events.
    fn path(&self) -> &str {
        self.binding.settings.route.trim_start_matches('/')
    }

    /// Begins the span of a delivery, if spans are made.
    fn begin(&self, event: &Event, call: String) -> Option<Span> {
        let tracer = &self.channel.tracer;
        if !tracer.is_on() {
            return None;
        }
        let trace = parent(&event.metadata);
        let parent = trace::Context::parse(trace.parent.as_bytes());
        let state = parent.and_then(|_| HeaderValue::try_from(trace.state).ok());
        let state = state.filter(|state| trace::state::is_valid(state.as_bytes()));
        let mut span = tracer.start(parent, state, trace::Kind::Client)?;
        if let Some(recording) = span.recording() {
            let name = self.binding.instance.name();
            recording.name(format_args!("bindings/{name}"));
            recording.set("db.system", "bindings");
            recording.set("db.name", name);
            recording.set("db.connection_string", call);
            recording.set("rpc.service", "Dapr");
        }
        Some(span)
    }

    async fn over_http(&self, event: &Event) -> Result<Verdict, Failed> {
        let mut span = self.begin(event, format!("POST /{}", self.path()));
        let metadata = deliver::of_message(&event.metadata, &passed_on(span.as_ref(), event));
        let route = &self.binding.settings.route;
        let request = deliver::post(route, metadata, "application/json", event.data.clone());
        let sent = deliver::send(&self.channel, request).await;
        if let Some(recording) = span.as_mut().and_then(Span::recording) {
            match &sent {
                Ok((status, _)) => recording.answered(*status),
                Err(cause) => recording.fail(cause.as_str()),
            }
        }
        let (status, body) = sent.map_err(|cause| invoking(&cause, None))?;
        if !(200..300).contains(&status) {
            let body = String::from_utf8_lossy(&body);
            return Err(Failed {
                cause: format!(
                    "fails to send binding event to http app channel, status code: {status} body: {body}"
                ),
                code: Some(status),
            });
        }
        Ok(Verdict {
            wanted: answer::of_http(&body, self.binding.instance.name()),
            body,
        })
    }

    async fn over_grpc(&self, client: &app::Client, event: &Event) -> Result<Verdict, Failed> {
        let mut span = self.begin(event, DELIVER.to_owned());
        let trace = passed_on(span.as_ref(), event);
        let metadata = deliver::grpc_metadata(&Pairs::new(), &trace);
        let request = wire::BindingEventRequest {
            name: self.binding.instance.name().to_owned(),
            data: event.data.clone(),
            metadata: event.metadata.clone(),
        };
        let permit = self.channel.permit().await;
        let answered = client.unary(permit, DELIVER, &request, metadata).await;
        if let (Err(status), Some(recording)) = (&answered, span.as_mut().and_then(Span::recording))
        {
            recording.fail(status.message());
        }
        let (answer, _, _): (wire::BindingEventResponse, _, _) = answered.map_err(|status| {
            let code = code_number(status.code());
            invoking(&grpc::text(&status), Some(code))
        })?;
        Ok(Verdict {
            body: answer.data.clone(),
            wanted: answer::of_grpc(answer),
        })
    }
}

fn invoking(cause: &dyn fmt::Display, code: Option<u16>) -> Failed {
    Failed {
        cause: format!("error invoking app: {cause}"),
        code,
    }
}

/// The trace that the application gets with an event.
fn passed_on(span: Option<&Span>, event: &Event) -> trace::Parent {
    span.map_or_else(|| parent(&event.metadata), trace::Parent::of_span)
}

/// The trace that an event belongs to.
fn parent(metadata: &Pairs) -> trace::Parent {
    let text = |name: &str| metadata.get(name).map_or("", String::as_str);
    let parent = text(trace::TRACEPARENT);
    if !trace::is_valid(parent.as_bytes()) {
        return trace::Parent::default();
    }
    trace::Parent {
        parent: parent.to_owned(),
        state: text(trace::TRACESTATE).to_owned(),
    }
}
