//! What invoking an output binding means.

use std::fmt;
use std::time::Instant;

use http::HeaderMap;
use outrider_components::Error as Cause;
use outrider_components::bindings::{Answer, Failure, Output, Request};
use outrider_resiliency::{Error as Unserved, Matching};

use super::{Api, Binding};
use crate::blocks::error::malformed;
use crate::components::instance::{is_among, is_permanent};
use outrider_trace::baggage::{self, BAGGAGE};

impl Api {
    /// Invokes an operation. The error comes with what the binding answered
    /// nevertheless.
    pub async fn invoke(&self, name: &str, request: &Request) -> Result<Option<Answer>, Failure> {
        let refuse = |text: String| Err(Cause::invalid(text).into());
        let operation = &request.operation;
        if operation.is_empty() {
            return refuse("operation field is missing from request".to_owned());
        }
        let binding = self.bindings.get(name);
        let output = binding.as_ref().and_then(|binding| binding.output());
        let (Some(binding), Some(output)) = (&binding, output) else {
            return refuse(format!("couldn't find output binding {name}"));
        };
        let operations = output.operations();
        if !operations.contains(&operation.as_str()) {
            return refuse(format!(
                "binding {name} does not support operation {operation}. supported operations:{}",
                operations.join(" ")
            ));
        }
        let started = Instant::now();
        let invoked = binding.invoke(output, request).await;
        let (success, took) = (invoked.is_ok(), started.elapsed());
        binding.metrics.invoked(operation, success, took);
        invoked
    }
}

/// All baggage of a request as one text; none where there is none.
pub fn baggage(headers: &HeaderMap) -> crate::blocks::error::Result<Option<String>> {
    let values: Vec<_> = headers
        .get_all(BAGGAGE)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let text = values.join(",");
    if text.is_empty() {
        return Ok(None);
    }
    baggage::check(text.as_bytes()).map_err(|cause| malformed(cause.to_string()))?;
    Ok(Some(text))
}

impl Binding {
    fn output(&self) -> Option<&dyn Output> {
        self.instance.direct().output.as_deref()
    }

    /// Invokes an operation under the policies of the binding.
    async fn invoke(
        &self,
        output: &dyn Output,
        request: &Request,
    ) -> Result<Option<Answer>, Failure> {
        let Some(policy) = self.instance.policy() else {
            return output.invoke(request).await;
        };
        let running = policy.run(|_| async { output.invoke(request).await.map_err(Failed) });
        Box::pin(running).await.map_err(|error| match error {
            Unserved::Failed(Failed(failure)) => failure,
            refused => Cause::unavailable(refused.to_string()).into(),
        })
    }
}

/// A failure as policies see it.
struct Failed(Failure);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl outrider_resiliency::Failure for Failed {
    fn is_among(&self, codes: &Matching) -> bool {
        is_among(&self.0.cause, codes)
    }

    fn is_permanent(&self) -> bool {
        is_permanent(&self.0.cause)
    }
}
