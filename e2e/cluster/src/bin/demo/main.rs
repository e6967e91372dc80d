//! The main job, shown step by step. `cargo xtask demo` builds all that it runs, and starts it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use outrider_cluster::product::{self, Product, SYSTEM};
use outrider_cluster::{Cluster, Options};
use outrider_kit::usage;

mod flags;
mod guest;
mod in_cluster;
mod self_hosted;

use flags::Flags;

const NAMESPACE: &str = "shop";

/// Prints each step and how long it took.
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
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{}", flags::USAGE);
        return ExitCode::SUCCESS;
    }
    let flags = match flags::parse(words, "demo --help") {
        Ok(flags) => flags,
        Err(line) => {
            eprintln!("{line}");
            return ExitCode::from(2);
        }
    };
    match run(&flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: &Flags) -> Result<()> {
    let mut steps = Steps {
        start: Instant::now(),
        count: 0,
    };
    let (cluster, product) = match (&flags.context, &flags.registry) {
        (Some(context), Some(registry)) => {
            let reached = steps.step("reach your cluster", async || {
                Cluster::of_context(Options::from_env()?, context).await
            });
            (reached.await?, Product::pushed(registry))
        }
        _ => {
            let folder = binaries(flags)?;
            if flags.self_hosted {
                return self_hosted::run(&folder, &mut steps, flags.exit).await;
            }
            let product = Product::in_folder(&folder)?;
            if let (Some(save), Some(registry)) = (&flags.save, &flags.registry) {
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
        shown = tour(flags, &cluster, &product, &mut steps) => shown,
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
    flags: &Flags,
    cluster: &Cluster,
    product: &Product,
    steps: &mut Steps,
) -> Result<()> {
    if let Err(error) = in_cluster::show(cluster, product, steps).await {
        for namespace in [SYSTEM, NAMESPACE] {
            eprintln!("{}", cluster.explain(namespace).await.unwrap_or_default());
        }
        return Err(error);
    }
    println!(
        "\nall steps took {:.1} s",
        steps.start.elapsed().as_secs_f64()
    );
    if flags.exit {
        return Ok(());
    }
    println!("everything stays up until you press Ctrl-C; look around with");
    match (&flags.context, cluster.kubeconfig()) {
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
    let mut images = product.images()?;
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

/// The folder of the programs to run: those given, or those built with this one.
fn binaries(flags: &Flags) -> Result<PathBuf> {
    if let Some(folder) = &flags.binaries {
        return Ok(folder.clone());
    }
    let program = std::env::current_exe()?;
    let folder = program.parent().context("the program has no folder")?;
    Ok(folder.to_owned())
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
