//! Finds the sockets of pluggable components, and asks their programs what they
//! serve.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, future, stream};
use outrider_components::Registry;
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1alpha::{ListServiceResponse, ServerReflectionRequest};

use crate::{bindings, connection, error, pubsub, secrets, state};

const SCOPE: &str = "pluggable-components-discovery";
const PACKAGE: &str = "dapr.proto.components.v1.";
/// How long a program may take to list its services. The sidecar starts without
/// those that take longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A program behind a socket.
struct Program {
    name: String,
    socket: Arc<Path>,
    services: Vec<String>,
}

/// Adds the components of the programs behind the sockets of `folder`, if it
/// exists. A program that does not answer is left out and logged. Components get
/// the application's data and credentials: unless `any_user` is set, sockets and
/// folders that another user but root could have made are left out too.
pub async fn register(registry: &mut Registry, folder: &Path, any_user: bool) {
    let own = (!any_user).then(|| rustix::process::geteuid().as_raw());
    let sockets = match sockets(folder, own) {
        Ok(sockets) => sockets,
        Err(error) => {
            let folder = folder.display();
            tracing::error!(target: SCOPE, "could not initialize pluggable components: {folder} cannot be used: {error}");
            return;
        }
    };
    for asked in future::join_all(sockets.into_iter().map(ask)).await {
        match asked {
            Ok(program) => program.register(registry),
            Err(cause) => {
                tracing::error!(target: SCOPE, "could not initialize pluggable components: {cause}");
            }
        }
    }
}

/// Sorted by name. With `own` only those of that user and of root.
fn sockets(folder: &Path, own: Option<u32>) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    check_folder(&std::fs::metadata(folder)?, own)?;
    let mut sockets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        match is_usable(&path, own) {
            Ok(true) => sockets.push(path),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(target: SCOPE, "the pluggable component {} is not used: {error}", path.display());
            }
        }
    }
    sockets.sort();
    Ok(sockets)
}

/// Whether it is a socket. Symbolic links are not followed: they could lead to
/// sockets that are not meant for the sidecar.
fn is_usable(path: &Path, own: Option<u32>) -> io::Result<bool> {
    let metadata = std::fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    if kind.is_socket() {
        check_owner(&metadata, own)?;
    } else if !kind.is_dir() {
        tracing::warn!(target: SCOPE, "could not use socket for file {}", path.display());
    }
    Ok(kind.is_socket())
}

const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// With the sticky bit other users can add files, which then belong to them, but
/// cannot replace any.
fn check_folder(folder: &Metadata, own: Option<u32>) -> io::Result<()> {
    check_owner(folder, own)?;
    if own.is_some() && folder.mode() & (STICKY | WRITABLE_BY_OTHERS) == WRITABLE_BY_OTHERS {
        return Err(io::Error::other(
            "every user may replace files in it: run chmod o-w on it",
        ));
    }
    Ok(())
}

fn check_owner(file: &Metadata, own: Option<u32>) -> io::Result<()> {
    match own {
        Some(own) if file.uid() != own && file.uid() != 0 => Err(io::Error::other(format!(
            "it belongs to user {}, neither to the sidecar's user {own} nor to root: start the component as the sidecar's user",
            file.uid()
        ))),
        _ => Ok(()),
    }
}

async fn ask(socket: PathBuf) -> Result<Program, String> {
    let shown = socket.display();
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, services(&socket)).await;
    let services = match asked {
        Ok(Ok(services)) => services,
        Ok(Err(cause)) => return Err(format!("unable to list services of {shown}: {cause}")),
        Err(_) => {
            let limit = ANSWER_TIMEOUT.as_secs();
            return Err(format!(
                "nobody answers on {shown} within {limit}s: start the component before the sidecar, or remove the file"
            ));
        }
    };
    let name = socket.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Program {
        name: name.into_owned(),
        socket: socket.as_path().into(),
        services,
    })
}

/// Asks by server reflection:
/// <https://github.com/grpc/grpc/blob/master/doc/server-reflection.md>.
async fn services(socket: &Path) -> Result<Vec<String>, String> {
    let mut client = ServerReflectionClient::new(connection::channel(socket).await);
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

impl Program {
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
        let optional = state::OptionalServices {
            queries: serves("QueriableStateStore"),
            max_size: serves("TransactionalStoreMultiMaxSize"),
        };
        let both = bindings::Services {
            input: serves("InputBinding"),
            output: serves("OutputBinding"),
        };
        let mut binding = None;
        for service in &services {
            let Some(block) = service.strip_prefix(PACKAGE) else {
                continue;
            };
            let socket = socket.clone();
            let added = match block {
                "StateStore" => registry.state.add_discovered(
                    &name,
                    Arc::new(move |metadata, _| {
                        Box::pin(state::connect(socket.clone(), optional, metadata))
                    }),
                ),
                "PubSub" => registry.pubsub.add_discovered(
                    &name,
                    Arc::new(move |metadata, _| {
                        Box::pin(pubsub::connect(socket.clone(), metadata))
                    }),
                ),
                "SecretStore" => registry.secrets.add_discovered(
                    &name,
                    Arc::new(move |metadata, _| {
                        Box::pin(secrets::connect(socket.clone(), metadata))
                    }),
                ),
                // One component has both sides.
                "InputBinding" | "OutputBinding" => *binding.get_or_insert_with(|| {
                    registry.bindings.add_discovered(
                        &name,
                        Arc::new(move |metadata, _| {
                            Box::pin(bindings::connect(socket.clone(), both, metadata))
                        }),
                    )
                }),
                _ => continue,
            };
            if !added {
                tracing::warn!(target: SCOPE, "pluggable component '{name}' is not used for '{service}': a component of that name is built in, give the socket another name");
                continue;
            }
            tracing::info!(target: SCOPE, "pluggable component '{name}' was successfully registered for '{service}'");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use outrider_components::{Error, Row, Status, Tested, Versions};

    use super::*;

    #[test]
    fn only_sockets_are_listed_by_name() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(sockets(&folder.path().join("none"), None).unwrap().len(), 0);
        std::fs::create_dir(folder.path().join("a.sock")).unwrap();
        std::fs::write(folder.path().join("b.sock"), "").unwrap();
        for name in ["d.sock", "c"] {
            UnixListener::bind(folder.path().join(name)).unwrap();
        }
        let names: Vec<_> = sockets(folder.path(), None)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["c", "d.sock"]);
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        UnixListener::bind(target.path().join("a")).unwrap();
        let link = |name: &str, target: PathBuf| {
            std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        };
        link("linked.sock", target.path().join("a"));
        link("dangling.sock", target.path().join("nowhere"));
        let own_socket = folder.path().join("own.sock");
        UnixListener::bind(&own_socket).unwrap();
        let own = std::fs::metadata(folder.path()).unwrap().uid();
        for own in [Some(own), None] {
            let found = sockets(folder.path(), own).unwrap();
            assert_eq!(found, std::slice::from_ref(&own_socket));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_without_a_program_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        drop(UnixListener::bind(folder.path().join("stale.sock")).unwrap());
        let mut registry = Registry::new();
        let start = tokio::time::Instant::now();
        register(&mut registry, folder.path(), false).await;
        assert_eq!(start.elapsed(), ANSWER_TIMEOUT);
        assert!(registry.state.find("state.stale", "v1").is_err());
    }

    #[test]
    fn sockets_of_other_users_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::fs::metadata(folder.path()).unwrap().uid();
        UnixListener::bind(folder.path().join("a.sock")).unwrap();
        let found = |own| sockets(folder.path(), own).map(|all| all.len());
        let allow = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder.path(), permissions).unwrap();
        };
        assert_eq!(found(Some(own)).unwrap(), 1);
        allow(0o777);
        assert!(found(Some(own)).is_err());
        assert_eq!(found(None).unwrap(), 1);
        allow(0o1777);
        assert_eq!(found(Some(own)).unwrap(), 1);
        // Files of root are trusted by everyone.
        if own != 0 {
            assert!(found(Some(own + 1)).is_err());
        }
    }

    #[test]
    fn a_compiled_in_component_is_not_replaced() {
        let vault = Row {
            names: &["vault"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Unit("this test"),
            fields: &[],
            file: "nowhere",
        };
        let mut registry = Registry::new();
        registry
            .secrets
            .register(vault, |_, _| async { Err(Error::internal("built in")) })
            .unwrap();
        let program = |name: &str| Program {
            name: name.to_owned(),
            socket: Path::new("/nowhere").into(),
            services: vec![format!("{PACKAGE}SecretStore")],
        };
        program("vault").register(&mut registry);
        program("other").register(&mut registry);
        assert!(!registry.secrets.add_discovered(
            "Vault",
            Arc::new(|_, _| Box::pin(async { Err(Error::internal("discovered")) }))
        ));
        assert!(registry.secrets.find("secretstores.other", "v1").is_ok());
    }
}
