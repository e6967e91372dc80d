//! The trace of one request, in its headers and in those of its answer.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::baggage::{self, BAGGAGE, Invalid};
use crate::context::{BINARY, Context, NOTHING, TRACEPARENT, TRACESTATE};
use crate::span::{Kind, Recording, Span};
use crate::state;
use crate::tracer::{Mode, Tracer};

/// What a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Http,
    Grpc,
}

/// The trace of one request, until it is answered.
#[derive(Default)]
pub struct Traced {
    pub span: Option<Span>,
    /// What the client sent, where no span was made.
    parent: Option<HeaderValue>,
    /// What few clients send.
    rare: Option<Box<Rare>>,
    is_off: bool,
    /// The request is not traced at all.
    is_silent: bool,
}

#[derive(Default)]
struct Rare {
    state: Option<HeaderValue>,
    baggage: Option<HeaderValue>,
}

impl Tracer {
    /// Begins the trace of a request. The headers then carry the context of its
    /// span, where there is one.
    pub fn request(
        &self,
        headers: &mut HeaderMap,
        kind: Kind,
        wire: Wire,
    ) -> Result<Traced, Invalid> {
        if self.is_off() {
            return Ok(Traced {
                is_off: true,
                ..Traced::default()
            });
        }
        let baggage = baggage::of_headers(headers)?;
        let mut traced = match &self.0 {
            Mode::On(_) => self.below(headers, kind, wire),
            Mode::Passing | Mode::Off => Traced::passing(headers, wire),
        };
        if let Some(baggage) = baggage {
            traced.rare.get_or_insert_default().baggage = Some(baggage);
        }
        Ok(traced)
    }

    fn below(&self, headers: &mut HeaderMap, kind: Kind, wire: Wire) -> Traced {
        let parent = Context::of_headers(headers, wire);
        let state = parent.and_then(|_| state::of_headers(headers));
        let span = self.start(parent, state.clone(), kind);
        if let Some(span) = &span {
            span.replace(headers, wire);
        }
        Traced {
            span,
            rare: state.map(|state| {
                Box::new(Rare {
                    state: Some(state),
                    baggage: None,
                })
            }),
            ..Traced::default()
        }
    }

    /// Begins the span of a call by another sidecar, if spans are made.
    pub fn received(&self, headers: &HeaderMap) -> Option<Span> {
        self.is_on().then_some(())?;
        let parent = Context::of_headers(headers, Wire::Grpc);
        let state = parent.and_then(|_| state::of_headers(headers));
        self.start(parent, state, Kind::Server)
    }
}

impl Context {
    /// The context that a request came with.
    pub fn of_headers(headers: &HeaderMap, wire: Wire) -> Option<Self> {
        find(headers, wire).map(|(context, _)| context)
    }
}

/// The context that a request came with, and its text as the value of
/// `traceparent`, as it was sent where it was sent so. Of the two headers the
/// first counts that can be read.
pub(crate) fn find(headers: &HeaderMap, wire: Wire) -> Option<(Context, HeaderValue)> {
    let binary = match wire {
        Wire::Http => None,
        Wire::Grpc => headers.get(BINARY),
    };
    let binary = binary.and_then(|value| Context::parse_binary(value.as_bytes()));
    if let Some(context) = binary {
        return Some((context, context.header()));
    }
    let sent = headers.get(TRACEPARENT)?;
    Some((Context::parse(sent.as_bytes())?, sent.clone()))
}

impl Span {
    /// Puts its context into headers, in place of others.
    pub fn replace(&self, headers: &mut HeaderMap, wire: Wire) {
        headers.insert(TRACEPARENT, self.context().header());
        match self.state() {
            Some(state) => headers.insert(TRACESTATE, state.clone()),
            None => headers.remove(TRACESTATE),
        };
        if let (Wire::Grpc, Some(binary)) = (wire, self.context().binary_header()) {
            headers.insert(BINARY, binary);
        }
    }
}

impl Traced {
    /// Of a request of a health route, or of a client that is not admitted.
    pub fn silent() -> Self {
        Self {
            is_silent: true,
            ..Self::default()
        }
    }

    fn passing(headers: &HeaderMap, wire: Wire) -> Self {
        let parent = find(headers, wire).map(|(_, text)| text);
        let state = parent.as_ref().and_then(|_| state::of_headers(headers));
        Self {
            parent,
            rare: state.map(|state| {
                Box::new(Rare {
                    state: Some(state),
                    baggage: None,
                })
            }),
            ..Self::default()
        }
    }

    /// The context of the request, if it has one.
    pub fn context(&self) -> Option<Context> {
        match &self.span {
            Some(span) => Some(span.context()),
            None => Context::parse(self.parent.as_ref()?.as_bytes()),
        }
    }

    /// What is recorded of the span; none if nothing is.
    pub fn recording(&mut self) -> Option<&mut Recording> {
        self.span.as_mut()?.recording()
    }

    /// Adds to an HTTP answer what it does not say itself.
    pub fn answer_http(&mut self, headers: &mut HeaderMap) {
        let said = headers.get(TRACEPARENT);
        let has_own = said.is_some_and(|value| value != NOTHING);
        if self.is_off {
            if said.is_some() && !has_own {
                headers.remove(TRACEPARENT);
            }
            return;
        }
        if self.is_silent {
            return;
        }
        let rare = self.rare.take().unwrap_or_default();
        add(headers, BAGGAGE, rare.baggage);
        if has_own {
            return;
        }
        let context = match (&self.span, self.parent.take()) {
            (Some(span), _) => span.context().header(),
            (None, Some(parent)) => parent,
            (None, None) => HeaderValue::from_static(NOTHING),
        };
        headers.insert(TRACEPARENT, context);
        add(headers, TRACESTATE, rare.state);
    }

    /// The same for a gRPC answer; the context only where it `says` so, since
    /// applications answer with one of their own.
    pub fn answer_grpc(&mut self, headers: &mut HeaderMap, says: bool) {
        if let Some(rare) = self.rare.take() {
            add(headers, BAGGAGE, rare.baggage);
            if says {
                add(headers, TRACESTATE, rare.state);
            }
        }
        if !says {
            return;
        }
        let context = self.context();
        let binary = context.and_then(|context| context.binary_header());
        add(headers, BINARY, binary);
    }
}

fn add(headers: &mut HeaderMap, name: &'static str, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers
            .entry(HeaderName::from_static(name))
            .or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Parent;
    use crate::export::tests::collecting;
    use crate::sampler::Sampler;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    fn on() -> Tracer {
        Tracer::on(Sampler::parse("1").0, collecting())
    }

    fn request(tracer: &Tracer, headers: &mut HeaderMap, wire: Wire) -> Traced {
        tracer.request(headers, Kind::Client, wire).unwrap()
    }

    #[test]
    fn without_spans_the_answer_has_the_clients_context_or_zeros() {
        let tracer = Tracer::default();
        let mut answer = HeaderMap::new();
        request(&tracer, &mut HeaderMap::new(), Wire::Http).answer_http(&mut answer);
        assert_eq!(answer[TRACEPARENT], NOTHING);
        let mut sent = headers(&[(TRACEPARENT, PARENT), (TRACESTATE, "a=b"), (BAGGAGE, "c=d")]);
        let before = sent.clone();
        let mut answer = HeaderMap::new();
        request(&tracer, &mut sent, Wire::Http).answer_http(&mut answer);
        assert_eq!(sent, before);
        assert_eq!(answer, before);
    }

    #[test]
    fn the_answer_of_a_health_route_has_no_context() {
        let mut answer = HeaderMap::new();
        Traced::silent().answer_http(&mut answer);
        assert!(answer.is_empty());
    }

    #[test]
    fn where_tracing_is_off_nothing_is_said_nor_judged() {
        let mut sent = headers(&[(TRACEPARENT, PARENT), (BAGGAGE, "bad")]);
        let before = sent.clone();
        let mut answer = headers(&[(TRACEPARENT, NOTHING)]);
        request(&Tracer::off(), &mut sent, Wire::Http).answer_http(&mut answer);
        assert!(answer.is_empty());
        assert_eq!(sent, before);
    }

    #[test]
    fn a_request_goes_on_with_the_context_of_its_span() {
        let mut sent = headers(&[(TRACEPARENT, PARENT), (TRACESTATE, "a=b")]);
        let mut traced = request(&on(), &mut sent, Wire::Http);
        let context = traced.context().unwrap();
        assert_eq!(sent[TRACEPARENT], context.to_string());
        assert_ne!(sent[TRACEPARENT], PARENT);
        assert_eq!(sent[TRACEPARENT].as_bytes()[..35], PARENT.as_bytes()[..35]);
        assert_eq!(sent[TRACESTATE], "a=b");
        let mut answer = headers(&[(TRACEPARENT, NOTHING)]);
        traced.answer_http(&mut answer);
        assert_eq!(answer[TRACEPARENT], context.to_string());
        assert_eq!(answer[TRACESTATE], "a=b");
    }

    #[test]
    fn what_cannot_be_read_begins_a_new_trace() {
        let mut sent = headers(&[(TRACEPARENT, "hello"), (TRACESTATE, "a=b")]);
        let traced = request(&on(), &mut sent, Wire::Http);
        assert_eq!(sent[TRACEPARENT], traced.context().unwrap().to_string());
        assert!(!sent.contains_key(TRACESTATE));
    }

    #[test]
    fn the_binary_context_of_grpc_comes_first_and_goes_on() {
        let binary = crate::to_binary(PARENT).unwrap();
        let mut sent = HeaderMap::new();
        sent.insert(BINARY, HeaderValue::try_from(binary).unwrap());
        sent.insert(
            TRACEPARENT,
            HeaderValue::from_static("00-11111111111111111111111111111111-1111111111111111-00"),
        );
        let mut traced = request(&on(), &mut sent, Wire::Grpc);
        let context = traced.context().unwrap();
        assert_eq!(sent[TRACEPARENT].as_bytes()[..35], PARENT.as_bytes()[..35]);
        assert_eq!(sent[BINARY], context.binary());
        let mut answer = HeaderMap::new();
        traced.answer_grpc(&mut answer, true);
        assert_eq!(answer[BINARY], context.binary());
        let mut answer = HeaderMap::new();
        traced.answer_grpc(&mut answer, false);
        assert!(answer.is_empty());
    }

    #[test]
    fn the_same_context_is_found_whether_spans_are_made_or_not() {
        let other = "00-11111111111111111111111111111111-1111111111111111-01";
        let binary = crate::to_binary(PARENT).unwrap();
        let (binary, bad) = (Some(binary.as_str()), Some("hello"));
        // The two headers, and what is found over HTTP and over gRPC.
        let cases = [
            (Some(PARENT), None, Some(PARENT), Some(PARENT)),
            (None, binary, None, Some(PARENT)),
            (Some(other), binary, Some(other), Some(PARENT)),
            (bad, binary, None, Some(PARENT)),
            (Some(PARENT), bad, Some(PARENT), Some(PARENT)),
            (bad, bad, None, None),
        ];
        let id = |context: Option<Context>| context.map(|context| context.trace_id);
        let id_of = |text: &str| id(Context::parse(text.as_bytes()));
        for (parent, binary, over_http, over_grpc) in cases {
            for (wire, expected) in [(Wire::Http, over_http), (Wire::Grpc, over_grpc)] {
                let pairs = [(TRACEPARENT, parent), (BINARY, binary)];
                let pairs = pairs.into_iter().filter_map(|(n, v)| Some((n, v?)));
                let mut sent: HeaderMap = pairs
                    .map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap()))
                    .collect();
                let expected = expected.and_then(id_of);
                let passing = request(&Tracer::default(), &mut sent.clone(), wire);
                assert_eq!(id(passing.context()), expected, "{sent:?}");
                let carried = Parent::of_headers(&sent, wire);
                assert_eq!(id_of(&carried.parent), expected, "{sent:?}");
                let made = id(request(&on(), &mut sent, wire).context());
                assert_eq!(made == expected, expected.is_some(), "{sent:?}");
            }
        }
    }

    #[test]
    fn bad_baggage_is_refused_and_good_baggage_comes_back() {
        for tracer in [Tracer::default(), on()] {
            let mut sent = headers(&[(BAGGAGE, "bad")]);
            assert!(tracer.request(&mut sent, Kind::Client, Wire::Http).is_err());
            let mut sent = headers(&[(BAGGAGE, "a=b")]);
            sent.append(BAGGAGE, HeaderValue::from_static("c=d"));
            let mut answer = HeaderMap::new();
            request(&tracer, &mut sent, Wire::Grpc).answer_grpc(&mut answer, false);
            assert_eq!(answer[BAGGAGE], "a=b,c=d");
        }
    }
}
