//! What runs in a scenario, and what is done to it.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::routing::{get, post};
use outrider_conformance::server::port;
use outrider_harness::http::Client;
use outrider_harness::{HttpApp, binary};
use serde_json::{Value, json};

use super::outcome::Counter;
use super::record::{Jobs, Records};
use super::truth::Page;
use super::{ACTORS, Fault, Kind, LIMIT, RECOVERY, SLOW, Target};
use crate::pod::Pod;
use crate::program::{Launch, Program};
use crate::proxy::Proxy;
use crate::sandbox;
use crate::side::{Setting, Side, Sidecar, answers};
use crate::wait;

const RESILIENCY: &str = "
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: limits}
spec:
  policies:
    timeouts: {call: 5s, store: 3s}
  targets:
    actors:
      counter: {timeout: call}
    components:
      store: {outbound: {timeout: store}}
";
const HOSTS: usize = 2;
/// Dapr's scheduler reserves space beforehand.
const DISK: &str = "200m";

/// A program with an address, and its gRPC or other port.
struct Service {
    program: Program,
    pod: Pod,
    address: SocketAddr,
    /// Where sidecars find it: the address, or a proxy before it.
    proxy: Option<Proxy>,
    healthz: Option<Client>,
}

impl Service {
    fn reached_at(&self) -> SocketAddr {
        self.proxy
            .as_ref()
            .map_or(self.address, |proxy| proxy.address)
    }
}

struct Host {
    sidecar: Sidecar,
    app: Program,
    pod: Pod,
}

pub struct Cluster {
    placement: Service,
    scheduler: Service,
    store: Service,
    hosts: Vec<Host>,
    client: Sidecar,
    jobs: Jobs,
    /// The folder of the scheduler's disk, where it is one of its own.
    disk: Option<PathBuf>,
    _jobs_app: HttpApp,
    _client_pod: Pod,
}

/// Where everything of one scenario comes from.
struct Making<'a> {
    side: &'a Side,
    folder: &'a Path,
    faults: &'a [Fault],
    /// Whether each gets an address of its own.
    namespaces: bool,
}

impl Making<'_> {
    fn pod(&self) -> Result<Pod> {
        if self.namespaces {
            Pod::new()
        } else {
            Ok(Pod::local())
        }
    }

    fn has(&self, is_it: impl Fn(&Fault) -> bool) -> bool {
        self.faults.iter().any(is_it)
    }

    /// A way on which things can take longer, if this scenario needs one.
    async fn proxy(&self, from: IpAddr, target: Target, to: SocketAddr) -> Result<Option<Proxy>> {
        let is_slow = |(kind, it): &Fault| *it == target && matches!(kind, Kind::Slow(_));
        Ok(match self.has(is_slow) {
            true => Some(Proxy::start(from, to).await?),
            false => None,
        })
    }

    async fn service(
        &self,
        name: &str,
        gateway: IpAddr,
        target: Target,
        more: impl FnOnce(SocketAddr) -> Vec<String>,
    ) -> Result<Service> {
        let (pod, healthz) = (self.pod()?, port::free());
        let address = SocketAddr::new(pod.address, port::free());
        let proxy = self.proxy(gateway, target, address).await?;
        let reached = proxy.as_ref().map_or(address, |proxy| proxy.address);
        let launch = Launch::new(self.side.program(name)?, &pod)
            .with([
                format!("--port={}", address.port()),
                format!("--healthz-port={healthz}"),
                format!("--metrics-port={}", port::free()),
                "--listen-address=0.0.0.0".to_owned(),
                "--healthz-listen-address=0.0.0.0".to_owned(),
                "--metrics-listen-address=127.0.0.1".to_owned(),
                "--log-level=info".to_owned(),
            ])
            .with(more(reached));
        let program = Program::start(name, launch, self.folder)?;
        let client = Client::at(&format!("{}:{healthz}", pod.address));
        answers(&client, "/healthz", &program)
            .await
            .context(name.to_owned())?;
        Ok(Service {
            program,
            pod,
            address,
            proxy,
            healthz: Some(client),
        })
    }

    async fn store(&self, gateway: IpAddr) -> Result<Service> {
        let pod = self.pod()?;
        let address = SocketAddr::new(pod.address, port::free());
        let data = self.folder.join("store");
        std::fs::create_dir_all(&data)?;
        let proxy = self.proxy(gateway, Target::Store, address).await?;
        let words = format!(
            "--port {} --bind 0.0.0.0 --protected-mode no --appendonly yes --appendfsync always --save",
            address.port()
        );
        let launch = Launch::new("redis-server", &pod)
            .with(words.split(' ').map(str::to_owned))
            .with([
                String::new(),
                "--dir".to_owned(),
                data.display().to_string(),
            ]);
        let program = Program::start("redis", launch, self.folder)?;
        let listens = wait::until(LIMIT, || async {
            tokio::net::TcpStream::connect(address).await.is_ok()
        });
        ensure!(
            listens.await,
            "redis-server does not listen: {}",
            program.last_words()
        );
        Ok(Service {
            program,
            pod,
            address,
            proxy,
            healthz: None,
        })
    }

    async fn host(&self, number: usize, sidecar: &Sidecars<'_>) -> Result<Host> {
        let pod = self.pod()?;
        let (app_port, http_port) = (port::free(), port::free());
        let launch = Launch::new(binary("counter")?, &pod)
            .env("APP_PORT", app_port)
            .env("DAPR_HTTP_PORT", http_port);
        let app = Program::start(&format!("counter-{number}"), launch, self.folder)?;
        let setting = sidecar.setting("counters", app_port, &pod);
        let sidecar = setting.start(http_port)?;
        Ok(Host { sidecar, app, pod })
    }
}

/// What all sidecars have.
struct Sidecars<'a> {
    making: &'a Making<'a>,
    resources: Vec<String>,
    flags: Vec<String>,
}

impl Sidecars<'_> {
    fn setting<'a>(&'a self, app_id: &'a str, app_port: u16, pod: &'a Pod) -> Setting<'a> {
        Setting {
            side: self.making.side,
            app_id,
            app_port: Some(app_port),
            resources: self.resources.clone(),
            flags: self.flags.clone(),
            pod,
            folder: self.making.folder,
        }
    }
}

/// The client's application, which only gets jobs.
async fn jobs_app(jobs: &Jobs) -> Result<HttpApp> {
    let jobs = jobs.clone();
    let came = move |axum::extract::Path(name): axum::extract::Path<String>| async move {
        let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.entry(name).or_default().push(SystemTime::now());
    };
    let config = || async { axum::Json(json!({"entities": []})) };
    let routes = Router::new()
        .route("/job/{name}", post(came))
        .route("/dapr/config", get(config));
    HttpApp::at(port::free(), routes).await
}

impl Cluster {
    pub async fn start(side: &Side, folder: &Path, faults: &[Fault]) -> Result<Cluster> {
        let client_pod = Pod::gateway()?;
        let namespaces = sandbox::is_inside();
        let client_pod = if namespaces { client_pod } else { Pod::local() };
        let gateway = client_pod.address;
        let making = Making {
            side,
            folder,
            faults,
            namespaces,
        };
        let data = folder.join("jobs");
        std::fs::create_dir_all(&data)?;
        let needs_disk = making.has(|(kind, _)| matches!(kind, Kind::Fill(_)));
        if needs_disk {
            let data = data.display();
            sandbox::run(&format!("mount -t tmpfs -o size={DISK} none {data}"))?;
        }
        let raft = port::free();
        let cluster = format!("--initial-cluster=dapr-placement-0=127.0.0.1:{raft}");
        let placement = making.service("placement", gateway, Target::Placement, |_| vec![cluster]);
        let placement = placement.await?;
        let scheduler = making.service("scheduler", gateway, Target::Scheduler, |reached| {
            vec![
                format!("--override-broadcast-host-port={reached}"),
                format!("--etcd-client-port={}", port::free()),
                format!(
                    "--etcd-initial-cluster=dapr-scheduler-server-0=http://127.0.0.1:{}",
                    port::free()
                ),
                format!("--etcd-data-dir={}", data.join("data").display()),
            ]
        });
        let scheduler = scheduler.await?;
        let store = making.store(gateway).await?;
        let component = format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: store}}\nspec: {{type: state.redis, version: v1, metadata: [{{name: redisHost, value: '{}'}}, {{name: actorStateStore, value: 'true'}}]}}\n",
            store.reached_at()
        );
        let sidecars = Sidecars {
            making: &making,
            resources: vec![component, RESILIENCY.to_owned()],
            flags: vec![
                format!("--placement-host-address={}", placement.reached_at()),
                format!("--scheduler-host-address={}", scheduler.reached_at()),
            ],
        };
        let mut hosts = Vec::new();
        for number in 0..HOSTS {
            hosts.push(making.host(number, &sidecars).await?);
        }
        let jobs = Jobs::default();
        let jobs_app = jobs_app(&jobs).await?;
        let client = sidecars
            .setting("client", jobs_app.port(), &client_pod)
            .ready()
            .await?;
        let cluster = Cluster {
            placement,
            scheduler,
            store,
            hosts,
            client,
            jobs,
            disk: needs_disk.then_some(data),
            _jobs_app: jobs_app,
            _client_pod: client_pod,
        };
        cluster.is_ready().await?;
        Ok(cluster)
    }

    /// Waits until both hosts host, and every actor answers.
    async fn is_ready(&self) -> Result<()> {
        for host in &self.hosts {
            host.sidecar.is_ready().await?;
            let http = host.sidecar.http();
            let hosts = wait::until(RECOVERY, || async {
                let answer = http.get("/v1.0/metadata").await;
                let metadata = answer.and_then(|answer| answer.json()).unwrap_or_default();
                metadata["actorRuntime"]["hostReady"] == true
            });
            ensure!(
                hosts.await,
                "no host: {}",
                host.sidecar.program.last_words()
            );
        }
        for actor in 0..ACTORS {
            let answers = wait::until(RECOVERY, || async { self.counter(actor).await.is_some() });
            ensure!(
                answers.await,
                "an actor does not answer: {}",
                self.client.program.log()
            );
        }
        Ok(())
    }

    pub fn client(&self) -> Client {
        self.client.http()
    }

    /// The health pages of everything of ours.
    pub fn pages(&self) -> Vec<Page> {
        let services = [&self.placement, &self.scheduler].map(|service| service.healthz.clone());
        let services = services
            .into_iter()
            .flatten()
            .map(|client| (client, "/healthz"));
        let sidecars = self
            .hosts
            .iter()
            .map(|host| &host.sidecar)
            .chain([&self.client]);
        let sidecars = sidecars.map(|sidecar| (sidecar.http(), "/v1.0/healthz"));
        services.chain(sidecars).collect()
    }

    pub fn records(&self) -> Records {
        let logs: Vec<String> = self.hosts.iter().map(|host| host.app.log()).collect();
        Records::new(&logs, &self.jobs)
    }

    /// What every counter says.
    pub async fn counters(&self) -> Result<Vec<Counter>> {
        let mut counters = Vec::new();
        for actor in 0..ACTORS {
            let counter = wait::some(RECOVERY, || self.counter(actor)).await;
            let counter =
                counter.with_context(|| format!("actor {actor} does not answer any more"))?;
            let reminders = counter["reminders"].as_object().into_iter().flatten();
            let often =
                |(name, often): (&String, &Value)| (name.clone(), often.as_u64().unwrap_or(0));
            counters.push(Counter {
                count: counter["count"].as_u64().unwrap_or(0),
                reminders: reminders.map(often).collect::<HashMap<_, _>>(),
            });
        }
        Ok(counters)
    }

    async fn counter(&self, actor: u64) -> Option<Value> {
        let path = format!("/v1.0/actors/counter/{actor}/method/get");
        let client = self.client();
        let asked = client.put(&path, &Value::Null);
        let answer = tokio::time::timeout(LIMIT, asked).await.ok()?.ok()?;
        if answer.status != 200 {
            return None;
        }
        answer
            .json()
            .ok()
            .filter(|counter| counter["count"].is_u64())
    }

    /// Does all of it, and mends it together; when it was mended.
    pub async fn harm(&mut self, faults: &[Fault]) -> Result<SystemTime> {
        let mut length = Duration::ZERO;
        for (kind, target) in faults {
            length = length.max(self.begin(*kind, *target).await?);
        }
        tokio::time::sleep(length).await;
        for (kind, target) in faults {
            self.mend(*kind, *target)?;
        }
        Ok(SystemTime::now())
    }

    fn program(&mut self, target: Target) -> &mut Program {
        match target {
            Target::Placement => &mut self.placement.program,
            Target::Scheduler => &mut self.scheduler.program,
            Target::Store => &mut self.store.program,
            Target::Sidecar | Target::Host => &mut self.hosts[0].sidecar.program,
            Target::Application => &mut self.hosts[0].app,
        }
    }

    fn service(&self, target: Target) -> Option<&Service> {
        match target {
            Target::Placement => Some(&self.placement),
            Target::Scheduler => Some(&self.scheduler),
            Target::Store => Some(&self.store),
            _ => None,
        }
    }

    fn pod(&self, target: Target) -> &Pod {
        self.service(target)
            .map_or(&self.hosts[0].pod, |service| &service.pod)
    }

    fn proxy(&self, target: Target) -> Result<&Proxy> {
        let service = self.service(target);
        let proxy = service.and_then(|service| service.proxy.as_ref());
        proxy.context("nothing is before it")
    }

    fn filler(&self) -> Result<PathBuf> {
        let disk = self.disk.as_ref().context("it has no disk of its own")?;
        Ok(disk.join("filler"))
    }

    /// How long it is to last.
    async fn begin(&mut self, kind: Kind, target: Target) -> Result<Duration> {
        match kind {
            Kind::Kill => {
                self.program(target).kill().await?;
            }
            Kind::Freeze(_) => self.program(target).freeze()?,
            Kind::Cut(_) => self.pod(target).cut()?,
            Kind::Slow(_) => self.proxy(target)?.slow_down(SLOW),
            Kind::Fill(_) => fill(&self.filler()?)?,
        }
        Ok(kind.length())
    }

    fn mend(&mut self, kind: Kind, target: Target) -> Result<()> {
        match kind {
            Kind::Kill => self.program(target).restart(),
            Kind::Freeze(_) => self.program(target).thaw(),
            Kind::Cut(_) => self.pod(target).join(),
            Kind::Slow(_) => {
                self.proxy(target)?.slow_down(Duration::ZERO);
                Ok(())
            }
            Kind::Fill(_) => Ok(std::fs::remove_file(self.filler()?)?),
        }
    }
}

/// Writes until nothing more fits.
fn fill(path: &Path) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    for size in [64 * 1024, 1] {
        let piece = vec![0; size];
        while file.write_all(&piece).is_ok() {}
    }
    Ok(())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            // Lazily, since the scheduler still has files there. Otherwise it ends with
            // the sandbox.
            let _ = sandbox::run(&format!("umount -l {}", disk.display()));
        }
    }
}
