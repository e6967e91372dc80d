//! Servers that the tests start, on loopback.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::eventually;

// Of the tests of all processes; the kernel gives none of these to outgoing connections.
#[path = "../../../e2e/harness/src/port.rs"]
pub mod port;

/// RabbitMQ takes longest.
const STARTED_WITHIN: Duration = Duration::from_secs(60);

/// A running server; dropping it ends it and deletes its files.
pub struct Server {
    pub port: u16,
    process: Child,
    launch: Launch,
    folder: TempDir,
}

/// A certificate and its key, in PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    /// Paths of both, for a server that runs as `user`, who alone may read them.
    fn write(&self, folder: &Path, user: Option<(u32, u32)>) -> [String; 2] {
        use std::os::unix::fs::PermissionsExt as _;

        [
            ("certificate.pem", &self.certificate),
            ("key.pem", &self.key),
        ]
        .map(|(name, pem)| {
            let path = folder.join(name);
            std::fs::write(&path, pem).expect("write");
            let own = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, own).expect("it is ours");
            if let Some((user, group)) = user {
                std::os::unix::fs::chown(&path, Some(user), Some(group)).expect("root may");
            }
            path.display().to_string()
        })
    }
}

/// How a server is started.
#[derive(Debug, Clone, Default)]
struct Launch {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// The user and group to run as, if not ours.
    user: Option<(u32, u32)>,
    /// A command that ends what the server has started apart from itself.
    after: Option<Vec<String>>,
}

impl Launch {
    fn new(program: &str, arguments: &[&str]) -> Launch {
        Launch {
            program: program.to_owned(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            ..Launch::default()
        }
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log(folder))
            // Some are scripts, with the server as their child.
            .process_group(0)
            .kill_on_drop(true);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// `None` means that the program is not installed; in CI that panics.
    fn spawn(&self, folder: &Path, package: &str) -> Option<Child> {
        let program = &self.program;
        match self.command(folder).spawn() {
            Ok(process) => Some(process),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing(program, package);
                None
            }
            Err(error) => panic!("cannot start {program}: {error}"),
        }
    }
}

/// What a server says goes to a file in its folder.
fn log(folder: &Path) -> Stdio {
    let path = folder.join("server.log");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    file.map_or_else(|_| Stdio::null(), Stdio::from)
}

/// Says that a test is left out; in CI it panics.
fn missing(program: &str, package: &str) {
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "{program} is missing: apt-get install -y {package}");
    eprintln!("SKIPPED: {program} is missing, apt-get install -y {package} brings it");
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill_group();
        if let Some(after) = &self.launch.after {
            run(after);
        }
    }
}

/// The processes that a process has started and that still run.
fn children(id: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|child: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything; after it come state and parent.
        let rest = stat.rsplit_once(") ").map(|(_, rest)| rest);
        let parent = rest.and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        parent == Some(id)
    })
    .collect()
}

fn run(command: &[String]) {
    let mut words = command.iter();
    let Some(program) = words.next() else { return };
    // What has ended already cannot be ended.
    let _ = std::process::Command::new(program)
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

async fn listens(port: u16) {
    eventually("the server listens", STARTED_WITHIN, || async {
        TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
}

impl Server {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops the server and all processes that it has started, until `thaw`.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Of those that it has started some are in groups of their own.
    fn signal(&self, signal: &str) {
        let mut ids: Vec<u32> = self.process.id().into_iter().collect();
        let mut next = 0;
        while let Some(id) = ids.get(next) {
            ids.extend(children(*id));
            next += 1;
        }
        let mut command = vec!["kill".to_owned(), signal.to_owned(), "--".to_owned()];
        command.extend(ids.iter().map(u32::to_string));
        run(&command);
    }

    /// Ends the server as a crash does, and what it has started too.
    pub async fn kill(&mut self) {
        self.signal("-KILL");
        self.kill_group();
        self.process.wait().await.expect("it is ours");
        if let Some(after) = &self.launch.after {
            run(after);
        }
    }

    /// Ends the process and its children at once.
    fn kill_group(&self) {
        if let Some(id) = self.process.id() {
            run(&["kill", "-9", "--", &format!("-{id}")].map(str::to_owned));
        }
    }

    /// Starts the server again, with its files and its port.
    pub async fn restart(&mut self) {
        let spawned = self.launch.spawn(self.folder.path(), "");
        self.process = spawned.expect("it has run before");
        listens(self.port).await;
    }
}

impl Server {
    /// Runs a command of `redis-cli` on this server; its output.
    pub async fn redis_cli(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(command)
            .output()
            .await
            .expect("redis-cli comes with redis-server");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until a command of `redis-cli` answers with `text` in it.
    pub async fn redis_says(&self, command: &[&str], text: &str) {
        eventually(text, Duration::from_secs(30), || async {
            self.redis_cli(command).await.contains(text)
        })
        .await;
    }
}

/// Starts `redis-server`. `None` means that it is not installed; in CI that
/// panics.
pub async fn redis(more: &[&str]) -> Option<Server> {
    let port = port::free();
    let text = port.to_string();
    let mut arguments = vec!["--port", text.as_str(), "--bind", "127.0.0.1"];
    arguments.extend(["--save", "", "--appendonly", "no"]);
    arguments.extend(more);
    start("redis-server", &arguments, port, "redis-server").await
}

/// Starts a sentinel that watches a master under the name `main`.
pub async fn sentinel(master: &Server) -> Option<Server> {
    let port = port::free();
    let file = master.folder().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
        sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n",
        master.port
    );
    std::fs::write(&file, text).expect("write");
    let file = file.to_str().expect("the path is text");
    start("redis-server", &[file, "--sentinel"], port, "redis-server").await
}

/// Starts a cluster of two.
pub async fn redis_cluster() -> Option<[Server; 2]> {
    let [bus_one, bus_two] = [port::free(), port::free()].map(|port| port.to_string());
    let one = redis(&["--cluster-enabled", "yes", "--cluster-port", &bus_one]).await?;
    let two = redis(&["--cluster-enabled", "yes", "--cluster-port", &bus_two]).await?;
    one.redis_cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"])
        .await;
    two.redis_cli(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"])
        .await;
    one.redis_cli(&[
        "CLUSTER",
        "MEET",
        "127.0.0.1",
        &two.port.to_string(),
        &bus_two,
    ])
    .await;
    for server in [&one, &two] {
        server
            .redis_says(&["CLUSTER", "INFO"], "cluster_state:ok")
            .await;
    }
    Some([one, two])
}

async fn start(program: &str, arguments: &[&str], port: u16, package: &str) -> Option<Server> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::new(program, arguments);
    started(launch, folder, port, package).await
}

async fn started(launch: Launch, folder: TempDir, port: u16, package: &str) -> Option<Server> {
    let process = launch.spawn(folder.path(), package)?;
    listens(port).await;
    Some(Server {
        port,
        process,
        launch,
        folder,
    })
}

/// User and group of a name, if there is one and this process may take it.
fn user(name: &str) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;

    if std::fs::metadata("/proc/self").ok()?.uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users
        .lines()
        .find(|line| line.starts_with(&format!("{name}:")))?;
    let mut numbers = line.split(':').skip(2).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Starts PostgreSQL with the superuser `postgres`, who needs no password.
pub async fn postgresql() -> Option<Server> {
    postgresql_with(None).await
}

/// The same with TLS.
pub async fn postgresql_with(tls: Option<&Identity>) -> Option<Server> {
    const PACKAGE: &str = "postgresql";
    let programs = std::fs::read_dir("/usr/lib/postgresql");
    let newest = programs.ok().and_then(|versions| {
        let folders = versions.flatten().map(|version| version.path().join("bin"));
        folders
            .filter(|folder| folder.join("initdb").exists())
            .max()
    });
    let Some(programs) = newest else {
        missing("initdb", PACKAGE);
        return None;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_str().expect("the path is text").to_owned();
    let data = format!("{path}/data");
    // It does not run as root.
    let user = user("postgres");
    if let Some((user, group)) = user {
        std::os::unix::fs::chown(&path, Some(user), Some(group)).expect("root may");
    }
    let program = |name: &str| programs.join(name).display().to_string();
    let mut init = Launch::new(
        &program("initdb"),
        &[
            "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8", "-D", &data,
        ],
    );
    init.user = user;
    let made = init.command(folder.path()).status().await;
    assert!(made.expect("initdb runs").success(), "initdb failed");
    let port = port::free();
    let number = port.to_string();
    let mut launch = Launch::new(
        &program("postgres"),
        &[
            "-D",
            &data,
            "-p",
            &number,
            "-k",
            &path,
            "-c",
            "listen_addresses=127.0.0.1",
        ],
    );
    if let Some(identity) = tls {
        let [certificate, key] = identity.write(folder.path(), user);
        for setting in [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={certificate}"),
            format!("ssl_key_file={key}"),
        ] {
            launch.arguments.extend(["-c".to_owned(), setting]);
        }
    }
    launch.user = user;
    let server = started(launch, folder, port, PACKAGE).await?;
    // It listens before it answers.
    let ready = program("pg_isready");
    eventually("the server answers", STARTED_WITHIN, || async {
        let asked = Command::new(&ready)
            .args(["-q", "-h", "127.0.0.1", "-p", &number])
            .status()
            .await;
        asked.is_ok_and(|status| status.success())
    })
    .await;
    Some(server)
}

/// Starts MariaDB with the superuser `root`, who needs no password.
pub async fn mariadb() -> Option<Server> {
    mariadb_with(None).await
}

/// The same with TLS.
pub async fn mariadb_with(tls: Option<&Identity>) -> Option<Server> {
    const PACKAGE: &str = "mariadb-server";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_str().expect("the path is text").to_owned();
    // It does not run as root.
    let user = user("mysql");
    if let Some((user, group)) = user {
        std::os::unix::fs::chown(&path, Some(user), Some(group)).expect("root may");
    }
    let data = format!("--datadir={path}/data");
    let mut install = Launch::new(
        "mariadb-install-db",
        &[
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            &data,
        ],
    );
    install.user = user;
    // Two at a time disturb each other.
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let one = ONE.lock().await;
    let mut installing = install.spawn(folder.path(), PACKAGE)?;
    let installed = installing.wait().await.expect("it is ours");
    drop(one);
    let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap_or_default();
    assert!(installed.success(), "mariadb-install-db failed: {log}");
    let port = port::free();
    let [number, socket] = [format!("--port={port}"), format!("--socket={path}/socket")];
    let mut launch = Launch::new(
        "mariadbd",
        &[
            "--no-defaults",
            &data,
            &number,
            &socket,
            "--bind-address=127.0.0.1",
        ],
    );
    if let Some(identity) = tls {
        let [certificate, key] = identity.write(folder.path(), user);
        launch.arguments.extend([
            format!("--ssl-cert={certificate}"),
            format!("--ssl-key={key}"),
        ]);
    }
    launch.user = user;
    started(launch, folder, port, PACKAGE).await
}

/// Starts `memcached`, for values of up to 8 MiB.
pub async fn memcached() -> Option<Server> {
    let port = port::free();
    let number = port.to_string();
    let arguments = [
        "-u",
        "root",
        "-l",
        "127.0.0.1",
        "-p",
        &number,
        "-m",
        "64",
        "-I",
        "8m",
    ];
    start("memcached", &arguments, port, "memcached").await
}

/// Starts Mosquitto, which keeps messages over a restart: it writes them down
/// after every change.
pub async fn mosquitto() -> Option<Server> {
    mosquitto_with(None).await
}

/// The same with TLS.
pub async fn mosquitto_with(tls: Option<&Identity>) -> Option<Server> {
    let port = port::free();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().display();
    let tls = tls.map_or_else(String::new, |identity| {
        let [certificate, key] = identity.write(folder.path(), None);
        format!("certfile {certificate}\nkeyfile {key}\n")
    });
    let text = format!(
        "listener {port} 127.0.0.1\n{tls}allow_anonymous true\nuser root\npersistence true\n\
        persistence_location {path}/\nautosave_on_changes true\nautosave_interval 1\n\
        max_queued_messages 100000\n"
    );
    let file = folder.path().join("mosquitto.conf");
    std::fs::write(&file, text).expect("write");
    let file = file.to_str().expect("the path is text");
    let launch = Launch::new("mosquitto", &["-c", file]);
    started(launch, folder, port, "mosquitto").await
}

/// Starts a mail server of aiosmtpd, as a script says. With a certificate and its
/// key, in one text, it offers TLS.
pub async fn smtp(script: &str, pem: Option<&str>) -> Option<Server> {
    const PACKAGE: &str = "python3-aiosmtpd";
    if !Path::new("/usr/bin/aiosmtpd").exists() {
        missing("aiosmtpd", PACKAGE);
        return None;
    }
    let port = port::free();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_str().expect("the path is text").to_owned();
    std::fs::write(folder.path().join("server.py"), script).expect("write");
    let certificate = match pem {
        Some(pem) => {
            std::fs::write(folder.path().join("server.pem"), pem).expect("write");
            format!("{path}/server.pem")
        }
        None => String::new(),
    };
    let program = format!("{path}/server.py");
    let number = port.to_string();
    let arguments = [&*program, &path, &number, &certificate, "later"];
    // Debian's, which has the package.
    let launch = Launch::new("/usr/bin/python3", &arguments);
    started(launch, folder, port, PACKAGE).await
}

/// Starts RabbitMQ with the user `guest`.
pub async fn rabbitmq() -> Option<Server> {
    rabbitmq_with(None).await
}

/// The same with TLS.
pub async fn rabbitmq_with(tls: Option<&Identity>) -> Option<Server> {
    const PACKAGE: &str = "rabbitmq-server";
    let [port, distribution, mapper] = [port::free(), port::free(), port::free()];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_str().expect("the path is text").to_owned();
    // The script of the path changes to another user; this is the server.
    let mut launch = Launch::new("/usr/lib/rabbitmq/bin/rabbitmq-server", &[]);
    for (name, value) in [
        ("HOME", path.clone()),
        ("RABBITMQ_MNESIA_BASE", format!("{path}/mnesia")),
        ("RABBITMQ_LOG_BASE", format!("{path}/log")),
        ("RABBITMQ_CONFIG_FILE", format!("{path}/rabbitmq.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", format!("{path}/plugins")),
        ("RABBITMQ_NODENAME", format!("test{port}@localhost")),
        ("RABBITMQ_DIST_PORT", distribution.to_string()),
        ("ERL_EPMD_PORT", mapper.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
    ] {
        launch.environment.push((name.to_owned(), value));
    }
    std::fs::write(format!("{path}/plugins"), "[].").expect("write");
    let settings = match tls {
        None => format!("listeners.tcp.default = 127.0.0.1:{port}\n"),
        Some(identity) => {
            let [certificate, key] = identity.write(folder.path(), None);
            format!(
                "listeners.tcp = none\nlisteners.ssl.default = 127.0.0.1:{port}\n\
                ssl_options.cacertfile = {certificate}\nssl_options.certfile = {certificate}\n\
                ssl_options.keyfile = {key}\n"
            )
        }
    };
    std::fs::write(format!("{path}/rabbitmq.conf"), settings).expect("write");
    // It refuses as long as it knows of a node.
    let end = format!("for i in 1 2 3 4 5; do epmd -port {mapper} -kill && break; sleep 0.2; done");
    launch.after = Some(["sh", "-c", &end].map(str::to_owned).to_vec());
    started(launch, folder, port, PACKAGE).await
}

/// Starts etcd, alone.
pub async fn etcd() -> Option<Server> {
    etcd_with(None).await
}

/// The same with TLS, for clients that have the same certificate.
pub async fn etcd_with(tls: Option<&Identity>) -> Option<Server> {
    let [port, peers] = [port::free(), port::free()];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scheme = if tls.is_some() { "https" } else { "http" };
    let clients = format!("{scheme}://127.0.0.1:{port}");
    let peers = format!("http://127.0.0.1:{peers}");
    let mut arguments = vec![
        ["--data-dir", "data"],
        ["--listen-client-urls", &clients],
        ["--advertise-client-urls", &clients],
        ["--listen-peer-urls", &peers],
    ];
    let files = tls.map(|identity| identity.write(folder.path(), None));
    if let Some([certificate, key]) = &files {
        arguments.extend([
            ["--cert-file", certificate],
            ["--key-file", key],
            ["--trusted-ca-file", certificate],
        ]);
    }
    let mut launch = Launch::new("etcd", arguments.as_flattened());
    if tls.is_some() {
        launch.arguments.push("--client-cert-auth".to_owned());
    }
    started(launch, folder, port, "etcd-server").await
}

/// Starts `nats-server` with JetStream.
pub async fn nats() -> Option<Server> {
    nats_with(None).await
}

/// The same with TLS.
pub async fn nats_with(tls: Option<&Identity>) -> Option<Server> {
    let port = port::free();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let number = port.to_string();
    let arguments = ["-a", "127.0.0.1", "-p", &number, "-js", "-sd", "data"];
    let mut launch = Launch::new("nats-server", &arguments);
    if let Some(identity) = tls {
        let [certificate, key] = identity.write(folder.path(), None);
        let more = ["--tls", "--tlscert", &certificate, "--tlskey", &key];
        launch.arguments.extend(more.map(str::to_owned));
    }
    started(launch, folder, port, "nats-server").await
}

impl Server {
    /// Makes a stream of JetStream, in files.
    pub async fn nats_stream(&self, name: &str, subject: &str) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let config = format!(
            r#"{{"name":"{name}","subjects":["{subject}"],"storage":"file","num_replicas":1,"retention":"limits","discard":"old","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0}}"#
        );
        let text = format!(
            "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\n\
            PUB $JS.API.STREAM.CREATE.{name} answer {}\r\n{config}\r\n",
            config.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("listens");
        stream.write_all(text.as_bytes()).await.expect("writes");
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains("did_create") {
            let read = stream.read_buf(&mut said).await.expect("answers");
            assert!(read > 0, "{}", String::from_utf8_lossy(&said));
        }
    }
}
