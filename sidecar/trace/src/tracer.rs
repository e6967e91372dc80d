//! What begins spans.

use std::sync::Arc;

use http::HeaderValue;
use outrider_kit::random;

use crate::context::Context;
use crate::export::Exporting;
use crate::sampler::Sampler;
use crate::span::{Kind, Span};

/// Makes spans, or passes on what others made. Cloning shares it.
#[derive(Clone, Default)]
pub struct Tracer(pub(crate) Mode);

#[derive(Clone, Default)]
pub(crate) enum Mode {
    /// What a client sent goes on as it is; where it sent nothing, answers and
    /// calls of the application carry the context of zeros.
    #[default]
    Passing,
    /// As if there were no tracing.
    Off,
    On(Arc<On>),
}

pub(crate) struct On {
    sampler: Sampler,
    exporting: Arc<Exporting>,
}

impl Tracer {
    pub fn off() -> Self {
        Self(Mode::Off)
    }

    pub(crate) fn on(sampler: Sampler, exporting: Arc<Exporting>) -> Self {
        Self(Mode::On(Arc::new(On { sampler, exporting })))
    }

    /// Whether spans are made.
    pub fn is_on(&self) -> bool {
        matches!(self.0, Mode::On(_))
    }

    /// Whether nothing at all is said about traces.
    pub fn is_off(&self) -> bool {
        matches!(self.0, Mode::Off)
    }

    /// Begins a span, if spans are made: below `parent`, whose sampling decides
    /// about it, or as the first of a trace.
    pub fn start(
        &self,
        parent: Option<Context>,
        state: Option<HeaderValue>,
        kind: Kind,
    ) -> Option<Span> {
        let Mode::On(on) = &self.0 else {
            return None;
        };
        let span_id = random::bits().max(1).to_be_bytes();
        let context = match parent {
            Some(parent) => parent.with_span(span_id, parent.is_sampled()),
            None => {
                let (high, low) = (random::bits().max(1), random::bits());
                let trace_id = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
                Context {
                    trace_id,
                    span_id,
                    flags: u8::from(on.sampler.chooses(&trace_id)),
                }
            }
        };
        let span = Span::new(context, state);
        if !context.is_sampled() || on.exporting.is_empty() {
            return Some(span);
        }
        let parent = parent.map(|parent| parent.span_id);
        Some(span.recorded(parent, kind, on.exporting.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::tests::collecting;

    fn tracer(rate: &str) -> (Tracer, Arc<Exporting>) {
        let exporting = collecting();
        let (sampler, _) = Sampler::parse(rate);
        (Tracer::on(sampler, exporting.clone()), exporting)
    }

    #[test]
    fn the_parent_decides_and_the_rate_only_about_first_spans() {
        for (rate, sampled) in [("1", true), ("-1", false)] {
            let (tracer, _) = tracer(rate);
            let first = tracer.start(None, None, Kind::Client).unwrap();
            assert_eq!(first.context().is_sampled(), sampled);
            for flags in [0, 1] {
                let parent = Context {
                    flags,
                    ..first.context()
                };
                let below = tracer.start(Some(parent), None, Kind::Client).unwrap();
                assert_eq!(below.context().flags, flags);
                assert_eq!(below.context().trace_id, parent.trace_id);
                assert_ne!(below.context().span_id, parent.span_id);
            }
        }
    }

    #[test]
    fn a_sampled_span_is_taken_when_it_ends() {
        let (tracer, exporting) = tracer("1");
        let mut span = tracer.start(None, None, Kind::Client).unwrap();
        let recording = span.recording().unwrap();
        recording.name("/v1.0/state/s");
        recording.set("dapr.protocol", "http");
        recording.set("empty", "");
        recording.fail("Code(500): Internal Server Error");
        assert!(exporting.waiting().is_empty());
        let context = span.context();
        drop(span);
        let waiting = exporting.waiting();
        let [finished] = waiting.as_slice() else {
            panic!("{waiting:?}");
        };
        assert_eq!((finished.context, finished.parent), (context, None));
        assert_eq!(finished.name, "/v1.0/state/s");
        assert_eq!(
            finished.attributes,
            [("dapr.protocol".into(), "http".to_owned())]
        );
        assert!(finished.error.is_some());
    }

    #[test]
    fn an_unsampled_span_has_ids_and_is_not_recorded() {
        let (tracer, exporting) = tracer("-1");
        let mut span = tracer.start(None, None, Kind::Client).unwrap();
        assert!(span.recording().is_none());
        assert!(span.context().to_string().ends_with("-00"));
        drop(span);
        assert!(exporting.waiting().is_empty());
    }
}
