//! Opens the listeners of the APIs.

use outrider_host::{Tasks, Workers, listen};

use super::{Failure, SCOPE, host};
use crate::flags::Flags;
use outrider_net::server::phase::Leaving;
use outrider_net::server::{Handler, Protocol, Server};

/// Opens the listeners of the APIs.
pub struct Servers<'a> {
    pub flags: &'a Flags,
    pub workers: Workers,
    pub tasks: Tasks,
    pub leaving: Leaving,
    pub sockets: Vec<std::path::PathBuf>,
}

impl Servers<'_> {
    pub fn server<H: Handler>(&self, handler: H, protocol: Protocol) -> Server<H> {
        Server {
            handler,
            protocol,
            workers: self.workers.clone(),
            tasks: self.tasks.clone(),
            leaving: self.leaving.clone(),
        }
    }

    pub async fn open<H: Handler>(
        &mut self,
        handler: H,
        protocol: Protocol,
        name: &str,
        port: u16,
    ) -> Result<(), Failure> {
        let server = self.server(handler, protocol);
        let shown = if name == "HTTP" {
            "HTTP server"
        } else {
            "API gRPC server"
        };
        if let Some(folder) = &self.flags.api.socket_folder {
            let path = folder.join(format!(
                "dapr-{}-{}.socket",
                self.flags.app_id,
                name.to_lowercase()
            ));
            let listener = host::unix_listener(&path).map_err(|e| {
                format!(
                    "failed to start {shown}: listen unix {}: {e}",
                    path.display()
                )
            })?;
            server.listen_unix(listener);
            self.sockets.push(path);
            tracing::info!(target: SCOPE, "{shown} is running on a Unix Domain Socket");
            return Ok(());
        }
        let mut addresses: Vec<&str> = self.flags.api.addresses.iter().map(|a| a.trim()).collect();
        if addresses.is_empty() {
            addresses.push("");
        }
        let listeners = futures_util::future::join_all(
            addresses
                .iter()
                .map(|address| listen::tcp_with_retries(address, port)),
        )
        .await;
        let mut open = 0;
        for (address, listener) in addresses.iter().zip(listeners) {
            match listener {
                Ok(listener) => {
                    if name == "gRPC" {
                        tracing::info!(target: "dapr.runtime.grpc.api", "gRPC server listening on TCP address: {address}:{port}");
                    }
                    server.listen(listener);
                    open += 1;
                }
                Err(error) => {
                    tracing::error!(target: SCOPE, "Failed to listen for {name} server on TCP address {address}:{port} with error: {error}");
                }
            }
        }
        if open == 0 {
            return Err(
                format!("failed to start {shown}: could not listen on any endpoint").into(),
            );
        }
        tracing::info!(target: SCOPE, "{shown} is running on port {port}");
        Ok(())
    }
}
