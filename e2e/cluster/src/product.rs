//! What is under test or shown: our binaries as images, our chart, and the
//! applications of the demo.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::Cluster;
use crate::image::Image;
use crate::layout::folder;

/// The registry in the names of images of a local build. Nothing is ever
/// fetched from there.
pub const REGISTRY: &str = "outrider.local";
/// Of images whose makers name no other.
const TAG: &str = "dev";
pub const RELEASE: &str = "dapr";
pub const SYSTEM: &str = "dapr-system";
const SERVICES: [&str; 6] = [
    "daprd",
    "operator",
    "sentry",
    "injector",
    "placement",
    "scheduler",
];
/// The applications: that of the demo, and one of actors.
const APPS: [&str; 2] = [SHOP, "counter"];
const SHOP: &str = "shop";

/// A folder of binaries, and the tag that their images get.
#[derive(Debug, Clone)]
pub struct Product {
    binaries: PathBuf,
    pub registry: String,
    pub tag: String,
}

impl Product {
    /// The binaries that were built with the running program.
    pub fn built_beside() -> Result<Self> {
        let program = std::env::current_exe()?;
        let folder = program.parent().context("the program has no folder")?;
        // Tests run from a folder below.
        let folder = if folder.ends_with("deps") {
            folder.parent().unwrap_or(folder)
        } else {
            folder
        };
        Self::in_folder(folder)
    }

    pub fn in_folder(folder: &Path) -> Result<Self> {
        for name in SERVICES.iter().chain(&APPS) {
            let path = folder.join(name);
            ensure!(
                path.is_file(),
                "{} is missing: build it with cargo build --workspace --bins",
                path.display()
            );
        }
        Ok(Self {
            binaries: folder.to_owned(),
            registry: REGISTRY.to_owned(),
            tag: TAG.to_owned(),
        })
    }

    /// Images that the user has pushed; there is nothing to load.
    pub fn pushed(registry: &str) -> Self {
        Self {
            binaries: PathBuf::new(),
            registry: registry.to_owned(),
            tag: TAG.to_owned(),
        }
    }

    /// The same binaries as images of another tag.
    pub fn tagged(&self, tag: &str) -> Self {
        Self {
            tag: tag.to_owned(),
            ..self.clone()
        }
    }

    /// The same binaries as images of another registry.
    pub fn at(&self, registry: &str) -> Self {
        Self {
            registry: registry.to_owned(),
            ..self.clone()
        }
    }

    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.registry, self.tag)
    }

    /// Each service and the application, alone in an image.
    pub fn images(&self) -> Result<Vec<Image>> {
        let commit = commit();
        let image = |name: &&str| {
            let path = format!("/{name}");
            let mut image = Image::new(&self.image(name))
                .program(self.binaries.join(name), &path)
                .with_authorities()
                .entrypoint(&[&path]);
            if *name == "scheduler" {
                // Several schedulers share an etcd, of which each runs a member.
                let etcd = debian_program("etcd", "etcd-server")?;
                image = image.program(etcd, "/usr/bin/etcd").with_shared_libraries();
            }
            Ok(labelled(image, name, commit.as_deref()))
        };
        SERVICES.iter().chain(&APPS).map(image).collect()
    }

    pub async fn load(&self, cluster: &Cluster) -> Result<()> {
        for image in self.images()? {
            cluster
                .load_image(&image)
                .await
                .with_context(|| format!("image {}", image.reference()))?;
        }
        Ok(())
    }

    /// Installs the chart, or upgrades it in place, and waits until all of it
    /// is ready.
    pub async fn install(&self, cluster: &Cluster, values: &[&str]) -> Result<()> {
        let chart = chart();
        let registry = format!("global.registry={}", self.registry);
        let tag = format!("global.tag={}", self.tag);
        let mut words = vec![
            "upgrade",
            "--install",
            RELEASE,
            chart.to_str().context("the chart's path is no text")?,
            "--namespace",
            SYSTEM,
            "--create-namespace",
            "--wait",
            "--timeout",
            "120s",
            "--set",
            &registry,
            "--set",
            &tag,
        ];
        for value in values {
            words.extend(["--set", value]);
        }
        if let Err(error) = cluster.helm(words).await {
            let explained = cluster.explain(SYSTEM).await.unwrap_or_default();
            return Err(error.context(explained));
        }
        Ok(())
    }

    /// An annotated Deployment of the application, and a Service for its own
    /// port.
    pub fn app(&self, id: &str, more: &App<'_>) -> String {
        let annotations: String = more
            .annotations
            .iter()
            .map(|(name, value)| format!("        {name}: {value:?}\n"))
            .collect();
        let environment: String = more
            .environment
            .iter()
            .map(|(name, value)| format!("        - {{name: {name}, value: {value:?}}}\n"))
            .collect();
        let environment = if environment.is_empty() {
            String::new()
        } else {
            format!("        env:\n{environment}")
        };
        let replicas = more.replicas.unwrap_or(1);
        format!(
            "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {id}, labels: {{app: {id}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {id}}}}}
  template:
    metadata:
      labels: {{app: {id}}}
      annotations:
        dapr.io/enabled: \"true\"
        dapr.io/app-id: {id}
        dapr.io/app-port: \"8080\"
{annotations}    spec:
      securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
      - name: {id}
        image: {image}
        imagePullPolicy: IfNotPresent
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {{drop: [ALL]}}
{environment}---
apiVersion: v1
kind: Service
metadata: {{name: {id}}}
spec:
  selector: {{app: {id}}}
  ports: [{{port: 80, targetPort: 8080}}]
",
            image = self.image(more.program.unwrap_or(SHOP)),
        )
    }

    /// An annotated Job that stores an order with the Job's name as its id.
    pub fn job(&self, id: &str) -> String {
        format!(
            "\
apiVersion: batch/v1
kind: Job
metadata: {{name: {id}}}
spec:
  backoffLimit: 0
  template:
    metadata:
      labels: {{app: {id}}}
      annotations: {{dapr.io/enabled: \"true\", dapr.io/app-id: {id}}}
    spec:
      restartPolicy: Never
      securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
      - name: {id}
        image: {image}
        imagePullPolicy: IfNotPresent
        env: [{{name: STORE_ONCE, value: {id}}}]
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {{drop: [ALL]}}
",
            image = self.image(SHOP),
        )
    }
}

/// What an application's Deployment may have besides.
#[derive(Debug, Default, Clone, Copy)]
pub struct App<'a> {
    pub annotations: &'a [(&'a str, &'a str)],
    pub environment: &'a [(&'a str, &'a str)],
    pub replicas: Option<u32>,
    /// The shop unless given.
    pub program: Option<&'a str>,
}

/// A program of a Debian package, or one of this name that was built here.
fn debian_program(name: &str, package: &str) -> Result<PathBuf> {
    let folders = ["/usr/bin", "/usr/local/bin"];
    let mut candidates = folders.iter().map(|folder| Path::new(folder).join(name));
    candidates
        .find(|path| path.exists())
        .with_context(|| format!("{name} is not installed: install the package {package}"))
}

/// Debian's Redis as an image.
pub fn redis_image(registry: &str) -> Result<Image> {
    let program = debian_program("redis-server", "redis-server")?;
    Ok(Image::new(&format!("{registry}/redis:debian"))
        .program(program, "/redis-server")
        .with_shared_libraries()
        .folder("/data", 0o777)
        .entrypoint(&["/redis-server"]))
}

/// A Redis of one pod, which forgets everything when it ends.
pub fn redis(registry: &str) -> String {
    format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: redis, labels: {{app: redis}}}}
spec:
  selector: {{matchLabels: {{app: redis}}}}
  template:
    metadata: {{labels: {{app: redis}}}}
    spec:
      securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
      - name: redis
        image: {registry}/redis:debian
        imagePullPolicy: IfNotPresent
        args: [--save, '', --appendonly, 'no', --protected-mode, 'no']
        readinessProbe: {{tcpSocket: {{port: 6379}}, periodSeconds: 1}}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {{drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {{name: redis}}
spec:
  selector: {{app: redis}}
  ports: [{{port: 6379}}]
"
    )
}

/// A Component with literal properties.
pub fn component(name: &str, kind: &str, properties: &[(&str, &str)]) -> String {
    let properties: String = properties
        .iter()
        .map(|(name, value)| format!("  - {{name: {name}, value: {value:?}}}\n"))
        .collect();
    let metadata = if properties.is_empty() {
        "  metadata: []\n".to_owned()
    } else {
        format!("  metadata:\n{properties}")
    };
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec:\n  type: {kind}\n  version: v1\n{metadata}"
    )
}

pub fn chart() -> PathBuf {
    folder().join("../../charts/dapr")
}

impl Cluster {
    /// Asks the Service of an application, by way of the API server, so that
    /// it works with any cluster.
    pub async fn ask(&self, namespace: &str, app: &str, path: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/services/{app}:80/proxy{path}");
        self.kubectl(["get", "--raw", &path]).await
    }

    /// The same with a body.
    pub async fn post(&self, namespace: &str, app: &str, path: &str, body: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/services/{app}:80/proxy{path}");
        self.kubectl_with_input(["create", "--raw", &path, "-f", "-"], body)
            .await
    }

    /// Waits until every pod of the system is ready.
    pub async fn system_ready(&self, limit: Duration) -> Result<()> {
        self.pods_ready(SYSTEM, "app.kubernetes.io/part-of=dapr", limit)
            .await?;
        Ok(())
    }
}

/// Labels by which a person finds out where an image is from:
/// <https://specs.opencontainers.org/image-spec/annotations/>.
fn labelled(image: Image, name: &str, commit: Option<&str>) -> Image {
    let image = image
        .label("org.opencontainers.image.title", name)
        .label("org.opencontainers.image.vendor", "Outrider")
        .label("org.opencontainers.image.licenses", "Apache-2.0")
        .label(
            "org.opencontainers.image.version",
            env!("CARGO_PKG_VERSION"),
        );
    match commit {
        Some(commit) => image.label("org.opencontainers.image.revision", commit),
        None => image,
    }
}

/// The commit of this checkout, with a mark if files differ from it.
fn commit() -> Option<String> {
    let mut git = std::process::Command::new("git");
    git.current_dir(env!("CARGO_MANIFEST_DIR"));
    git.args([
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned())
}
