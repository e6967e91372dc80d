//! The first calls the application of the second, over mTLS.

use anyhow::{Result, ensure};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, Method};
use outrider_harness::{Daprd, HttpApp, Sentry, invocation};
use outrider_proto::runtime::v1::InvokeServiceRequest;

use crate::programs::Side;
use crate::report::Report;

/// More than one frame, and more than a window.
const LARGE: usize = 3 << 20;

struct Pair {
    caller: Daprd,
    called: Daprd,
    app: HttpApp,
    _sentry: Sentry,
}

impl Pair {
    async fn start(first: &Side, second: &Side) -> Result<Self> {
        let caller = |headers: HeaderMap| {
            let id = headers.get("dapr-caller-app-id");
            id.and_then(|id| id.to_str().ok())
                .unwrap_or("nobody")
                .to_owned()
        };
        let routes = Router::new()
            .route("/who", get(async move |headers: HeaderMap| caller(headers)))
            .route("/echo", post(async |body: Bytes| body))
            .layer(DefaultBodyLimit::disable());
        let app = HttpApp::start(routes).await?;
        let sentry = Sentry::start().await?;
        let sidecar = |side: &Side, id: &str| side.sidecar(id).mdns().sentry(&sentry);
        // The network remembers the names of sidecars that have ended.
        let called_id = format!("called-by-{}", first.name().to_lowercase());
        let called = sidecar(second, &called_id)?.app(&app).start().await?;
        let caller = sidecar(first, "caller")?.start().await?;
        Ok(Self {
            caller,
            called,
            app,
            _sentry: sentry,
        })
    }

    fn method(&self, name: &str) -> String {
        format!("/v1.0/invoke/{}/method/{name}", self.called.app_id())
    }

    async fn http(&self) -> Result<()> {
        let answer = self.caller.http().get(&self.method("who")).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        ensure!(answer.text() == "caller", "the caller is {}", answer.text());
        Ok(())
    }

    async fn grpc(&self) -> Result<()> {
        let request = InvokeServiceRequest {
            id: self.called.app_id().to_owned(),
            message: Some(invocation("who")),
        };
        let answer = self.caller.grpc().await?.invoke_service(request).await?;
        let data = answer.into_inner().data.unwrap_or_default();
        ensure!(data.value == b"caller"[..], "{:?}", data.value);
        Ok(())
    }

    async fn large(&self) -> Result<()> {
        let body: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
        let path = self.method("echo");
        let answer = self
            .caller
            .http()
            .request(Method::POST, &path, body.clone())
            .await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        ensure!(answer.body == body, "{} bytes came back", answer.body.len());
        Ok(())
    }

    async fn missing(&self) -> Result<()> {
        let answer = self.caller.http().get(&self.method("nothing")).await?;
        ensure!(answer.status == 404, "{}", answer.status);
        ensure!(
            self.app.seen().iter().any(|seen| seen.target == "/nothing"),
            "was not asked"
        );
        Ok(())
    }
}

pub async fn all(report: &mut Report, first: &Side, second: &Side) {
    let pair = match Pair::start(first, second).await {
        Ok(pair) => pair,
        Err(error) => {
            let failed = async { Err(error) };
            return report.check("invoke, start", first, second, failed).await;
        }
    };
    report
        .check("invoke over HTTP", first, second, pair.http())
        .await;
    report
        .check("invoke over gRPC", first, second, pair.grpc())
        .await;
    report
        .check(
            "invoke with 3 MiB there and back",
            first,
            second,
            pair.large(),
        )
        .await;
    report
        .check("invoke what is not there", first, second, pair.missing())
        .await;
}
