//! The embedded cluster itself: that it works, that it ends whole, that it comes back.

mod machine;
mod webhook;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use machine::{Traces, kill, parent};
use outrider_cluster::{Cluster, Image, Options, PodSecurity, install_debian, may_boot, wait};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_does_what_one_needs_ends_whole_and_boots_again() -> Result<()> {
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
            "text=well met",
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
    assert_eq!(page.trim(), "well met");
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
    assert_eq!(lines.last().map(String::as_str), Some("well met"));
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
async fn a_folder_that_is_not_a_clusters_is_left_alone() -> Result<()> {
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

/// As with `OUTRIDER_CLUSTER_KUBECONFIG`: all but the images works on a cluster of unknown make.
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

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_leaves_nothing_in_the_way() -> Result<()> {
    if !may_boot() {
        return Ok(());
    }
    let options = Options::from_env()?.separate("test-b");
    install_missing()?;
    let before = Traces::of(&options.work)?;
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
        command
            .args(arguments)
            .env("OUTRIDER_CLUSTER_DIR", &options.work)
            .stdin(Stdio::null())
            .process_group(0);
        command
    };
    let ready = async || {
        wait("the cluster", Duration::from_secs(1800), async || {
            Ok(program(&["status"])
                .output()?
                .status
                .success()
                .then_some(()))
        })
        .await
    };

    // Only the owner dies: what watches over it cleans up.
    let mut owner = program(&["up"]).spawn()?;
    ready().await?;
    let other = Cluster::boot(options.clone()).await?;
    assert!(!other.is_owned(), "a running cluster was not shared");
    only_a_kubeconfig_is_enough(&options).await?;
    drop(other);
    assert!(
        program(&["status"]).output()?.status.success(),
        "a user ended the owner's cluster"
    );
    kill(owner.id())?;
    owner.wait()?;
    wait("the end of everything", LIMIT, async || {
        Ok((Traces::of(&options.work)? == before).then_some(()))
    })
    .await?;

    // The watcher dies first: the next boot cleans up.
    let mut owner = program(&["up"]).spawn()?;
    ready().await?;
    let init = machine::init(&options.work)?;
    let shell = parent(parent(init)?)?;
    kill(parent(shell)?)?;
    kill(shell)?;
    kill(owner.id())?;
    owner.wait()?;
    wait("the end of process 1", LIMIT, async || {
        Ok(parent(init).is_err().then_some(()))
    })
    .await?;
    assert!(options.work.exists(), "somebody else cleaned up");
    let output = program(&["up", "--detach"]).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let nodes = program(&["kubectl", "get", "nodes", "-o", "name"]).output()?;
    assert_eq!(String::from_utf8_lossy(&nodes.stdout), "node/outrider\n");

    let archive = options.cache.join("test-b.tar");
    Image::new("outrider.local/loaded:1")
        .program("/bin/busybox", "/bin/busybox")
        .build()?
        .write(std::fs::File::create(&archive)?)?;
    let loaded = program(&["load", archive.to_str().context("not a UTF-8 path")?]).status()?;
    std::fs::remove_file(&archive)?;
    ensure!(loaded.success());
    // Attaching to a pod that is as short as this one may miss what it prints.
    let run = "kubectl run loaded --image=outrider.local/loaded:1 --restart=Never --quiet -- echo well met";
    let status = program(&run.split(' ').collect::<Vec<_>>()).status()?;
    ensure!(status.success(), "{run}: {status}");
    wait("the pod's log", LIMIT, async || {
        let output = program(&["kubectl", "logs", "loaded"]).output()?;
        Ok((output.stdout == b"well met\n").then_some(()))
    })
    .await?;

    ensure!(program(&["down"]).status()?.success());
    assert_eq!(Traces::of(&options.work)?, before);
    assert!(!program(&["status"]).output()?.status.success());
    Ok(())
}
