//! From files to resources.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use outrider_crds::{
    Component, Configuration, GROUP, HttpEndpoint, Kind, McpServer, Resiliency, Subscription,
    WorkflowAccessPolicy, yaml,
};
use serde_json::Value;

use crate::resources::Resources;

const SCOPE: &str = "dapr.runtime.loader.disk";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open {path}: {cause}")]
    Folder { path: String, cause: std::io::Error },
    #[error("{0}")]
    Duplicates(String),
}

/// The folders of resource files, and what was last read from them.
#[derive(Clone)]
pub struct Folders {
    paths: Vec<PathBuf>,
    app_id: String,
    /// None loads resources of every namespace.
    namespace: Option<String>,
    seen: Arc<Mutex<BTreeMap<PathBuf, File>>>,
}

impl Folders {
    pub fn new(paths: Vec<PathBuf>, app_id: String, namespace: Option<String>) -> Self {
        Self {
            paths,
            app_id,
            namespace,
            seen: Arc::default(),
        }
    }

    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The next load is as the first one.
    pub fn forget(&self) {
        self.seen().clear();
    }

    /// Reads every folder; resources are in the order of folders, files and
    /// documents. A broken document is logged, once for each change,
    /// and left out; what was read before from a file that is broken or half
    /// written now stays. Two resources of one kind and name that both are for
    /// this application are an error.
    pub fn load(&self) -> Result<Resources, Error> {
        let mut read = Vec::new();
        for folder in &self.paths {
            for path in files(folder)? {
                let Some(mut file) = File::read(&path) else {
                    continue;
                };
                let seen = self.seen();
                let before = seen.get(&path);
                let kept = before.map_or(0, |before| file.keep(before));
                if before.is_none_or(|before| before.faults != file.faults) {
                    file.warn(&path, kept);
                }
                let is_known = |c: &&Value| before.is_some_and(|b| b.configurations.contains(c));
                for new in file.configurations.iter().filter(|c| !is_known(c)) {
                    not_from_here(new, &path);
                }
                drop(seen);
                read.push((path, file));
            }
        }
        let documents = read.iter().flat_map(|(_, file)| &file.documents);
        let documents: Vec<&Value> = documents.map(|(_, document)| document).collect();
        let mut duplicates = Vec::new();
        let resources = Resources {
            components: self.select(&documents, &mut duplicates, Component::log_name),
            http_endpoints: self.select(&documents, &mut duplicates, |e: &HttpEndpoint| {
                e.metadata.name.clone()
            }),
            subscriptions: self.select(&documents, &mut duplicates, |s: &Subscription| {
                s.metadata.name.clone()
            }),
            resiliencies: self.resiliencies(&documents),
        };
        if !duplicates.is_empty() {
            return Err(Error::Duplicates(duplicates.join("\n")));
        }
        *self.seen() = read.into_iter().collect();
        Ok(resources)
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<PathBuf, File>> {
        self.seen.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn select<K: Kind>(
        &self,
        documents: &[&Value],
        duplicates: &mut Vec<String>,
        log_name: impl Fn(&K) -> String,
    ) -> Vec<K> {
        let mut selected: Vec<K> = Vec::new();
        for resource in documents.iter().filter_map(|d| K::from_document(d)?.ok()) {
            let namespace = &resource.metadata().namespace;
            let own = self.namespace.as_ref();
            if own.is_some_and(|own| !namespace.is_empty() && namespace != own) {
                continue;
            }
            if !resource.in_scope(&self.app_id) {
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
    fn resiliencies(&self, documents: &[&Value]) -> Vec<Resiliency> {
        let all = documents.iter();
        all.filter_map(|document| Resiliency::from_document(document)?.ok())
            .filter(|resource| resource.in_scope(&self.app_id))
            .collect()
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

/// Kind, namespace and name.
type Identity = (&'static str, String, String);

/// What a file holds.
#[derive(Debug, Default)]
struct File {
    documents: Vec<(Identity, Value)>,
    /// These do not come into use from here.
    configurations: Vec<Value>,
    faults: Vec<Fault>,
    /// Why it may be one that is just being written.
    unfinished: Option<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    kind: &'static str,
    cause: String,
}

impl Fault {
    fn of_file(cause: impl ToString) -> Self {
        Self {
            kind: "resource",
            cause: cause.to_string(),
        }
    }
}

impl File {
    /// None if it has just been removed.
    fn read(path: &Path) -> Option<Self> {
        let mut file = Self::default();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                file.faults.push(Fault::of_file(error));
                return Some(file);
            }
        };
        if text.trim().is_empty() {
            file.unfinished = Some(Fault::of_file("the file is empty"));
        }
        for document in yaml::documents(&text) {
            match document {
                Ok(document) => file.add(document),
                Err(error) => file.faults.push(Fault::of_file(error)),
            }
        }
        Some(file)
    }

    fn add(&mut self, document: Value) {
        let identity = identity::<Component>(&document)
            .or_else(|| identity::<HttpEndpoint>(&document))
            .or_else(|| identity::<Subscription>(&document))
            .or_else(|| identity::<Resiliency>(&document));
        match identity {
            Some(Ok(identity)) => {
                if identity.2.is_empty() {
                    self.unfinished = Some(Fault::of_file("a resource has no name"));
                }
                self.documents.push((identity, document));
            }
            Some(Err(fault)) => self.faults.push(fault),
            None if names_no_kind(&document) => {
                let cause = "a document names no known kind of resource";
                self.unfinished = Some(Fault::of_file(cause));
            }
            None if Configuration::claims(&document) => self.configurations.push(document),
            None => {}
        }
    }

    /// Takes over what was there before and cannot be found now, unless the
    /// file is whole. Returns how many documents those are.
    fn keep(&mut self, before: &Self) -> usize {
        let here = |identity: &Identity| self.documents.iter().any(|(i, _)| i == identity);
        let missing = before.documents.iter().filter(|(i, _)| !here(i));
        let missing: Vec<_> = missing.cloned().collect();
        if missing.is_empty() {
            return 0;
        }
        self.faults.extend(self.unfinished.take());
        if self.faults.is_empty() {
            return 0;
        }
        let kept = missing.len();
        self.documents.retain(|((_, _, name), _)| !name.is_empty());
        self.documents.extend(missing);
        kept
    }

    fn warn(&self, path: &Path, kept: usize) {
        let path = path.display();
        for Fault { kind, cause } in &self.faults {
            tracing::warn!(target: SCOPE, "daprd load {kind} error when parsing manifests yaml resource in {path}: {cause}");
        }
        if kept > 0 {
            tracing::error!(target: SCOPE, "{path} cannot be read as a whole: {kept} of the resources that it held stay in use as they were, until the file is corrected or removed");
        }
    }
}

fn identity<K: Kind>(document: &Value) -> Option<Result<Identity, Fault>> {
    let resource = K::from_document(document)?;
    let identity = resource.map(|resource| {
        let metadata = resource.metadata();
        (K::KIND, metadata.namespace.clone(), metadata.name.clone())
    });
    Some(identity.map_err(|error| Fault {
        kind: K::KIND,
        cause: error.to_string(),
    }))
}

/// Says what a Configuration among the resources is good for.
fn not_from_here(document: &Value, path: &Path) {
    let name = document.pointer("/metadata/name").and_then(Value::as_str);
    let (name, path) = (name.unwrap_or_default(), path.display());
    tracing::info!(target: SCOPE, "the Configuration {name} in {path} is in use only if --config names that file, and as it is when the sidecar starts");
}

/// Whether a document that is of no kind that is read here does not say either
/// that it is of another one.
fn names_no_kind(document: &Value) -> bool {
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or("");
    let (version, kind) = (text("apiVersion"), text("kind"));
    let ours = version.split('/').next() == Some(GROUP);
    let known = Configuration::claims(document)
        || McpServer::claims(document)
        || WorkflowAccessPolicy::claims(document);
    version.is_empty() || kind.is_empty() || (ours && !known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(name: &str, kind: &str, namespace: &str, scopes: &str) -> String {
        format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}, namespace: '{namespace}'}}\nspec: {{type: {kind}, version: v1}}\nscopes: [{scopes}]\n"
        )
    }

    fn folders(path: &Path, namespace: Option<&str>) -> Folders {
        let namespace = namespace.map(str::to_owned);
        Folders::new(vec![path.to_owned()], "app".to_owned(), namespace)
    }

    fn load_texts(files: &[(&str, String)], namespace: Option<&str>) -> Result<Vec<String>, Error> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folders(folder.path(), namespace)
            .load()
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
        let loaded = folders(folder.path(), Some("mine")).load().unwrap();
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
        let loaded = folders(folder.path(), None).load().unwrap();
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

    #[test]
    fn what_a_broken_file_held_stays_until_it_is_corrected_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let folders = folders(folder.path(), None);
        let whole = format!(
            "{}---\n{}",
            component("a", "state.x", "", ""),
            component("b", "state.x", "", "")
        );
        let load = |text: &str| -> Vec<String> {
            std::fs::write(&file, text).unwrap();
            let components = folders.load().unwrap().components;
            components.iter().map(Component::log_name).collect()
        };
        let both = ["a (state.x/v1)", "b (state.x/v1)"];
        assert_eq!(load(&whole), both);
        for broken in [
            "",
            " \n",
            "apiVersion: dapr.io/v1alpha1\n",
            "apiVersion: dapr.io/v1alpha1\nkind: Compo",
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: a",
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n",
        ] {
            for _ in 0..2 {
                assert_eq!(load(broken), both, "{broken}");
            }
        }
        // What can be read of it counts.
        let changed = format!("{}---\nkind: [", component("a", "state.y", "", ""));
        assert_eq!(load(&changed), ["a (state.y/v1)", "b (state.x/v1)"]);
        assert_eq!(load(&component("b", "state.x", "", "")), ["b (state.x/v1)"]);
        let other = "apiVersion: v1\nkind: Service\n";
        assert!(load(other).is_empty());

        load(&whole);
        std::fs::remove_file(&file).unwrap();
        assert!(folders.load().unwrap().components.is_empty());
        load(&whole);
        folders.forget();
        assert!(load("").is_empty());
    }
}
