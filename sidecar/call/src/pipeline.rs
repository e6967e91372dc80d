//! The middleware that requests pass: a chain that is made once, and swapped
//! when components change.
//! <https://docs.dapr.io/operations/components/middleware/>

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use outrider_components::middleware::{self, BoxError, End, Middleware, Next, Outcome};
use outrider_net::body::{self, Body};

/// What requests pass, the outermost first.
pub type Chain = Vec<Arc<dyn Middleware>>;

/// The handlers of a list in the Configuration, as they are just now. Cloning
/// shares them.
#[derive(Clone, Default)]
pub struct Pipeline(Arc<ArcSwapOption<Chain>>);

/// In the place of a middleware that is wanted and cannot be used: nothing gets
/// past it.
pub struct Missing {
    pub name: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("the middleware {0} is not in use")]
pub struct NotInUse(pub String);

#[async_trait]
impl Middleware for Missing {
    async fn handle(&self, _: middleware::Request, _: Next<'_>) -> Outcome {
        Err(NotInUse(self.name.clone()).into())
    }
}

impl Pipeline {
    /// Requests that are on their way finish with what was before.
    pub fn set(&self, chain: Chain) {
        let chain = (!chain.is_empty()).then(|| Arc::new(chain));
        self.0.store(chain);
    }

    /// What a request has to pass, if there is anything.
    pub fn chain(&self) -> Option<Arc<Chain>> {
        self.0.load_full()
    }
}

/// Passes a request through `chain` to `end`.
pub async fn run(
    chain: &Chain,
    request: middleware::Request,
    end: &dyn End,
) -> Result<Response<Body>, BoxError> {
    let answer = Next::new(chain, end).run(request).await?;
    Ok(answer.map(received))
}

/// A request as middleware takes it.
pub fn request(request: Request<Body>) -> middleware::Request {
    request.map(passed)
}

/// An answer as middleware takes it.
pub fn answer(answer: Response<Body>) -> middleware::Response {
    answer.map(passed)
}

fn passed(body: Body) -> middleware::Body {
    match body {
        Body::Stream(stream) => stream,
        other => other.boxed_unsync(),
    }
}

/// A body that has passed middleware.
pub fn received(body: middleware::Body) -> Body {
    match body.is_end_stream() {
        true => body::empty(),
        false => Body::Stream(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fine;

    #[async_trait]
    impl End for Fine {
        async fn answer(&self, _: middleware::Request) -> Outcome {
            Ok(answer(Response::new(body::full("fine"))))
        }
    }

    struct Passing;

    #[async_trait]
    impl Middleware for Passing {
        async fn handle(&self, request: middleware::Request, next: Next<'_>) -> Outcome {
            next.run(request).await
        }
    }

    #[tokio::test]
    async fn nothing_gets_past_a_middleware_that_is_missing() {
        let pipeline = Pipeline::default();
        assert!(pipeline.chain().is_none());
        pipeline.set(vec![Arc::new(Passing)]);
        let before = pipeline.chain().unwrap();
        let name = "auth".to_owned();
        pipeline.set(vec![Arc::new(Passing), Arc::new(Missing { name })]);
        let ask = async |chain: &Chain| {
            let asked = request(Request::new(body::empty()));
            run(chain, asked, &Fine).await
        };
        let error = ask(&pipeline.chain().unwrap()).await.err().unwrap();
        assert!(error.is::<NotInUse>());
        assert_eq!(error.to_string(), "the middleware auth is not in use");
        let fine = ask(&before).await.unwrap();
        let collected = body::collect(fine.into_body(), None).await.unwrap();
        assert_eq!(collected, "fine");
        pipeline.set(Vec::new());
        assert!(pipeline.chain().is_none());
    }
}
