//! `nameresolution.hashicorp.consul`: <https://docs.dapr.io/reference/components-reference/supported-name-resolution/setup-nr-consul/>.
//!
//! A sidecar is a healthy instance of the service that is called like its
//! application; the port is in the service's metadata.

mod client;
mod keep;
mod settings;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use outrider_components::resolve::{Request, Resolver};
use outrider_components::{Context, Error, Field, FieldValue, Metadata};
use serde_json::Value;

use self::client::{Consul, Instance};
use self::keep::Kept;
use self::settings::Settings;

/// The settings of the Configuration.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// How the agent is reached: `address` (`127.0.0.1:8500`), `scheme`,
        /// `datacenter`, `namespace`, `partition`, `token` or `tokenFile`,
        /// `httpAuth` (`username`, `password`), `tlsConfig` (`caFile`,
        /// `certFile`, `keyFile`, `insecureSkipVerify`; with `address` or
        /// `caPath` it does not start). What it leaves out is taken from the
        /// variables `CONSUL_HTTP_ADDR` and its like.
        "client" => _client: Nested;
        /// Of searches: `datacenter`, `namespace`, `partition`, `token`, `near`,
        /// `filter`, `nodeMeta`, `allowStale`, `requireConsistent`, `useCache`,
        /// `maxAge`, `staleIfError`, `waitTime`. Without it the agent's cache
        /// may answer.
        "queryOptions" => _query: Nested;
        /// Whether the application registers itself, with its sidecar's health
        /// as a check.
        "selfRegister" => register: bool = "false";
        /// Whether it is taken out again at the end.
        "selfDeregister" => deregister: bool = "false";
        /// Checks instead of that one.
        "checks" => _checks: Nested;
        /// Tags of the service that registers itself.
        "tags" => _tags: Nested;
        /// Metadata of the service that registers itself.
        "meta" => _meta: Nested;
        /// A whole registration of a service, instead of all these.
        "advancedRegistration" => _advanced: Nested;
        /// The key in the metadata of a service that has the port of its
        /// sidecar.
        "daprPortMetaKey" => port_key: String = "DAPR_PORT";
        /// Whether results are kept, and followed by watches.
        "useCache" => keeps: bool = "false";
    }
}

/// An object or a list, which `settings.rs` reads.
#[derive(Debug, Clone)]
struct Nested;

impl FieldValue for Nested {
    const KIND: &'static str = "object or list";
    const OPTIONAL: bool = true;

    fn parse(_: &str) -> Result<Nested, String> {
        Err("must be an object or a list".to_owned())
    }

    fn absent() -> Option<Nested> {
        Some(Nested)
    }
}

/// How long an address at which nothing answered comes last.
const SUSPECT_TTL: Duration = Duration::from_secs(5);
const SCOPE: &str = "dapr.contrib";

struct Names {
    consul: Arc<Consul>,
    settings: Arc<Settings>,
    kept: Option<Kept>,
    next: AtomicUsize,
    suspects: Mutex<HashMap<String, Instant>>,
}

/// Registers the application where that is wanted, or else asks whether there
/// is an agent.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Resolver>, Error> {
    let fields = Fields::read(&metadata)?;
    let configuration = metadata.object().unwrap_or(&Value::Null);
    let settings = Settings::read(configuration, fields, &context).await?;
    let consul = Arc::new(Consul::new(settings.agent.clone())?);
    let at = |what: &str| format!("{what} at {}", consul.address());
    match &settings.registration {
        Some(service) => {
            let registered = consul.register(service).await;
            registered.map_err(|e| e.context(&at("failed to register consul service")))?;
            let name = settings::text(service, "name");
            tracing::info!(target: SCOPE, "service:{name} registered on consul agent");
        }
        None => {
            let checked = consul.check().await;
            checked.map_err(|error| error.context(&at("failed check on consul agent")))?;
        }
    }
    let settings = Arc::new(settings);
    let kept = settings
        .keeps
        .then(|| Kept::new(consul.clone(), settings.clone()));
    Ok(Arc::new(Names {
        consul,
        settings,
        kept,
        next: AtomicUsize::new(0),
        suspects: Mutex::default(),
    }))
}

impl Names {
    fn suspects(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.suspects.lock().unwrap_or_else(|e| e.into_inner())
    }

    async fn instances(&self, app_id: &str) -> Result<Vec<Instance>, Error> {
        if let Some(instances) = self.kept.as_ref().and_then(|kept| kept.get(app_id)) {
            return Ok(instances);
        }
        let Settings {
            search, port_key, ..
        } = &*self.settings;
        let found = self.consul.search(app_id, search, port_key, None).await;
        let at = self.consul.address();
        let failed = format!("failed to query healthy consul services at {at}");
        Ok(found.map_err(|error| error.context(&failed))?.instances)
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, request: &Request<'_>) -> Result<String, Error> {
        let app_id = request.app_id;
        let instances = self.instances(app_id).await?;
        let at = self.consul.address();
        let none = || {
            Error::not_found(format!(
                "no healthy services found with AppID '{app_id}' (consul at {at} was asked)"
            ))
        };
        let mut addresses = Vec::with_capacity(instances.len());
        for Instance { host, port } in instances.iter().filter(|i| !i.host.is_empty()) {
            if let Some(port) = port {
                addresses.push(address(host, port)?);
            }
        }
        if addresses.is_empty() {
            let has_host = instances.iter().any(|instance| !instance.host.is_empty());
            return Err(match has_host {
                true => Error::internal(format!(
                    "target service AppID '{app_id}' found but {} missing from meta",
                    self.settings.port_key
                )),
                false => none(),
            });
        }
        let now = Instant::now();
        let suspects = self.suspects();
        let is_good = |address: &&String| suspects.get(*address).is_none_or(|until| *until < now);
        let good: Vec<&String> = addresses.iter().filter(is_good).collect();
        let all: Vec<&String> = match good.is_empty() {
            true => addresses.iter().collect(),
            false => good,
        };
        let next = self.next.fetch_add(1, Ordering::Relaxed) % all.len();
        all.get(next)
            .map(|address| (*address).clone())
            .ok_or_else(none)
    }

    fn suspect(&self, _: &Request<'_>, address: &str) {
        let now = Instant::now();
        let mut suspects = self.suspects();
        suspects.retain(|_, until| now < *until);
        suspects.insert(address.to_owned(), now + SUSPECT_TTL);
    }

    async fn close(&self) -> Result<(), Error> {
        if let Some(kept) = &self.kept {
            kept.close();
        }
        let Some(service) = &self.settings.registration else {
            return Ok(());
        };
        if !self.settings.deregister {
            return Ok(());
        }
        let deregistered = self.consul.deregister(settings::service_id(service)).await;
        deregistered.map_err(|error| error.context("failed to deregister consul service"))?;
        tracing::info!(target: SCOPE, "deregistered service from consul");
        Ok(())
    }
}

/// Host and port as one text. What is neither an address nor a name is refused.
fn address(host: &str, port: &str) -> Result<String, Error> {
    let is_name = |host: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !host.is_empty() && host.chars().all(is_part)
    };
    if port.parse::<u16>().is_err() {
        return Err(Error::internal(format!(
            "invalid port of a sidecar: {port}"
        )));
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => Ok(format!("[{address}]:{port}")),
        Ok(IpAddr::V4(address)) => Ok(format!("{address}:{port}")),
        Err(_) if is_name(host) => Ok(format!("{host}:{port}")),
        Err(_) => Err(Error::internal(format!(
            "invalid ip address or unreachable hostname: {host}"
        ))),
    }
}

#[cfg(test)]
mod tests;
