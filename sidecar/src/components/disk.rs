//! Resource files of a sidecar outside Kubernetes.

use std::path::{Path, PathBuf};

use outrider_crds::{Component, HttpEndpoint, Kind, Resiliency, Subscription, yaml};
use serde_json::Value;

/// What the folders hold, in the order of folders, files and documents.
#[derive(Debug, Default)]
pub struct Resources {
    pub components: Vec<Component>,
    pub http_endpoints: Vec<HttpEndpoint>,
    pub subscriptions: Vec<Subscription>,
    pub resiliencies: Vec<Resiliency>,
}

/// Whose resources are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a> {
    pub app_id: &'a str,
    /// None loads resources of every namespace.
    pub namespace: Option<&'a str>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open {path}: {cause}")]
    Folder { path: String, cause: std::io::Error },
    #[error("{0}")]
    Duplicates(String),
}

/// Reads every folder. A broken document is logged and left out; two resources
/// of one kind and name that both are for this application are an error.
pub fn load(folders: &[PathBuf], filter: Filter<'_>) -> Result<Resources, Error> {
    let mut documents = Vec::new();
    for folder in folders {
        for path in files(folder)? {
            documents.extend(
                read(&path)
                    .into_iter()
                    .map(|document| (path.clone(), document)),
            );
        }
    }
    let mut duplicates = Vec::new();
    let resources = Resources {
        components: select(&documents, filter, &mut duplicates, Component::log_name),
        http_endpoints: select(&documents, filter, &mut duplicates, |e: &HttpEndpoint| {
            e.metadata.name.clone()
        }),
        subscriptions: select(&documents, filter, &mut duplicates, |s: &Subscription| {
            s.metadata.name.clone()
        }),
        resiliencies: resiliencies(&documents, filter),
    };
    if duplicates.is_empty() {
        Ok(resources)
    } else {
        Err(Error::Duplicates(duplicates.join("\n")))
    }
}

/// YAML files, by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |cause| Error::Folder {
        path: folder.display().to_string(),
        cause,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        if (extension == "yaml" || extension == "yml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Vec<Value> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            warn("resource", path, &error);
            return Vec::new();
        }
    };
    let mut documents = Vec::new();
    for document in yaml::documents(&text) {
        match document {
            Ok(document) => documents.push(document),
            Err(error) => warn("resource", path, &error),
        }
    }
    documents
}

fn warn(kind: &str, path: &Path, error: &dyn std::fmt::Display) {
    tracing::warn!(target: "dapr.runtime.loader.disk", "daprd load {kind} error when parsing manifests yaml resource in {}: {error}", path.display());
}

fn select<K: Kind>(
    documents: &[(PathBuf, Value)],
    filter: Filter<'_>,
    duplicates: &mut Vec<String>,
    log_name: impl Fn(&K) -> String,
) -> Vec<K> {
    let mut selected: Vec<K> = Vec::new();
    for (path, document) in documents {
        let resource = match K::from_document(document) {
            None => continue,
            Some(Err(error)) => {
                warn(K::KIND, path, &error);
                continue;
            }
            Some(Ok(resource)) => resource,
        };
        let namespace = &resource.metadata().namespace;
        if filter
            .namespace
            .is_some_and(|own| !namespace.is_empty() && namespace != own)
        {
            continue;
        }
        if !resource.in_scope(filter.app_id) {
            continue;
        }
        let name = &resource.metadata().name;
        if let Some(first) = selected.iter().find(|s| s.metadata().name == *name) {
            duplicates.push(format!(
                "duplicate definition of {} name {} with existing {}",
                K::KIND,
                log_name(&resource),
                log_name(first)
            ));
            continue;
        }
        selected.push(resource);
    }
    selected
}

/// Those of every namespace; of several with one name all count, the later
/// ones more.
fn resiliencies(documents: &[(PathBuf, Value)], filter: Filter<'_>) -> Vec<Resiliency> {
    let mut selected = Vec::new();
    for (path, document) in documents {
        match Resiliency::from_document(document) {
            Some(Ok(resource)) if resource.in_scope(filter.app_id) => selected.push(resource),
            Some(Err(error)) => warn(Resiliency::KIND, path, &error),
            Some(Ok(_)) | None => {}
        }
    }
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(name: &str, kind: &str, namespace: &str, scopes: &str) -> String {
        format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}, namespace: '{namespace}'}}\nspec: {{type: {kind}, version: v1}}\nscopes: [{scopes}]\n"
        )
    }

    fn load_texts(files: &[(&str, String)], namespace: Option<&str>) -> Result<Vec<String>, Error> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let filter = Filter {
            app_id: "app",
            namespace,
        };
        load(&[folder.path().to_owned()], filter)
            .map(|r| r.components.iter().map(Component::log_name).collect())
    }

    #[test]
    fn order_scopes_and_namespaces() {
        let files = [
            ("b.yaml", component("second", "state.x", "other", "")),
            (
                "a.yml",
                format!(
                    "{}---\n{}",
                    component("first", "state.x", "", "app"),
                    component("foreign", "state.x", "", "zoo")
                ),
            ),
            ("c.json", component("ignored", "state.x", "", "")),
            ("d.yaml", "kind: [broken".to_owned()),
        ];
        assert_eq!(
            load_texts(&files, None).unwrap(),
            ["first (state.x/v1)", "second (state.x/v1)"]
        );
        assert_eq!(
            load_texts(&files, Some("mine")).unwrap(),
            ["first (state.x/v1)"]
        );
    }

    #[test]
    fn resiliency_of_any_namespace_and_twice_under_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let resource = |namespace: &str, scopes: &str| {
            format!(
                "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {{name: r, namespace: '{namespace}'}}\nspec: {{}}\nscopes: [{scopes}]\n"
            )
        };
        let text = format!(
            "{}---\n{}---\n{}",
            resource("other", ""),
            resource("", "zoo"),
            resource("mine", "app")
        );
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        let filter = Filter {
            app_id: "app",
            namespace: Some("mine"),
        };
        let loaded = load(&[folder.path().to_owned()], filter).unwrap();
        let namespaces: Vec<&str> = loaded
            .resiliencies
            .iter()
            .map(|r| r.metadata.namespace.as_str())
            .collect();
        assert_eq!(namespaces, ["other", "mine"]);
    }

    #[test]
    fn one_name_for_different_applications_is_no_duplicate() {
        let of_scope =
            |scopes: &str, name: &'static str| (name, component("abc", name, "", scopes));
        for order in [["app", "zoo"], ["zoo", "app"]] {
            let files = [
                of_scope(order[0], "state.a.yaml"),
                of_scope(order[1], "state.b.yaml"),
            ];
            assert_eq!(load_texts(&files, None).unwrap().len(), 1, "{order:?}");
        }
        let both = [of_scope("app", "a.yaml"), of_scope("", "b.yaml")];
        load_texts(&both, None).unwrap_err();

        let folder = tempfile::tempdir().unwrap();
        let document = |kind: &str, spec: &str, scope: &str| {
            format!(
                "apiVersion: dapr.io/{}\nkind: {kind}\nmetadata: {{name: abc}}\nspec: {spec}\nscopes: [{scope}]\n---\n",
                if kind == "Subscription" {
                    "v2alpha1"
                } else {
                    "v1alpha1"
                }
            )
        };
        let subscription = "{topic: t, pubsubname: p, routes: {default: /}}";
        let text = ["zoo", "app", "other"].map(|scope| {
            document("Subscription", subscription, scope)
                + &document("HTTPEndpoint", "{baseUrl: 'http://a'}", scope)
        });
        std::fs::write(folder.path().join("a.yaml"), text.concat()).unwrap();
        let filter = Filter {
            app_id: "app",
            namespace: None,
        };
        let loaded = load(&[folder.path().to_owned()], filter).unwrap();
        assert_eq!(
            (loaded.subscriptions.len(), loaded.http_endpoints.len()),
            (1, 1)
        );
    }

    #[test]
    fn every_duplicate_is_told() {
        let files = [
            ("a.yaml", component("abc", "state.in-memory", "", "")),
            (
                "b.yaml",
                format!(
                    "{}---\n{}",
                    component("abc", "pubsub.in-memory", "", ""),
                    component("abc", "state.x", "", "")
                ),
            ),
        ];
        assert_eq!(
            load_texts(&files, None).unwrap_err().to_string(),
            "duplicate definition of Component name abc (pubsub.in-memory/v1) with existing abc (state.in-memory/v1)\n\
             duplicate definition of Component name abc (state.x/v1) with existing abc (state.in-memory/v1)"
        );
    }
}
