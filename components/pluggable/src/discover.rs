//! Which sockets there are, and what their programs serve.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, future, stream};
use outrider_components::Registry;
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1alpha::{ListServiceResponse, ServerReflectionRequest};

use crate::{error, link, pubsub, secrets, state};

const SCOPE: &str = "pluggable-components-discovery";
const PACKAGE: &str = "dapr.proto.components.v1.";
/// How long a program may take to say what it serves. The sidecar starts
/// without those that take longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program behind a socket.
struct Found {
    name: String,
    socket: Arc<Path>,
    services: Vec<String>,
}

/// Adds what the programs behind the sockets of `folder` serve. They take the
/// place of components of the same type that are compiled in. A folder that is
/// not there has no sockets; a program that does not answer is left out, and
/// the log says so.
pub async fn register(registry: &mut Registry, folder: &Path) {
    let sockets = match sockets(folder) {
        Ok(sockets) => sockets,
        Err(error) => {
            let folder = folder.display();
            tracing::error!(target: SCOPE, "could not initialize pluggable components: {folder} cannot be read: {error}");
            return;
        }
    };
    for asked in future::join_all(sockets.into_iter().map(ask)).await {
        match asked {
            Ok(found) => found.register(registry),
            Err(cause) => {
                tracing::error!(target: SCOPE, "could not initialize pluggable components: {cause}");
            }
        }
    }
}

/// In the order of their names.
fn sockets(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut sockets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let kind = std::fs::metadata(&path)?.file_type();
        if kind.is_socket() {
            sockets.push(path);
        } else if !kind.is_dir() {
            tracing::warn!(target: SCOPE, "could not use socket for file {}", path.display());
        }
    }
    sockets.sort();
    Ok(sockets)
}

async fn ask(socket: PathBuf) -> Result<Found, String> {
    let shown = socket.display();
    let asked = tokio::time::timeout(PATIENCE, services(&socket)).await;
    let services = match asked {
        Ok(Ok(services)) => services,
        Ok(Err(cause)) => return Err(format!("unable to list services of {shown}: {cause}")),
        Err(_) => {
            let limit = PATIENCE.as_secs();
            return Err(format!(
                "nobody answers on {shown} within {limit}s: start the component before the sidecar, or remove the file"
            ));
        }
    };
    let name = socket.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Found {
        name: name.into_owned(),
        socket: socket.as_path().into(),
        services,
    })
}

/// Asks by server reflection:
/// <https://github.com/grpc/grpc/blob/master/doc/server-reflection.md>.
async fn services(socket: &Path) -> Result<Vec<String>, String> {
    let mut client = ServerReflectionClient::new(link::channel(socket).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asking = stream::once(future::ready(request));
    let mut answers = client
        .server_reflection_info(asking)
        .await
        .map_err(|status| error::text(&status))?
        .into_inner();
    let answer = answers.next().await.ok_or("no answer")?;
    match answer.map_err(|s| error::text(&s))?.message_response {
        Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })) => {
            Ok(service.into_iter().map(|s| s.name).collect())
        }
        Some(MessageResponse::ErrorResponse(error)) => Err(error.error_message),
        _ => Err("the answer is to another question".to_owned()),
    }
}

impl Found {
    fn register(self, registry: &mut Registry) {
        let Self {
            name,
            socket,
            services,
        } = self;
        let serves = |service: &str| {
            services
                .iter()
                .any(|s| s.strip_prefix(PACKAGE) == Some(service))
        };
        let offers = state::Offers {
            queries: serves("QueriableStateStore"),
            limit: serves("TransactionalStoreMultiMaxSize"),
        };
        for service in &services {
            let Some(block) = service.strip_prefix(PACKAGE) else {
                continue;
            };
            let socket = socket.clone();
            match block {
                "StateStore" => registry.state.replace(
                    &name,
                    Arc::new(move |metadata, _| {
                        Box::pin(state::connect(socket.clone(), offers, metadata))
                    }),
                ),
                "PubSub" => registry.pubsub.replace(
                    &name,
                    Arc::new(move |metadata, _| {
                        Box::pin(pubsub::connect(socket.clone(), metadata))
                    }),
                ),
                "SecretStore" => registry.secrets.replace(
                    &name,
                    Arc::new(move |metadata, _| {
                        Box::pin(secrets::connect(socket.clone(), metadata))
                    }),
                ),
                "InputBinding" | "OutputBinding" => {
                    tracing::warn!(target: SCOPE, "pluggable component '{name}' serves '{service}', which is left out: this release of Outrider has no bindings");
                    continue;
                }
                _ => continue,
            }
            tracing::info!(target: SCOPE, "pluggable component '{name}' was successfully registered for '{service}'");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_sockets_count() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(sockets(&folder.path().join("none")).unwrap().len(), 0);
        std::fs::create_dir(folder.path().join("a.sock")).unwrap();
        std::fs::write(folder.path().join("b.sock"), "").unwrap();
        for name in ["d.sock", "c"] {
            UnixListener::bind(folder.path().join(name)).unwrap();
        }
        let names: Vec<_> = sockets(folder.path())
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["c", "d.sock"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_nobody_listens_on_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        drop(UnixListener::bind(folder.path().join("stale.sock")).unwrap());
        let mut registry = Registry::new();
        let start = tokio::time::Instant::now();
        register(&mut registry, folder.path()).await;
        assert_eq!(start.elapsed(), PATIENCE);
        assert!(registry.state.find("state.stale", "v1").is_err());
    }
}
