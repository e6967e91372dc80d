//! The embedded cluster itself: it works, it leaves nothing behind, it can be booted again.

mod machine;
mod webhook;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use machine::{Traces, kill, parent};
use outrider_cluster::{Cluster, Image, Options, PodSecurity, install_debian, may_boot, wait};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_works_leaves_nothing_behind_and_boots_again() -> Result<()> {
    if !may_boot() {
        return Ok(());
    }
    let options = Options::from_env()?.separate("test-a");
    let before = Traces::of(&options.work)?;
    let cluster = Cluster::boot(options.clone()).await?;
    assert!(cluster.is_owned());
    load_images(&cluster).await?;
    a_chart_runs_and_is_reached(&cluster).await?;
    restricted_namespaces_refuse_root(&cluster).await?;
    redis_answers(&cluster).await?;
    webhook::is_called_through_its_service(&cluster).await?;
    cluster.down().await?;
    assert_eq!(Traces::of(&options.work)?, before);

    let again = Cluster::boot(options.clone()).await?;
    assert_eq!(again.kubectl(["get", "--raw", "/readyz"]).await?, "ok");
    drop(again);
    assert_eq!(Traces::of(&options.work)?, before);
    Ok(())
}

fn install_missing() -> Result<()> {
    let mut missing = Vec::new();
    for (program, package) in [
        ("/bin/busybox", "busybox-static"),
        ("/usr/bin/redis-server", "redis-server"),
    ] {
        if !Path::new(program).exists() {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    install_debian(&missing)
}

async fn load_images(cluster: &Cluster) -> Result<()> {
    install_missing()?;
    let busybox = Image::new("outrider.local/busybox:1").program("/bin/busybox", "/bin/busybox");
    let redis = Image::new("outrider.local/redis:7")
        .program("/usr/bin/redis-server", "/usr/bin/redis-server")
        .program("/usr/bin/redis-cli", "/usr/bin/redis-cli")
        .with_shared_libraries();
    let digest = cluster.load_image(&busybox).await?;
    assert_eq!(cluster.load_image(&busybox).await?, digest);
    cluster.load_image(&redis).await?;
    Ok(())
}

/// Connects from this machine to a Service's own address.
async fn connect(
    cluster: &Cluster,
    namespace: &str,
    service: &str,
    port: u16,
) -> Result<TcpStream> {
    let found = cluster.get(["service", service, "-n", namespace]).await?;
    let address: IpAddr = found["spec"]["clusterIP"]
        .as_str()
        .context("no address")?
        .parse()?;
    wait("the service's rules", LIMIT, async || {
        let stream =
            TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Some(stream))
    })
    .await
}

async fn a_chart_runs_and_is_reached(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("page", PodSecurity::Restricted).await?;
    let name = namespace.name();
    let chart = outrider_cluster::folder().join("testdata/page");
    let chart = chart.to_str().context("not a UTF-8 path")?;
    cluster.helm(["lint", chart]).await?;
    cluster
        .helm([
            "install",
            "page",
            chart,
            "-n",
            name,
            "--set",
            "text=hello",
            "--wait",
            "--timeout",
            "60s",
        ])
        .await?;
    let status = cluster.helm(["status", "page", "-n", name]).await?;
    assert!(status.contains("STATUS: deployed"), "{status}");

    let pods = cluster.pods_ready(name, "app=page", LIMIT).await?;
    let pod = &pods[0];
    let exec = async |words: &[&str]| {
        let mut arguments = vec!["exec", "-n", name, pod, "--", "/bin/busybox"];
        arguments.extend(words);
        cluster.kubectl(arguments).await
    };
    let service = format!("page.{name}.svc.cluster.local");
    let answer = exec(&["nslookup", &service]).await?;
    assert!(answer.contains(&service), "{answer}");
    // The pod reaches itself through its Service, by the short name.
    let page = wait("the page", LIMIT, async || {
        exec(&["wget", "-q", "-O", "-", "http://page"])
            .await
            .map(Some)
    })
    .await?;
    assert_eq!(page.trim(), "hello");
    let token = exec(&["cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"]).await?;
    assert_eq!(token.split('.').count(), 3, "not a signed token: {token}");
    let status = exec(&["cat", "/proc/1/status"]).await?;
    for line in [
        "Uid:\t65532",
        "Seccomp:\t2",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line} is missing in\n{status}");
    }
    assert!(
        exec(&["touch", "/file"]).await.is_err(),
        "the root file system can be written"
    );
    let outside = exec(&["nslookup", "example.com"]).await;
    assert!(
        outside.is_err(),
        "names outside of the cluster must not be answered"
    );

    let mut stream = connect(cluster, name, "page", 80).await?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let lines: Vec<String> = BufReader::new(stream)
        .lines()
        .collect::<std::io::Result<_>>()?;
    assert_eq!(lines.last().map(String::as_str), Some("hello"));
    wait("the page's log", LIMIT, async || {
        let log = cluster.kubectl(["logs", "-n", name, pod]).await?;
        Ok(log.contains("/index.html").then_some(()))
    })
    .await?;
    cluster
        .helm(["uninstall", "page", "-n", name, "--wait"])
        .await?;
    Ok(())
}

async fn restricted_namespaces_refuse_root(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("strict", PodSecurity::Restricted).await?;
    let run = [
        "run",
        "root",
        "--image=outrider.local/busybox:1",
        "-n",
        namespace.name(),
    ];
    let error = cluster
        .kubectl(run)
        .await
        .expect_err("a pod without limits was admitted");
    assert!(
        error
            .to_string()
            .contains("violates PodSecurity \"restricted"),
        "{error}"
    );
    Ok(())
}

async fn redis_answers(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("redis", PodSecurity::Restricted).await?;
    let name = namespace.name();
    let manifest = include_str!("../../testdata/redis.yaml");
    cluster
        .kubectl_with_input(["apply", "-n", name, "-f", "-"], manifest)
        .await?;
    cluster.pods_ready(name, "app=redis", LIMIT).await?;
    let mut stream = connect(cluster, name, "redis", 6379).await?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    assert_eq!(answer, "+PONG\r\n");
    let said = cluster
        .kubectl([
            "exec",
            "-n",
            name,
            "redis",
            "--",
            "/usr/bin/redis-cli",
            "-h",
            "redis",
            "ping",
        ])
        .await?;
    assert_eq!(said.trim(), "PONG");
    Ok(())
}

#[tokio::test]
async fn a_folder_that_is_not_of_a_cluster_is_not_touched() -> Result<()> {
    if !may_boot() {
        return Ok(());
    }
    let options = Options::from_env()?.separate("test-c");
    std::fs::create_dir_all(&options.work)?;
    let file = options.work.join("letter");
    std::fs::write(&file, "dear")?;
    let outcome = Cluster::boot(options.clone()).await;
    assert!(outcome.is_err_and(|error| error.to_string().contains("not empty")));
    assert_eq!(std::fs::read_to_string(&file)?, "dear");
    std::fs::remove_dir_all(&options.work)?;
    Ok(())
}

/// As with `OUTRIDER_CLUSTER_KUBECONFIG`: everything but loading images works on a cluster that is known by its kubeconfig only.
async fn only_a_kubeconfig_is_enough(running: &Options) -> Result<()> {
    let copy = running.cache.join("test-b.kubeconfig");
    std::fs::copy(running.work.join("kubeconfig"), &copy)?;
    let mut options = running.clone().separate("test-d");
    options.kubeconfig = Some(copy.clone());
    let cluster = Cluster::boot(options.clone()).await?;
    assert!(!cluster.is_owned());
    let namespace = cluster
        .namespace("foreign", PodSecurity::Privileged)
        .await?;
    cluster.get(["namespace", namespace.name()]).await?;
    let image = Image::new("outrider.local/busybox:1").program("/bin/busybox", "/bin/busybox");
    assert!(cluster.load_image(&image).await.is_err());
    drop(namespace);
    assert!(!options.work.exists(), "a foreign cluster needs no folder");
    Ok(std::fs::remove_file(copy)?)
}

/// The `cluster` program for one work folder.
struct Node {
    options: Options,
}

impl Node {
    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
        command
            .args(arguments)
            .env("OUTRIDER_CLUSTER_DIR", &self.options.work)
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    fn is_running(&self) -> Result<bool> {
        Ok(self.program(&["status"]).output()?.status.success())
    }

    /// Starts an owner and waits until its cluster runs.
    async fn up(&self) -> Result<Child> {
        let owner = self.program(&["up"]).spawn()?;
        wait("the cluster", Duration::from_secs(1800), async || {
            Ok(self.is_running()?.then_some(()))
        })
        .await?;
        Ok(owner)
    }

    /// Ends the owner and the cluster of this folder, however they were left. The owner is found by its environment and
    /// killed by its id.
    fn end(&self) -> Result<()> {
        for id in machine::owners(&self.options.work)? {
            kill(id)?;
        }
        let output = self.program(&["down"]).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cluster down: {error}");
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("a cluster is left in {:?}: {error:#}", self.options.work);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_owner_was_killed_is_cleaned_up() -> Result<()> {
    if !may_boot() {
        return Ok(());
    }
    let options = Options::from_env()?.separate("test-b");
    install_missing()?;
    let node = Node { options };
    // An earlier run of this test may have failed or been killed.
    node.end()?;
    let before = Traces::of(&node.options.work)?;
    the_watcher_cleans_up_after_its_owner(&node, &before).await?;
    the_next_boot_cleans_up_after_the_watcher(&node).await?;
    an_archive_is_loaded_and_run(&node).await?;
    ensure!(node.program(&["down"]).status()?.success());
    assert_eq!(Traces::of(&node.options.work)?, before);
    assert!(!node.is_running()?);
    Ok(())
}

async fn the_watcher_cleans_up_after_its_owner(node: &Node, before: &Traces) -> Result<()> {
    let mut owner = node.up().await?;
    let other = Cluster::boot(node.options.clone()).await?;
    assert!(!other.is_owned(), "a running cluster was not shared");
    only_a_kubeconfig_is_enough(&node.options).await?;
    drop(other);
    assert!(node.is_running()?, "a user ended the owner's cluster");
    kill(owner.id())?;
    owner.wait()?;
    wait("the end of everything", LIMIT, async || {
        Ok((Traces::of(&node.options.work)? == *before).then_some(()))
    })
    .await
}

async fn the_next_boot_cleans_up_after_the_watcher(node: &Node) -> Result<()> {
    let work = &node.options.work;
    let mut owner = node.up().await?;
    let init = machine::init(work)?;
    let shell = parent(parent(init)?)?;
    kill(parent(shell)?)?;
    kill(shell)?;
    kill(owner.id())?;
    owner.wait()?;
    wait("the end of process 1", LIMIT, async || {
        Ok(parent(init).is_err().then_some(()))
    })
    .await?;
    assert!(work.exists(), "the folder is gone before the next boot");
    let output = node.program(&["up", "--detach"]).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{error}");
    let nodes = node
        .program(&["kubectl", "get", "nodes", "-o", "name"])
        .output()?;
    assert_eq!(String::from_utf8_lossy(&nodes.stdout), "node/outrider\n");
    Ok(())
}

async fn an_archive_is_loaded_and_run(node: &Node) -> Result<()> {
    let archive = node.options.cache.join("test-b.tar");
    Image::new("outrider.local/loaded:1")
        .program("/bin/busybox", "/bin/busybox")
        .build()?
        .write(std::fs::File::create(&archive)?)?;
    let path = archive.to_str().context("not a UTF-8 path")?;
    let loaded = node.program(&["load", path]).status()?;
    std::fs::remove_file(&archive)?;
    ensure!(loaded.success());
    // Attaching to a pod that is as short as this one may miss what it prints.
    let run =
        "kubectl run loaded --image=outrider.local/loaded:1 --restart=Never --quiet -- echo hello";
    let status = node.program(&run.split(' ').collect::<Vec<_>>()).status()?;
    ensure!(status.success(), "{run}: {status}");
    wait("the pod's log", LIMIT, async || {
        let output = node.program(&["kubectl", "logs", "loaded"]).output()?;
        Ok((output.stdout == b"hello\n").then_some(()))
    })
    .await
}
