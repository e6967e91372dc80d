//! Profiles of the running sidecar, in the format that `pprof` reads.
//! <https://docs.dapr.io/operations/troubleshooting/profiling-debugging/>
//!
//! Without unsafe code a program cannot look at its own stacks: what is here
//! tells processor time by thread and memory by mapping.

mod cpu;
mod format;
mod memory;

use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use outrider_net::body::{self, Body};
use outrider_net::server::Handler;
use outrider_net::server::phase::Incoming;
use outrider_security::Peer;
use tokio_util::sync::CancellationToken;

use crate::blocks::http::text;
use format::Profile;

const PREFIX: &str = "/debug/pprof/";
const INDEX: &str = "profiles of this sidecar, for pprof:\n\
    profile?seconds=30  processor time by thread\n\
    heap                resident memory by mapping\n\
    cmdline             the command line\n";
/// Length of a profile, and the most that can be asked for.
const SECONDS: u64 = 30;
const MOST_SECONDS: u64 = 600;

/// The handler of the profiling listener.
#[derive(Clone)]
pub struct Pages {
    pub stopping: CancellationToken,
}

impl Handler for Pages {
    async fn call(&self, request: Request<Incoming>, _: Option<&Peer>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "profiles are read by GET\n");
        }
        let uri = request.uri();
        let Some(name) = uri.path().strip_prefix(PREFIX) else {
            let place = format!("profiles are below {PREFIX}\n");
            return text(StatusCode::NOT_FOUND, place);
        };
        match name {
            "" => text(StatusCode::OK, INDEX),
            "cmdline" => match std::fs::read("/proc/self/cmdline") {
                Ok(line) => text(StatusCode::OK, line),
                Err(error) => failed(&error),
            },
            "profile" => match seconds(uri.query()) {
                Ok(length) => self.processor(length).await,
                Err(cause) => text(StatusCode::BAD_REQUEST, cause),
            },
            "heap" => match in_background(memory::profile).await {
                Ok(profile) => answer("heap", &profile),
                Err(error) => failed(&error),
            },
            other => {
                let name = outrider_kit::quote::go(other);
                let cause = format!("this program has no profile {name}; {INDEX}");
                text(StatusCode::NOT_FOUND, cause)
            }
        }
    }
}

impl Pages {
    /// Stops early when the sidecar ends.
    async fn processor(&self, length: Duration) -> Response<Body> {
        let profiled = async {
            let before = in_background(cpu::Times::read).await?;
            let waiting = tokio::time::sleep(length);
            self.stopping.run_until_cancelled(waiting).await;
            let after = in_background(cpu::Times::read).await?;
            Ok::<_, std::io::Error>(after.since(&before))
        };
        match profiled.await {
            Ok(profile) => answer("profile", &profile),
            Err(error) => failed(&error),
        }
    }
}

async fn in_background<T: Send + 'static>(read: fn() -> std::io::Result<T>) -> std::io::Result<T> {
    tokio::task::spawn_blocking(read)
        .await
        .map_err(std::io::Error::other)?
}

fn seconds(query: Option<&str>) -> Result<Duration, String> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let seconds = match pairs.find(|(name, _)| name == "seconds") {
        None => SECONDS,
        Some((_, value)) => value
            .parse()
            .ok()
            .filter(|seconds| (1..=MOST_SECONDS).contains(seconds))
            .ok_or_else(|| format!("seconds have to be a number from 1 to {MOST_SECONDS}\n"))?,
    };
    Ok(Duration::from_secs(seconds))
}

fn answer(name: &str, profile: &Profile) -> Response<Body> {
    let mut answer = Response::new(body::full(profile.to_bytes()));
    let headers = answer.headers_mut();
    let kind = http::HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    let file = format!("attachment; filename=\"{name}\"");
    if let Ok(file) = http::HeaderValue::try_from(file) {
        headers.insert(header::CONTENT_DISPOSITION, file);
    }
    answer
}

fn failed(error: &std::io::Error) -> Response<Body> {
    let cause = format!("the profile cannot be read: {error}\n");
    text(StatusCode::INTERNAL_SERVER_ERROR, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_bounded() {
        let length = |query| seconds(query).map(|length| length.as_secs()).ok();
        assert_eq!(length(None), Some(30));
        assert_eq!(length(Some("debug=1&seconds=5")), Some(5));
        for wrong in ["seconds=0", "seconds=601", "seconds=x", "seconds=-1"] {
            assert_eq!(length(Some(wrong)), None, "{wrong}");
        }
    }
}
