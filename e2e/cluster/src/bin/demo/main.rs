//! `cargo xtask demo`: the main job, shown step by step.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use outrider_cluster::product::{self, App, Product, SYSTEM};
use outrider_cluster::{Cluster, Options, wait};
use serde_json::Value;

mod guest;
mod self_hosted;

const NAMESPACE: &str = "shop";
const PATIENCE: Duration = Duration::from_secs(90);

struct Words {
    self_hosted: bool,
    context: Option<String>,
    registry: Option<String>,
    /// Where to write the images that a registry is to get.
    save: Option<PathBuf>,
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
            save: None,
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
                "--save" => {
                    parsed.save = Some(words.next().context("--save needs a folder")?.into());
                }
                "--binaries" => {
                    parsed.binaries =
                        Some(words.next().context("--binaries needs a folder")?.into());
                }
                other => bail!(
                    "unknown word {other}: demo knows --self-hosted, --context, --registry, --save, --binaries and --exit"
                ),
            }
        }
        ensure!(
            parsed.context.is_none() || parsed.save.is_none(),
            "--save writes images to be pushed, --context uses those that were: give one of them"
        );
        ensure!(
            parsed.registry.is_some() == (parsed.context.is_some() || parsed.save.is_some()),
            "--registry goes with --save, which writes the images to push, or with --context, whose cluster pulls them"
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
    let (cluster, product) = match (&words.context, &words.registry) {
        (Some(context), Some(registry)) => {
            let reached = steps.step("reach your cluster", async || {
                Cluster::of_context(Options::from_env()?, context).await
            });
            (reached.await?, Product::pushed(registry))
        }
        _ => {
            let folder = match &words.binaries {
                Some(folder) => folder.clone(),
                None => {
                    let built = steps.step("build the programs", async || build().await);
                    built.await?
                }
            };
            let product = Product::in_folder(&folder)?;
            if words.self_hosted {
                return self_hosted::run(&folder, &mut steps, words.exit).await;
            }
            if let (Some(save), Some(registry)) = (&words.save, &words.registry) {
                return write_images(&product.at(registry), save);
            }
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
    // A cluster that is not ours stays as it was; our own ends whole.
    let before = match cluster.is_owned() {
        true => None,
        false => Some(guest::Before::look(&cluster).await?),
    };
    let shown = tokio::select! {
        // Where it waits to be stopped, that is a good end.
        biased;
        shown = tour(&words, &cluster, &product, &mut steps) => shown,
        stopped = stopped() => stopped.and(Err(anyhow!("it was interrupted"))),
    };
    let cleaned = match &before {
        None => Ok(()),
        Some(before) => {
            let cleaning = steps.step("remove all that the demo brought", async || {
                before.restore(&cluster).await
            });
            cleaning.await
        }
    };
    cluster.down().await?;
    shown.and(cleaned)
}

async fn tour(
    words: &Words,
    cluster: &Cluster,
    product: &Product,
    steps: &mut Steps,
) -> Result<()> {
    if let Err(error) = show(cluster, product, steps).await {
        for namespace in [SYSTEM, NAMESPACE] {
            eprintln!("{}", cluster.explain(namespace).await.unwrap_or_default());
        }
        return Err(error);
    }
    println!(
        "\nall steps took {:.1} s",
        steps.start.elapsed().as_secs_f64()
    );
    if words.exit {
        return Ok(());
    }
    println!("everything stays up until you press Ctrl-C; look around with");
    match (&words.context, cluster.kubeconfig()) {
        (Some(context), _) => println!("    kubectl --context {context} get pods -A"),
        (None, Some(path)) => {
            println!("    export KUBECONFIG={}", path.display());
            println!("    {}/kubectl get pods -A", cluster.programs().display());
        }
        (None, None) => {}
    }
    stopped().await
}

/// Archives of all images, and how to push them.
fn write_images(product: &Product, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut images = product.images();
    images.push(product::redis_image(&product.registry)?);
    for image in &images {
        let name = image.reference().rsplit('/').next().unwrap_or_default();
        let path = folder.join(format!("{}.tar", name.replace(':', "-")));
        image.build()?.write(std::fs::File::create(&path)?)?;
        println!(
            "docker load -i {} && docker push {}",
            path.display(),
            image.reference()
        );
    }
    Ok(())
}

async fn show(cluster: &Cluster, product: &Product, steps: &mut Steps) -> Result<()> {
    steps
        .step("helm install the control plane", async || {
            product.install(cluster, &[]).await
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
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let packages = ["sidecar", "operator", "sentry", "injector", "apps"];
    let status = tokio::process::Command::new(cargo)
        .current_dir(outrider_cluster::folder().join("../.."))
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
