//! Requests, one after the other on each of several connections.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The same request over and over, and the answer it must have.
#[derive(Debug, Clone)]
pub struct Shot {
    pub port: u16,
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    pub status: u16,
    /// None for one that is another every time.
    pub answer: Option<Bytes>,
}

impl Shot {
    /// Answered with 200 and no body.
    pub fn get(port: u16, path: String) -> Shot {
        Shot {
            port,
            method: Method::GET,
            path,
            headers: Vec::new(),
            body: Bytes::new(),
            status: 200,
            answer: Some(Bytes::new()),
        }
    }

    /// Answered with 200 and no body.
    pub fn post(port: u16, path: String, body: Bytes) -> Shot {
        Shot {
            method: Method::POST,
            body,
            ..Shot::get(port, path)
        }
    }
}

#[derive(Debug, Default)]
pub struct Outcome {
    /// How long each answer took.
    pub times: Vec<Duration>,
    pub elapsed: Duration,
}

impl Outcome {
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The time that this share of the answers took at most, in microseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        times
            .get(at)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    }
}

/// Fires for about `time`. A wrong answer is an error.
pub async fn fire(shot: &Shot, connections: usize, time: Duration) -> Result<Outcome> {
    let start = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..connections {
        running.spawn(connection(shot.clone(), start + time));
    }
    let mut outcome = Outcome::default();
    while let Some(times) = running.join_next().await {
        outcome.times.extend(times??);
    }
    outcome.elapsed = start.elapsed();
    Ok(outcome)
}

async fn connection(shot: Shot, deadline: Instant) -> Result<Vec<Duration>> {
    let stream = TcpStream::connect(("127.0.0.1", shot.port)).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut times = Vec::new();
    while Instant::now() < deadline {
        let mut request = Request::builder()
            .method(&shot.method)
            .uri(&shot.path)
            .header("host", "127.0.0.1")
            .header("content-type", "application/json");
        for (name, value) in &shot.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(shot.body.clone()))?;
        let sent = Instant::now();
        sender.ready().await?;
        let answer = sender
            .send_request(request)
            .await
            .with_context(|| shot.path.clone())?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        times.push(sent.elapsed());
        ensure!(
            status == shot.status && shot.answer.as_ref().is_none_or(|answer| body == answer),
            "{} answered {status}: {}",
            shot.path,
            String::from_utf8_lossy(&body)
        );
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let outcome = Outcome {
            times: (1..=100).rev().map(Duration::from_micros).collect(),
            elapsed: Duration::from_secs(1),
        };
        assert_eq!(outcome.quantile(0.0).round(), 1.0);
        assert_eq!(outcome.quantile(0.99).round(), 99.0);
        assert_eq!(outcome.quantile(1.0).round(), 100.0);
        assert!(Outcome::default().quantile(0.5).is_nan());
    }
}
