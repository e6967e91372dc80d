//! Components under the policies of their name: what is wrapped here is called
//! again, cut off or refused as resources want it. Without a policy a call
//! goes straight through.

pub mod pubsub;
pub mod secrets;
pub mod state;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use outrider_components::{Error as Cause, Kind};
use outrider_resiliency::{Block, Direction, Error, Failure, Matching, Policy, Resiliency};
use tonic::Code;

use outrider_net::grpc;

/// A call of a component, as its trait returns it.
type Call<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Finds what applies to one component.
struct Guard {
    resiliency: Resiliency,
    component: String,
    block: Block,
}

impl Guard {
    fn new(resiliency: &Resiliency, component: &str, block: Block) -> Self {
        Self {
            resiliency: resiliency.clone(),
            component: component.to_owned(),
            block,
        }
    }

    fn policy(&self) -> Option<Policy> {
        self.resiliency
            .component(&self.component, self.block, Direction::Outbound)
    }
}

/// Runs a call that may simply be repeated.
async fn run<T, Calling>(policy: Policy, mut call: impl FnMut() -> Calling) -> Result<T, Cause>
where
    Calling: Future<Output = Result<T, Cause>>,
{
    let running = policy.run(|_| {
        let calling = call();
        async move { calling.await.map_err(Failed) }
    });
    running.await.map_err(|error| match error {
        Error::Failed(Failed(cause)) => cause,
        refused => Cause::unavailable(refused.to_string()),
    })
}

/// Components have no HTTP status: lists of those are for the status that the
/// gRPC code stands for. Each list that there is has to have it.
fn is_among(cause: &Cause, codes: &Matching) -> bool {
    cause.code().is_none_or(|code| {
        let http = grpc::http_status(Code::from_i32(code)).as_u16();
        u16::try_from(code).is_ok_and(|code| codes.has(code)) && codes.has(http)
    })
}

/// The one place that says which failures of components are not tried again: a
/// conflict stays one, what a component cannot do it will not learn, and what
/// it calls wrong or refused is so the next time. Components of other programs
/// say no more than a gRPC code; of these all are tried again that the lists
/// of a policy have.
fn is_permanent(cause: &Cause) -> bool {
    match cause.kind() {
        Kind::EtagMismatch | Kind::EtagInvalid | Kind::Unsupported => true,
        _ => cause.code().is_none() && !cause.retry_safe(),
    }
}

/// A failure as policies see it.
struct Failed(Cause);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Failure for Failed {
    fn is_among(&self, codes: &Matching) -> bool {
        is_among(&self.0, codes)
    }

    fn is_permanent(&self) -> bool {
        is_permanent(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again() {
        for kind in [Kind::Unavailable, Kind::Internal] {
            assert!(!is_permanent(&Cause::new(kind, "")), "{kind:?}");
            assert!(is_permanent(&Cause::new(kind, "").retryable(false)));
        }
        for kind in [
            Kind::NotFound,
            Kind::Invalid,
            Kind::EtagMismatch,
            Kind::EtagInvalid,
            Kind::Denied,
            Kind::Unsupported,
            Kind::Precondition,
        ] {
            assert!(is_permanent(&Cause::new(kind, "")), "{kind:?}");
        }
        let of_program = |kind| Cause::new(kind, "").with_code(3);
        assert!(!is_permanent(&of_program(Kind::Internal).retryable(false)));
        assert!(is_permanent(&of_program(Kind::EtagMismatch)));
        assert!(is_permanent(&of_program(Kind::Unsupported)));
    }
}
