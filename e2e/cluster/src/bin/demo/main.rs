//! `cargo xtask demo`: the main job, shown step by step.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use outrider_cluster::product::{self, App, Product, SYSTEM};
use outrider_cluster::{Cluster, Options, wait};
use serde_json::Value;

mod self_hosted;

const NAMESPACE: &str = "shop";
const PATIENCE: Duration = Duration::from_secs(90);

struct Words {
    self_hosted: bool,
    context: Option<String>,
    registry: Option<String>,
    /// Ends after the last step instead of leaving the cluster up.
    exit: bool,
    /// Programs that are built already.
    binaries: Option<PathBuf>,
}

impl Words {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self {
            self_hosted: false,
            context: None,
            registry: None,
            exit: false,
            binaries: None,
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--self-hosted" => parsed.self_hosted = true,
                "--exit" => parsed.exit = true,
                "--context" => {
                    parsed.context = Some(words.next().context("--context needs a name")?)
                }
                "--registry" => {
                    parsed.registry = Some(words.next().context("--registry needs a prefix")?)
                }
                "--binaries" => {
                    parsed.binaries =
                        Some(words.next().context("--binaries needs a folder")?.into());
                }
                other => bail!(
                    "unknown word {other}: demo knows --self-hosted, --context, --registry, --binaries and --exit"
                ),
            }
        }
        ensure!(
            parsed.context.is_some() == parsed.registry.is_some(),
            "--context and --registry go together: a cluster of yours pulls the images that you pushed"
        );
        Ok(parsed)
    }
}

/// Tells each step and how long it took.
pub struct Steps {
    start: Instant,
    count: usize,
}

impl Steps {
    pub async fn step<T>(
        &mut self,
        what: &str,
        work: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        self.count += 1;
        println!("\n[{}] {what}", self.count);
        let start = Instant::now();
        let done = work().await.with_context(|| what.to_owned())?;
        println!("    {:.1} s", start.elapsed().as_secs_f64());
        Ok(done)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let words = Words::parse(std::env::args().skip(1))?;
    let mut steps = Steps {
        start: Instant::now(),
        count: 0,
    };
    let folder = match &words.binaries {
        Some(folder) => folder.clone(),
        None => {
            steps
                .step("build the programs", async || build().await)
                .await?
        }
    };
    let product = Product::in_folder(&folder)?;
    if words.self_hosted {
        return self_hosted::run(&folder, &mut steps, words.exit).await;
    }
    let (cluster, product) = match (&words.context, &words.registry) {
        (Some(context), Some(registry)) => {
            let cluster = steps
                .step("reach your cluster", async || existing(context).await)
                .await?;
            (cluster, product.from_registry(registry))
        }
        _ => {
            let cluster = steps
                .step("boot a Kubernetes of one node", async || {
                    Cluster::boot(Options::from_env()?).await
                })
                .await?;
            steps
                .step("put our images and Debian's Redis into it", async || {
                    product.load(&cluster).await?;
                    cluster
                        .load_image(&product::redis_image(&product.registry)?)
                        .await?;
                    Ok(())
                })
                .await?;
            (cluster, product)
        }
    };
    let shown = show(&cluster, &product, &mut steps).await;
    if let Err(error) = &shown {
        for namespace in [SYSTEM, NAMESPACE] {
            eprintln!("{}", cluster.explain(namespace).await.unwrap_or_default());
        }
        eprintln!("\ndemo: {error:#}");
    }
    println!(
        "\nall steps took {:.1} s",
        steps.start.elapsed().as_secs_f64()
    );
    if !words.exit && shown.is_ok() {
        println!("the cluster stays up until you press Ctrl-C; look around with");
        println!("    export KUBECONFIG={}", cluster.kubeconfig().display());
        println!("    {}/kubectl get pods -A", cluster.programs().display());
        stopped().await?;
    }
    clean(&cluster, words.context.is_some()).await;
    cluster.down().await?;
    shown
}

async fn show(cluster: &Cluster, product: &Product, steps: &mut Steps) -> Result<()> {
    steps
        .step("helm install the control plane", async || {
            product
                .install(
                    cluster,
                    &["dapr_sidecar_injector.sidecarDropALLCapabilities=true"],
                )
                .await
        })
        .await?;
    steps
        .step(
            "kubectl apply a namespace with restricted Pod Security, Redis and Components",
            async || {
                cluster.apply(&namespace()).await?;
                let manifests = [
                    product::redis(&product.registry),
                    product::component(
                        "statestore",
                        "state.redis",
                        &[("redisHost", "redis:6379"), ("redisPassword", "")],
                    ),
                    product::component(
                        "pubsub",
                        "pubsub.redis",
                        &[("redisHost", "redis:6379"), ("redisPassword", "")],
                    ),
                ];
                apply(cluster, &manifests.join("---\n")).await?;
                cluster.pods_ready(NAMESPACE, "app=redis", PATIENCE).await?;
                Ok(())
            },
        )
        .await?;
    steps
        .step(
            "deploy two annotated applications; the injector adds their sidecars",
            async || {
                let seller = App {
                    environment: &[("SUBSCRIBE", "news")],
                    ..App::default()
                };
                apply(cluster, &product.app("orders", &seller)).await?;
                apply(cluster, &product.app("front", &App::default())).await?;
                for app in ["app=orders", "app=front"] {
                    cluster.pods_ready(NAMESPACE, app, PATIENCE).await?;
                }
                let pods = cluster
                    .kubectl(["get", "pods", "-n", NAMESPACE, "-o", "wide"])
                    .await?;
                print!("{}", indented(&pods));
                Ok(())
            },
        )
        .await?;
    steps
        .step(
            "front calls orders through both sidecars, over mTLS",
            async || {
                let answer = wait("an answer of orders", PATIENCE, async || {
                    let text = cluster
                        .ask(NAMESPACE, "front", "/buy?id=1&item=book")
                        .await?;
                    Ok(Some(serde_json::from_str::<Value>(&text)?))
                })
                .await?;
                println!("    {answer}");
                ensure!(
                    answer["caller"] == "front",
                    "orders was not told who called: {answer}"
                );
                for app in ["front", "orders"] {
                    let logs = cluster
                        .kubectl([
                            "logs",
                            "-n",
                            NAMESPACE,
                            &format!("deploy/{app}"),
                            "-c",
                            "daprd",
                        ])
                        .await?;
                    ensure!(
                        logs.contains("Security is initialized successfully"),
                        "the sidecar of {app} has no identity"
                    );
                }
                println!(
                    "    both sidecars have certificates of sentry, and accept nobody without one"
                );
                Ok(())
            },
        )
        .await?;
    steps
        .step("what orders saved is in Redis", async || {
            let state = cluster
                .ask(NAMESPACE, "front", "/orders/1")
                .await
                .unwrap_or_default();
            ensure!(
                !state.contains("book"),
                "state of orders is visible to front: {state}"
            );
            let state = cluster.ask(NAMESPACE, "orders", "/orders/1").await?;
            println!("    orders reads back {state}");
            ensure!(
                state.contains("book"),
                "the order is not in the store: {state}"
            );
            Ok(())
        })
        .await
}

/// Release binaries, in the folder that cargo reports.
async fn build() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program
        .parent()
        .context("the program has no folder")?
        .to_owned();
    let profile = if folder.ends_with("release") {
        "release"
    } else {
        "dev"
    };
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let packages = ["sidecar", "operator", "sentry", "injector", "apps"];
    let status = tokio::process::Command::new(cargo)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .args(["build", "--bins", "--profile", profile])
        .args(
            packages
                .iter()
                .flat_map(|name| ["-p".to_owned(), format!("outrider-{name}")]),
        )
        .status()
        .await?;
    ensure!(status.success(), "cargo build failed: {status}");
    Ok(folder)
}

/// A cluster of the user's own, by the name of a context.
async fn existing(context: &str) -> Result<Cluster> {
    let mut options = Options::from_env()?;
    // Built first, so that kubectl is there to read the user's configuration.
    let path = options.work.join("context.kubeconfig");
    std::fs::create_dir_all(&options.work)?;
    let output = tokio::process::Command::new("kubectl")
        .args([
            "config",
            "view",
            "--minify",
            "--flatten",
            "--context",
            context,
        ])
        .output()
        .await
        .context("kubectl is not on the path: it reads your contexts")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::write(&path, output.stdout)?;
    options.kubeconfig = Some(path);
    Cluster::boot(options).await
}

async fn apply(cluster: &Cluster, manifests: &str) -> Result<()> {
    cluster
        .kubectl_with_input(["apply", "-n", NAMESPACE, "-f", "-"], manifests)
        .await?;
    Ok(())
}

fn namespace() -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels: {{pod-security.kubernetes.io/enforce: restricted}}\n"
    )
}

/// Leaves a cluster that is not ours as it was; our own ends whole.
async fn clean(cluster: &Cluster, theirs: bool) {
    if !theirs && cluster.is_owned() {
        return;
    }
    let _ = cluster
        .kubectl(["delete", "namespace", NAMESPACE, "--ignore-not-found"])
        .await;
    let _ = cluster
        .helm([
            "uninstall",
            product::RELEASE,
            "-n",
            SYSTEM,
            "--wait",
            "--ignore-not-found",
        ])
        .await;
    let _ = cluster
        .kubectl(["delete", "namespace", SYSTEM, "--ignore-not-found"])
        .await;
}

pub async fn stopped() -> Result<()> {
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        done = tokio::signal::ctrl_c() => done?,
        _ = end.recv() => {}
    }
    println!();
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
