//! A Redis server for the tests of what only has components on servers.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::{port, wait};

/// A running server without data.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Redis {
    /// Starts `redis-server`. Nothing if it is not installed; in CI that fails.
    pub async fn start() -> Result<Option<Redis>> {
        Redis::at(port::free()).await
    }

    /// The same at a port that was chosen before.
    pub async fn at(port: u16) -> Result<Option<Redis>> {
        let is_there = Command::new("redis-server").arg("--version").output();
        if is_there.is_err() {
            if std::env::var_os("CI").is_some_and(|value| value == "true") {
                bail!("redis-server is missing: apt-get install -y redis-server");
            }
            eprintln!(
                "SKIPPED: redis-server is missing, apt-get install -y redis-server brings it"
            );
            return Ok(None);
        }
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("redis-server");
        command.current_dir(folder.path()).args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let redis = Redis {
            port,
            _process: Process::start("redis", &mut command)?,
            _folder: folder,
        };
        wait::until("redis answers", || async {
            let answer = redis.command(&["PING"]).await.ok()?;
            (answer == "PONG").then_some(())
        })
        .await?;
        Ok(Some(redis))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A component of a type on this server.
    pub fn component(&self, name: &str, kind: &str, more: &str) -> String {
        format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{type: {kind}, version: v1, metadata: [{{name: redisHost, value: '127.0.0.1:{}'}}{more}]}}\n",
            self.port
        )
    }

    /// Runs a command whose answer is a line, a number or one text.
    pub async fn command(&self, words: &[&str]) -> Result<String> {
        let running = async {
            let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await?;
            let mut request = format!("*{}\r\n", words.len());
            for word in words {
                request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
            }
            socket.write_all(request.as_bytes()).await?;
            let mut answer = BufReader::new(socket);
            let mut line = String::new();
            answer.read_line(&mut line).await?;
            let line = line.trim_end();
            let (kind, rest) = line.split_at_checked(1).context("an empty answer")?;
            match kind {
                "+" | ":" => Ok(rest.to_owned()),
                "$" => {
                    let length: i64 = rest.parse()?;
                    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
                    answer.read_exact(&mut text).await?;
                    Ok(String::from_utf8(text)?)
                }
                _ => bail!("redis answers {line}"),
            }
        };
        tokio::time::timeout(Duration::from_secs(10), running)
            .await
            .context("redis does not answer")?
    }
}
