//! `bindings.localstorage`: <https://docs.dapr.io/reference/components-reference/supported-bindings/localstorage/>.

use std::path::{Component as Part, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use outrider_components::bindings::{Answer, Binding, CREATE, Failure, Output, Request};
use outrider_components::{Context, Error, Field, Metadata};
use serde_json::json;

use crate::folder::{self, Folder};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

/// Folders that belong to the kernel, to the boot loader or to Kubernetes.
const FORBIDDEN: [&str; 5] = ["/proc", "/sys", "/boot", "/var/run/secrets", "/run/secrets"];
const OPERATIONS: [&str; 4] = [CREATE, "get", "list", "delete"];
/// The name of a file, in the metadata of a request.
const FILE_NAME: &str = "fileName";

outrider_components::fields! {
    struct Fields {
        /// The folder of the files. Requests name a file in the metadata
        /// `fileName`, and reach none outside the folder. A file that is
        /// read has at most 100 MiB.
        "rootPath" => root: String,
            missing "failed to parse metadata: property rootPath must not be empty";
    }
}

struct LocalStorage {
    root: Arc<Folder>,
}

/// Makes the folder where it is missing.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<Binding>, Error> {
    let Fields { root } = Fields::read(&metadata)?;
    let root = tokio::task::spawn_blocking(move || -> Result<Folder, Error> {
        let root = checked(&root)
            .map_err(|cause| Error::invalid(format!("failed to parse metadata: {cause}")))?;
        Folder::create(root.clone()).map_err(|error| {
            Error::invalid(format!(
                "unable to create directory specified by 'rootPath' {}: {error}",
                root.display()
            ))
        })
    });
    let root = root.await.map_err(|e| Error::internal(e.to_string()))??;
    let root = Arc::new(root);
    Ok(Binding::of_output(&metadata, LocalStorage { root }))
}

/// The absolute path of a folder that exists or is to be made, without links.
fn checked(given: &str) -> Result<PathBuf, String> {
    let given = std::path::absolute(given)
        .map_err(|error| format!("failed to obtain current working directory: {error}"))?;
    let mut path = PathBuf::new();
    for part in given.components() {
        match part {
            Part::ParentDir => drop(path.pop()),
            part => path.push(part),
        }
    }
    let mut missing = Vec::new();
    let mut there = path.as_path();
    let resolved = loop {
        match there.canonicalize() {
            Ok(resolved) if resolved.is_dir() => break resolved,
            Ok(_) => {
                return Err("property rootPath represents a file and not a directory".to_owned());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(format!(
                    "error getting stat for path {}: {error}",
                    there.display()
                ));
            }
        }
        let (Some(name), Some(parent)) = (there.file_name(), there.parent()) else {
            return Err("property rootPath has no folder that exists".to_owned());
        };
        missing.push(name);
        there = parent;
    };
    let path: PathBuf = std::iter::once(resolved.as_os_str())
        .chain(missing.into_iter().rev())
        .collect();
    if FORBIDDEN.iter().any(|folder| path.starts_with(folder)) {
        return Err("property rootPath points to a disallowed location".to_owned());
    }
    Ok(path)
}

#[async_trait]
impl Output for LocalStorage {
    fn operations(&self) -> Vec<&str> {
        OPERATIONS.to_vec()
    }

    async fn invoke(&self, request: &Request) -> Result<Option<Answer>, Failure> {
        let mut name = request.metadata.get(FILE_NAME).cloned().unwrap_or_default();
        if name.is_empty() && request.operation == CREATE {
            name = uuid::Uuid::new_v4().to_string();
        }
        let root = self.root.clone();
        let (operation, data) = (request.operation.clone(), request.data.clone());
        let work = move || run(&root, &operation, &name, data);
        let ended = tokio::task::spawn_blocking(work).await;
        Ok(ended.map_err(|error| Error::internal(error.to_string()))??)
    }
}

fn run(root: &Folder, operation: &str, name: &str, data: Bytes) -> Result<Option<Answer>, Error> {
    let inside = folder::inside(name).ok_or_else(|| {
        Error::invalid(format!(
            "error getting absolute path for file {name}: it has a null character"
        ))
    })?;
    let shown = root.path().join(&inside);
    let shown = shown.display();
    match operation {
        CREATE => {
            root.write(&inside, &decoded(data))
                .map_err(|error| of_io(format!("error creating file {shown}"), &error))?;
            let answer = json!({"fileName": text(&inside)}).to_string();
            Ok(Some(Answer::of_data(answer)))
        }
        "get" => match root.read(&inside) {
            Ok(data) => Ok(Some(Answer::of_data(data))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::not_found(format!("file not found: {shown}")))
            }
            Err(error) => Err(of_io(format!("error reading file {shown}"), &error)),
        },
        "delete" => {
            root.remove(&inside)
                .map_err(|error| of_io(format!("error deleting file {shown}"), &error))?;
            Ok(None)
        }
        "list" => {
            let files = root.list(&inside).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotADirectory => Error::invalid(format!(
                    "unable to list files as the file specified is not a directory: {shown}"
                )),
                _ => of_io(format!("error getting stats for path {shown}"), &error),
            })?;
            let files: Vec<String> = files.iter().map(|file| text(file)).collect();
            // An empty folder is a null list, as clients know it.
            let answer = match files.is_empty() {
                true => "null".to_owned(),
                false => json!(files).to_string(),
            };
            Ok(Some(Answer::of_data(answer)))
        }
        other => Err(Error::unsupported(format!("unsupported operation {other}"))),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn of_io(what: String, error: &std::io::Error) -> Error {
    use outrider_components::Kind;
    use std::io::ErrorKind as Io;
    let (kind, reason) = match error.kind() {
        Io::NotFound => (Kind::NotFound, "no such file or directory".to_owned()),
        Io::PermissionDenied => (Kind::Denied, "permission denied".to_owned()),
        Io::IsADirectory => (Kind::Invalid, "is a directory".to_owned()),
        Io::NotADirectory
        | Io::InvalidFilename
        | Io::InvalidInput
        | Io::DirectoryNotEmpty
        | Io::FileTooLarge => (Kind::Invalid, error.to_string()),
        _ => (Kind::Internal, error.to_string()),
    };
    Error::new(kind, format!("{what}: {reason}"))
}

/// What is written: of a JSON text what it says, and of that, where it is
/// base64, the bytes it stands for.
fn decoded(data: Bytes) -> Bytes {
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let data = match serde_json::from_slice::<String>(&data) {
        Ok(text) => Bytes::from(text),
        Err(_) => data,
    };
    let without_breaks: Vec<u8> = data
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    match BASE64.decode(without_breaks) {
        Ok(bytes) => Bytes::from(bytes),
        Err(_) => data,
    }
}

#[cfg(test)]
mod tests {
    use outrider_components::Pairs;

    use super::*;

    async fn storage(root: &Path) -> Arc<Binding> {
        let root = root.to_str().expect("the path is text");
        let metadata = Metadata::new("files", [("rootPath", root)]);
        let connected = connect(metadata, Context::default()).await;
        connected.expect("is valid")
    }

    async fn invoke(binding: &Binding, operation: &str, name: &str, data: &str) -> String {
        let request = Request {
            operation: operation.to_owned(),
            data: Bytes::from(data.to_owned()),
            metadata: Pairs::from([(FILE_NAME.to_owned(), name.to_owned())]),
        };
        let output = binding.output.as_ref().expect("is an output");
        match output.invoke(&request).await {
            Ok(None) => "nothing".to_owned(),
            Ok(Some(answer)) => String::from_utf8_lossy(&answer.data).into_owned(),
            Err(failure) => failure.to_string(),
        }
    }

    #[tokio::test]
    async fn files_are_written_read_listed_and_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("made/by/the/binding");
        let files = storage(&root).await;
        assert_eq!(invoke(&files, "list", "", "").await, "null");
        let written = invoke(&files, CREATE, "/a/./b.txt", r#""hello""#).await;
        assert_eq!(written, r#"{"fileName":"a/b.txt"}"#);
        assert_eq!(invoke(&files, "get", "a/b.txt", "").await, "hello");
        let generated = invoke(&files, CREATE, "", "{}").await;
        assert_eq!(generated.len(), r#"{"fileName":""}"#.len() + 36);
        let listed: Vec<String> =
            serde_json::from_str(&invoke(&files, "list", "", "").await).expect("a list");
        assert_eq!(listed.len(), 2);
        let b = root.join("a/b.txt");
        assert_eq!(
            invoke(&files, "list", "a", "").await,
            json!([b.to_str()]).to_string()
        );
        assert_eq!(
            invoke(&files, "list", "a/b.txt", "").await,
            format!(
                "unable to list files as the file specified is not a directory: {}",
                b.display()
            )
        );
        assert_eq!(invoke(&files, "delete", "a/b.txt", "").await, "nothing");
        assert_eq!(
            invoke(&files, "get", "a/b.txt", "").await,
            format!("file not found: {}", b.display())
        );
        assert_eq!(
            invoke(&files, "delete", "a/b.txt", "").await,
            format!(
                "error deleting file {}: no such file or directory",
                b.display()
            )
        );
    }

    #[test]
    fn base64_and_json_texts_are_decoded() {
        for (data, written) in [
            (r#""data1""#, "data1"),
            (r#""aGVsbG8=""#, "hello"),
            ("aGVs\r\nbG8=", "hello"),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("plain", "plain"),
            (r#""""#, ""),
        ] {
            assert_eq!(decoded(Bytes::from(data)), written, "{data}");
        }
    }

    #[tokio::test]
    async fn folders_of_the_system_are_refused() {
        let error = async |root: &str| {
            let metadata = Metadata::new("files", [("rootPath", root)]);
            let connected = connect(metadata, Context::default()).await;
            connected.err().expect("is refused").to_string()
        };
        for root in ["/proc/x", "/tmp/../sys", "/boot", "/run/secrets/x"] {
            assert_eq!(
                error(root).await,
                "failed to parse metadata: property rootPath points to a disallowed location",
                "{root}"
            );
        }
        assert_eq!(
            error("").await,
            "failed to parse metadata: property rootPath must not be empty"
        );
        assert_eq!(
            error("/dev/null").await,
            "failed to parse metadata: property rootPath represents a file and not a directory"
        );
    }
}
