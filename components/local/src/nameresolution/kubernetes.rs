//! The services that Kubernetes has for annotated pods:
//! <https://docs.dapr.io/reference/components-reference/supported-name-resolution/nr-kubernetes/>.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use outrider_components::resolve::{Request, Resolver};
use outrider_components::{Error, Kind};
use serde_json::Value;

/// How long the answer of a name server is used: what name servers in
/// Kubernetes ask for, so that new pods are found and old ones are left.
/// <https://coredns.io/plugins/kubernetes/>
const KEPT: Duration = Duration::from_secs(5);
/// While one caller asks anew the others use the last answer, this long before
/// another of them asks too.
const ASKING: Duration = Duration::from_secs(1);
/// How long an answer that nobody asked for stays in memory.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// How long an address that did not answer is passed over if there are others:
/// name servers give it a while longer.
const SUSPECTED: Duration = Duration::from_secs(10);

struct Kubernetes {
    name: Template,
    answers: Mutex<HashMap<String, Answer>>,
    suspects: Mutex<HashMap<SocketAddr, Instant>>,
}

struct Answer {
    addresses: Arc<[SocketAddr]>,
    until: Instant,
}

/// What is known of a name.
enum Kept {
    Fresh(Arc<[SocketAddr]>),
    /// It is this caller's turn to ask anew.
    Stale(Arc<[SocketAddr]>),
    Nothing,
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

/// Reads the settings `clusterDomain` and `template`.
pub fn start(config: &Value) -> Result<Arc<dyn Resolver>, Error> {
    let name = match super::setting(config, "template") {
        Some(template) => Template::parse(template)?,
        None => {
            let domain = super::setting(config, "clusterDomain").unwrap_or("cluster.local");
            Template(vec![
                Piece::Id,
                Piece::Text("-dapr.".to_owned()),
                Piece::Namespace,
                Piece::Text(format!(".svc.{domain}:")),
                Piece::Port,
            ])
        }
    };
    Ok(Arc::new(Kubernetes {
        name,
        answers: Mutex::default(),
        suspects: Mutex::default(),
    }))
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

    fn fill(&self, request: &Request) -> String {
        let mut name = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Id => name.push_str(&request.app_id),
                Piece::Namespace => name.push_str(&request.namespace),
                Piece::Port => name.push_str(&request.port.to_string()),
            }
        }
        name
    }
}

impl Kubernetes {
    fn answers(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspects(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of the addresses, of which there is at least one: by chance among
    /// those that nobody suspects.
    fn choose(&self, addresses: &[SocketAddr]) -> SocketAddr {
        let chance = super::random() as usize;
        let (suspects, now) = (self.suspects(), Instant::now());
        let is_good =
            |address: &&SocketAddr| suspects.get(*address).is_none_or(|until| *until < now);
        let good = || addresses.iter().filter(is_good);
        match good().count() {
            0 => addresses[chance % addresses.len()],
            count => *good().nth(chance % count).unwrap_or(&addresses[0]),
        }
    }

    fn kept(&self, name: &str) -> Kept {
        let mut answers = self.answers();
        let Some(answer) = answers.get_mut(name) else {
            return Kept::Nothing;
        };
        let addresses = Arc::clone(&answer.addresses);
        let now = Instant::now();
        if now < answer.until {
            return Kept::Fresh(addresses);
        }
        answer.until = now + ASKING;
        Kept::Stale(addresses)
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
        let failed = |why: &str| {
            let text = format!("failed to resolve address for '{host}': {why}");
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
        answers.retain(|_, answer| now < answer.until + FORGOTTEN);
        let answer = Answer {
            addresses: Arc::clone(&addresses),
            until: now + KEPT,
        };
        answers.insert(name.to_owned(), answer);
        Ok(addresses)
    }
}

#[async_trait]
impl Resolver for Kubernetes {
    async fn resolve(&self, request: &Request) -> Result<String, Error> {
        let name = self.name.fill(request);
        let addresses = match self.kept(&name) {
            Kept::Fresh(addresses) => addresses,
            // A name server that is away for a moment stops no calls.
            Kept::Stale(addresses) => {
                let found = self.look_up(&name, request.port).await;
                found.unwrap_or(addresses)
            }
            Kept::Nothing => self.look_up(&name, request.port).await?,
        };
        Ok(self.choose(&addresses).to_string())
    }

    fn suspect(&self, request: &Request, address: &str) {
        self.answers().remove(&self.name.fill(request));
        let Ok(address) = address.parse() else {
            return;
        };
        let now = Instant::now();
        let mut suspects = self.suspects();
        suspects.retain(|_, until| now < *until);
        suspects.insert(address, now + SUSPECTED);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request() -> Request {
        Request {
            app_id: "cart".to_owned(),
            namespace: "shop".to_owned(),
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
    async fn the_name_follows_the_cluster_s_domain() {
        for (config, name) in [
            (Value::Null, "cart-dapr.shop.svc.cluster.local"),
            (
                json!({"clusterDomain": "k8s.example"}),
                "cart-dapr.shop.svc.k8s.example",
            ),
        ] {
            // No name server knows these, and the error says what was asked.
            let resolver = start(&config).expect("is right");
            let error = resolver.resolve(&request()).await.expect_err("is unknown");
            let start = format!("failed to resolve address for '{name}': ");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_kept_until_it_is_suspected() {
        let resolver = Kubernetes {
            name: Template::parse("localhost:{{.Port}}").expect("is right"),
            answers: Mutex::default(),
            suspects: Mutex::default(),
        };
        let address = resolver
            .resolve(&request())
            .await
            .expect("is in every hosts file");
        assert!(address.ends_with(":50002"), "{address}");
        assert!(matches!(resolver.kept("localhost:50002"), Kept::Fresh(_)));

        resolver.suspect(&request(), &address);
        assert!(matches!(resolver.kept("localhost:50002"), Kept::Nothing));
    }

    #[tokio::test]
    async fn one_caller_asks_anew_while_the_others_go_on() {
        let old = || Answer {
            addresses: Arc::new(["10.0.0.1:1".parse().expect("is one")]),
            until: Instant::now(),
        };
        let resolver = Kubernetes {
            name: Template(vec![Piece::Id]),
            // No name server knows the first.
            answers: Mutex::new(
                ["cart", "localhost"]
                    .map(|name| (name.to_owned(), old()))
                    .into(),
            ),
            suspects: Mutex::default(),
        };
        assert!(matches!(resolver.kept("cart"), Kept::Stale(_)));
        assert!(matches!(resolver.kept("cart"), Kept::Fresh(_)));
        resolver.answers().insert("cart".to_owned(), old());
        let asked = async |app_id: &str| {
            let request = Request {
                app_id: app_id.to_owned(),
                ..request()
            };
            resolver.resolve(&request).await.expect("is known")
        };
        assert_eq!(asked("cart").await, "10.0.0.1:1");
        assert!(asked("localhost").await.ends_with(":50002"));
    }

    #[tokio::test]
    async fn every_address_of_a_service_gets_calls_unless_it_is_suspected() {
        let addresses: Arc<[SocketAddr]> = ["10.0.0.1:1", "10.0.0.2:1"]
            .map(|text| text.parse().expect("is one"))
            .into();
        let resolver = Kubernetes {
            name: Template(vec![Piece::Id]),
            answers: Mutex::default(),
            suspects: Mutex::default(),
        };
        let seen = async || {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..200 {
                // What a name server says once more after a suspicion.
                let answer = Answer {
                    addresses: addresses.clone(),
                    until: Instant::now() + KEPT,
                };
                resolver.answers().insert("cart".to_owned(), answer);
                seen.insert(resolver.resolve(&request()).await.expect("is kept"));
            }
            Vec::from_iter(seen)
        };
        assert_eq!(seen().await.len(), 2);
        resolver.suspect(&request(), "10.0.0.1:1");
        assert_eq!(seen().await, ["10.0.0.2:1"]);
        // With nothing better left, those that did not answer are tried again.
        resolver.suspect(&request(), "10.0.0.2:1");
        assert_eq!(seen().await.len(), 2);
    }
}
