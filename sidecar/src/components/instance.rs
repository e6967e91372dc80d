//! A component in use: what it is, the policies of its name and what is
//! counted, in one place. Without a policy a call goes straight through.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use outrider_components::{Error as Cause, Kind};
use outrider_metrics::component::{Operation, Operations};
use outrider_net::grpc;
use outrider_resiliency::{Block, Direction, Error, Failure, Matching, Policy, Resiliency};
use tonic::Code;

/// What the metadata API shows of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub name: String,
    /// Such as `state.redis`.
    pub component_type: String,
    pub version: String,
    pub capabilities: Vec<&'static str>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.version.is_empty() { "" } else { "/" };
        write!(
            f,
            "{} ({}{slash}{})",
            self.name, self.component_type, self.version
        )
    }
}

/// A component in use, behind its trait.
pub struct Instance<T: ?Sized> {
    pub description: Description,
    inner: Arc<T>,
    policies: Policies,
    operations: Operations,
}

/// Where the policies of one component are found.
pub struct Policies {
    pub resiliency: Resiliency,
    /// Whose defaults apply.
    pub block: Block,
}

impl<T: ?Sized + Send + Sync> Instance<T> {
    pub fn new(
        description: Description,
        inner: Arc<T>,
        policies: Policies,
        operations: Operations,
    ) -> Self {
        Self {
            description,
            inner,
            policies,
            operations,
        }
    }

    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// The component itself, for what no policy applies to: its features,
    /// subscriptions, its end.
    pub fn direct(&self) -> &T {
        &self.inner
    }

    /// What applies to a call, if anything does.
    pub fn policy(&self) -> Option<Policy> {
        self.policies
            .resiliency
            .component(self.name(), self.policies.block, Direction::Outbound)
    }

    /// Calls an operation that may simply be repeated.
    pub async fn call<'c, R: Send + 'c>(
        &'c self,
        mut call: impl FnMut(&'c T) -> BoxFuture<'c, Result<R, Cause>> + Send + 'c,
    ) -> Result<R, Cause> {
        match self.policy() {
            None => call(&self.inner).await,
            // Boxed, because most calls have none.
            Some(policy) => Box::pin(run(policy, move || call(&self.inner))).await,
        }
    }

    /// Counts an operation when it is done.
    pub async fn count<R, E>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<R, E>>,
    ) -> Result<R, E> {
        self.operations.time(operation, work).await
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
pub fn is_among(cause: &Cause, codes: &Matching) -> bool {
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
pub fn is_permanent(cause: &Cause) -> bool {
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
