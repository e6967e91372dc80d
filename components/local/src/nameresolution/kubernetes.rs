//! `nameresolution.kubernetes`: <https://docs.dapr.io/reference/components-reference/supported-name-resolution/nr-kubernetes/>.
//!
//! Asks DNS for the services that Dapr's operator makes for annotated pods.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use outrider_components::resolve::{Request, Resolver};
use outrider_components::{Context, Error, Field, Kind, Metadata};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// Domain of the cluster.
        "clusterDomain" => cluster_domain: String = "cluster.local";
        /// The address of a sidecar, with `{{.ID}}`, `{{.Namespace}}` and
        /// `{{.Port}}`. The service that the operator makes if absent.
        "template" => template: Option<String>;
    }
}

/// How long an answer of DNS is used: the time to live that DNS in Kubernetes
/// gives its answers. <https://coredns.io/plugins/kubernetes/>
const ANSWER_TTL: Duration = Duration::from_secs(5);
/// While one caller asks DNS again, the others use the old answer. If that
/// takes longer than this, another caller asks too.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an expired answer that is not used stays in memory.
const UNUSED_ANSWER_TTL: Duration = Duration::from_secs(60);
/// How long an address that did not answer is avoided if there are others: DNS
/// still gives it for a while.
const SUSPECT_TTL: Duration = Duration::from_secs(10);

struct Kubernetes {
    template: Template,
    answers: Mutex<HashMap<String, Answer>>,
    suspects: Mutex<HashMap<SocketAddr, Instant>>,
}

struct Answer {
    addresses: Arc<[SocketAddr]>,
    until: Instant,
}

/// What the cache says about a name.
enum Cached {
    Fresh(Arc<[SocketAddr]>),
    /// Expired: this caller is to ask DNS again.
    Stale(Arc<[SocketAddr]>),
    Missing,
}

/// Text with fields of the request in it.
#[derive(Debug, PartialEq)]
struct Template(Vec<Piece>);

#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Id,
    Namespace,
    Port,
}

/// Reads the template. Asks DNS for nothing yet.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Resolver>, Error> {
    let fields = Fields::read(&metadata)?;
    let template = match fields.template {
        Some(template) => Template::parse(&template)?,
        None => Template(vec![
            Piece::Id,
            Piece::Text("-dapr.".to_owned()),
            Piece::Namespace,
            Piece::Text(format!(".svc.{}:", fields.cluster_domain)),
            Piece::Port,
        ]),
    };
    Ok(Arc::new(Kubernetes::new(template)))
}

impl Template {
    /// Reads `{{.ID}}`, `{{.Namespace}}` and `{{.Port}}`.
    fn parse(text: &str) -> Result<Template, Error> {
        let wrong = |what: &str| {
            Error::invalid(format!(
                "template: {what}: only {{{{.ID}}}}, {{{{.Namespace}}}} and {{{{.Port}}}} are understood"
            ))
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, tail)) = rest.split_once("{{") {
            let (field, after) = tail.split_once("}}").ok_or_else(|| wrong(text))?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(match field.trim() {
                ".ID" => Piece::Id,
                ".Namespace" => Piece::Namespace,
                ".Port" => Piece::Port,
                other => return Err(wrong(other)),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Template(pieces))
    }

    fn fill(&self, request: &Request<'_>) -> String {
        let mut name = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Id => name.push_str(request.app_id),
                Piece::Namespace => name.push_str(request.namespace),
                Piece::Port => name.push_str(&request.port.to_string()),
            }
        }
        name
    }
}

impl Kubernetes {
    fn new(template: Template) -> Kubernetes {
        Kubernetes {
            template,
            answers: Mutex::default(),
            suspects: Mutex::default(),
        }
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspects(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A random one of the addresses, of which there is at least one. Suspects
    /// only if there are no others.
    fn choose(&self, addresses: &[SocketAddr]) -> SocketAddr {
        let random = super::random() as usize;
        let (suspects, now) = (self.suspects(), Instant::now());
        let is_good =
            |address: &&SocketAddr| suspects.get(*address).is_none_or(|until| *until < now);
        let good = || addresses.iter().filter(is_good);
        match good().count() {
            0 => addresses[random % addresses.len()],
            count => *good().nth(random % count).unwrap_or(&addresses[0]),
        }
    }

    fn cached(&self, name: &str) -> Cached {
        let mut answers = self.answers();
        let Some(answer) = answers.get_mut(name) else {
            return Cached::Missing;
        };
        let addresses = Arc::clone(&answer.addresses);
        let now = Instant::now();
        if now < answer.until {
            return Cached::Fresh(addresses);
        }
        answer.until = now + REFRESH_TIMEOUT;
        Cached::Stale(addresses)
    }

    async fn look_up(&self, name: &str, port: u16) -> Result<Arc<[SocketAddr]>, Error> {
        let (host, port) = match name.rsplit_once(':') {
            None => (name, port),
            Some((host, port)) => {
                let port = port.parse().map_err(|_| {
                    Error::invalid(format!("the port of the address '{name}' is not a number"))
                })?;
                (host, port)
            }
        };
        let failed = |cause: &str| {
            let text = format!("failed to resolve address for '{host}': {cause}");
            Error::new(Kind::Unavailable, text)
        };
        let mut addresses: Vec<_> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| failed(&error.to_string()))?
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(failed("no such host"));
        }
        let addresses: Arc<[SocketAddr]> = addresses.into();
        let now = Instant::now();
        let mut answers = self.answers();
        answers.retain(|_, answer| now < answer.until + UNUSED_ANSWER_TTL);
        let answer = Answer {
            addresses: Arc::clone(&addresses),
            until: now + ANSWER_TTL,
        };
        answers.insert(name.to_owned(), answer);
        Ok(addresses)
    }
}

#[async_trait]
impl Resolver for Kubernetes {
    async fn resolve(&self, request: &Request<'_>) -> Result<String, Error> {
        let name = self.template.fill(request);
        let addresses = match self.cached(&name) {
            Cached::Fresh(addresses) => addresses,
            // Calls go on while DNS fails.
            Cached::Stale(addresses) => {
                let found = self.look_up(&name, request.port).await;
                found.unwrap_or(addresses)
            }
            Cached::Missing => self.look_up(&name, request.port).await?,
        };
        Ok(self.choose(&addresses).to_string())
    }

    fn suspect(&self, request: &Request<'_>, address: &str) {
        self.answers().remove(&self.template.fill(request));
        let Ok(address) = address.parse() else {
            return;
        };
        let now = Instant::now();
        let mut suspects = self.suspects();
        suspects.retain(|_, until| now < *until);
        suspects.insert(address, now + SUSPECT_TTL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request<'static> {
        Request {
            app_id: "cart",
            namespace: "shop",
            port: 50002,
        }
    }

    #[test]
    fn templates() {
        let template = Template::parse("{{.ID}}-dapr.{{ .Namespace }}.svc.x:{{.Port}}");
        assert_eq!(
            template.expect("is right").fill(&request()),
            "cart-dapr.shop.svc.x:50002"
        );
        for wrong in ["{{.Data.region}}", "{{.ID", "{{ if .ID }}x{{ end }}"] {
            let error = Template::parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains("only {{.ID}}"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_service_is_in_the_domain_of_the_cluster() {
        for (properties, name) in [
            (&[][..], "cart-dapr.shop.svc.cluster.local"),
            (
                &[("clusterDomain", "k8s.example")],
                "cart-dapr.shop.svc.k8s.example",
            ),
        ] {
            // These names do not exist, and the error has the name.
            let metadata = Metadata::new("nr", properties.iter().copied());
            let resolver = connect(metadata, Context::default()).await;
            let resolver = resolver.expect("is right");
            let error = resolver.resolve(&request()).await.expect_err("is unknown");
            let start = format!("failed to resolve address for '{name}': ");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_cached_until_one_of_its_addresses_fails() {
        let template = Template::parse("localhost:{{.Port}}").expect("is right");
        let resolver = Kubernetes::new(template);
        let address = resolver
            .resolve(&request())
            .await
            .expect("is in every hosts file");
        assert!(address.ends_with(":50002"), "{address}");
        assert!(matches!(
            resolver.cached("localhost:50002"),
            Cached::Fresh(_)
        ));

        resolver.suspect(&request(), &address);
        assert!(matches!(
            resolver.cached("localhost:50002"),
            Cached::Missing
        ));
    }

    #[tokio::test]
    async fn one_caller_refreshes_a_stale_answer_that_the_others_use() {
        let old = || Answer {
            addresses: Arc::new(["10.0.0.1:1".parse().expect("is one")]),
            until: Instant::now(),
        };
        let resolver = Kubernetes::new(Template(vec![Piece::Id]));
        // DNS does not have the first.
        for name in ["cart", "localhost"] {
            resolver.answers().insert(name.to_owned(), old());
        }
        assert!(matches!(resolver.cached("cart"), Cached::Stale(_)));
        assert!(matches!(resolver.cached("cart"), Cached::Fresh(_)));
        resolver.answers().insert("cart".to_owned(), old());
        let resolve = async |app_id: &str| {
            let request = Request {
                app_id,
                ..request()
            };
            resolver.resolve(&request).await.expect("is known")
        };
        assert_eq!(resolve("cart").await, "10.0.0.1:1");
        assert!(resolve("localhost").await.ends_with(":50002"));
    }

    #[tokio::test]
    async fn every_address_of_a_service_gets_calls_unless_it_is_a_suspect() {
        let addresses: Arc<[SocketAddr]> = ["10.0.0.1:1", "10.0.0.2:1"]
            .map(|text| text.parse().expect("is one"))
            .into();
        let resolver = Kubernetes::new(Template(vec![Piece::Id]));
        let seen = async || {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..200 {
                // DNS still gives the suspect.
                let answer = Answer {
                    addresses: addresses.clone(),
                    until: Instant::now() + ANSWER_TTL,
                };
                resolver.answers().insert("cart".to_owned(), answer);
                seen.insert(resolver.resolve(&request()).await.expect("is cached"));
            }
            Vec::from_iter(seen)
        };
        assert_eq!(seen().await.len(), 2);
        resolver.suspect(&request(), "10.0.0.1:1");
        assert_eq!(seen().await, ["10.0.0.2:1"]);
        // If all are suspects, all are tried again.
        resolver.suspect(&request(), "10.0.0.2:1");
        assert_eq!(seen().await.len(), 2);
    }
}
