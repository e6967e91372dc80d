//! What a Configuration says about Consul. Names match in any case; what it
//! leaves out may be said by the variables of Consul's own programs:
//! <https://developer.hashicorp.com/consul/commands#environment-variables>.

use std::time::Duration;

use outrider_components::{Context, Error, Secret};
use outrider_kit::duration;
use serde_json::{Map, Value, json};

use super::Fields;

const DEFAULT_ADDRESS: &str = "127.0.0.1:8500";
/// How often the agent looks whether a sidecar that registered itself is there.
const CHECK_INTERVAL: &str = "15s";

/// How the agent is reached.
#[derive(Debug, Clone)]
pub struct Agent {
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port.
    pub address: String,
    pub token: Option<Secret>,
    pub login: Option<(String, Secret)>,
    /// Certificates that the agent's one has to be issued by, in PEM.
    pub root: Option<Vec<u8>>,
    /// Client certificate and key, in PEM.
    pub identity: Option<Vec<u8>>,
    pub insecure: bool,
    /// Of every request: data center, namespace, partition.
    pub query: Vec<(&'static str, String)>,
}

/// What a search for instances says besides the name.
#[derive(Debug, Clone, Default)]
pub struct Search {
    pub query: Vec<(&'static str, String)>,
    pub token: Option<Secret>,
    /// Answers may come from the agent's cache, with this header.
    pub cache_control: Option<String>,
    /// Whether the agent's cache may answer at all.
    pub cached: bool,
    /// How long a search waits for changes.
    pub wait: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub agent: Agent,
    pub search: Search,
    /// What is registered, as the agent takes it.
    pub registration: Option<Value>,
    pub deregister: bool,
    /// The key in the metadata of a service that has the port of the sidecar.
    pub port_key: String,
    /// Whether results are kept, and followed.
    pub keeps: bool,
}

/// The members of an object, by name in any case.
struct Members<'a> {
    of: &'a str,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Members<'a> {
    fn new(of: &'a str, value: &'a Value) -> Result<Members<'a>, Error> {
        match value {
            Value::Null => Ok(Members { of, map: None }),
            Value::Object(map) => Ok(Members { of, map: Some(map) }),
            _ => Err(wrong(of, "must be an object")),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        let mut members = self.map?.iter();
        let found = members.find(|(have, _)| have.eq_ignore_ascii_case(name));
        found
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    }

    fn object(&self, name: &'a str) -> Result<Members<'a>, Error> {
        Members::new(name, self.get(name).unwrap_or(&Value::Null))
    }

    fn text(&self, name: &str) -> Result<Option<String>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.wrong(name, "must be text")),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text == "true" => Ok(true),
            Some(Value::String(text)) if text == "false" => Ok(false),
            Some(_) => Err(self.wrong(name, "must be true or false")),
        }
    }

    /// Nanoseconds, or text such as `30s`.
    fn time(&self, name: &str) -> Result<Option<Duration>, Error> {
        let time = match self.get(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_u64().map(Duration::from_nanos),
            Some(Value::String(text)) => duration::parse(text).ok(),
            Some(_) => None,
        };
        match time {
            Some(time) => Ok(Some(time).filter(|time| !time.is_zero())),
            None => Err(self.wrong(name, "must be nanoseconds or a duration")),
        }
    }

    fn refuse(&self, name: &str, instead: &str) -> Result<(), Error> {
        match self.text(name)? {
            None => Ok(()),
            Some(_) => Err(self.wrong(name, &format!("is not supported: {instead}"))),
        }
    }

    fn wrong(&self, name: &str, what: &str) -> Error {
        let of = self.of;
        let dot = if of.is_empty() { "" } else { "." };
        wrong(&format!("{of}{dot}{name}"), what)
    }
}

fn wrong(name: &str, what: &str) -> Error {
    Error::invalid(format!("consul: property {name} {what}"))
}

async fn file(name: &str, path: &str) -> Result<Vec<u8>, Error> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| wrong(name, &format!("cannot be read: {path}: {error}")))
}

impl Settings {
    pub async fn read(
        configuration: &Value,
        fields: Fields,
        context: &Context,
    ) -> Result<Settings, Error> {
        let all = Members::new("", configuration)?;
        let port_key = fields.port_key;
        let agent = Agent::read(&all.object("client")?, context).await?;
        Ok(Settings {
            search: Search::read(&all)?,
            registration: registration(&all, fields.register, context, &port_key)?,
            deregister: fields.deregister,
            keeps: fields.keeps,
            agent,
            port_key,
        })
    }
}

impl Agent {
    async fn read(client: &Members<'_>, context: &Context) -> Result<Agent, Error> {
        let variable = |name: &str| {
            context
                .environment
                .get(name)
                .filter(|v| !v.is_empty())
                .cloned()
        };
        let said = |text: Option<String>, name: &str| text.or_else(|| variable(name));
        let tls = client.object("tlsConfig")?;
        tls.refuse(
            "address",
            "use a host in client.address that the certificate is for",
        )?;
        tls.refuse("caPath", "use tlsConfig.caFile")?;
        let address = said(client.text("address")?, "CONSUL_HTTP_ADDR");
        let address = address.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let uses_tls = variable("CONSUL_HTTP_SSL").is_some_and(|v| outrider_kit::truthy(&v));
        let scheme = client.text("scheme")?;
        let scheme = scheme.or_else(|| uses_tls.then(|| "https".to_owned()));
        let (scheme, address) = match address.split_once("://") {
            None => (scheme.unwrap_or_else(|| "http".to_owned()), address.clone()),
            Some((scheme, rest)) => (scheme.to_owned(), rest.trim_end_matches('/').to_owned()),
        };
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(client.wrong("scheme", "must be http or https"));
        }
        let token = match said(client.text("token")?, "CONSUL_HTTP_TOKEN") {
            Some(token) => Some(token),
            None => match said(client.text("tokenFile")?, "CONSUL_HTTP_TOKEN_FILE") {
                None => None,
                Some(path) => {
                    let text = file("client.tokenFile", &path).await?;
                    Some(String::from_utf8_lossy(&text).trim().to_owned())
                }
            },
        };
        let auth = client.object("httpAuth")?;
        let login = match (auth.text("username")?, auth.text("password")?) {
            (None, None) => variable("CONSUL_HTTP_AUTH").map(|both| {
                let (user, password) = both.split_once(':').unwrap_or((&both, ""));
                (user.to_owned(), Secret(password.to_owned()))
            }),
            (user, password) => Some((
                user.unwrap_or_default(),
                Secret(password.unwrap_or_default()),
            )),
        };
        let root = match said(tls.text("caFile")?, "CONSUL_CACERT") {
            None => None,
            Some(path) => Some(file("tlsConfig.caFile", &path).await?),
        };
        let certificate = said(tls.text("certFile")?, "CONSUL_CLIENT_CERT");
        let identity = match (certificate, said(tls.text("keyFile")?, "CONSUL_CLIENT_KEY")) {
            (Some(certificate), Some(key)) => {
                let mut pem = file("tlsConfig.certFile", &certificate).await?;
                pem.push(b'\n');
                pem.extend(file("tlsConfig.keyFile", &key).await?);
                Some(pem)
            }
            (None, None) => None,
            _ => return Err(wrong("tlsConfig", "needs certFile and keyFile, or neither")),
        };
        let unverified = variable("CONSUL_HTTP_SSL_VERIFY");
        let query = [
            ("dc", client.text("datacenter")?),
            ("ns", said(client.text("namespace")?, "CONSUL_NAMESPACE")),
            (
                "partition",
                said(client.text("partition")?, "CONSUL_PARTITION"),
            ),
        ];
        let query = query.into_iter();
        Ok(Agent {
            scheme,
            address,
            token: token.map(Secret),
            login,
            root,
            identity,
            insecure: tls.flag("insecureSkipVerify")?
                || unverified.is_some_and(|verify| !outrider_kit::truthy(&verify)),
            query: query
                .filter_map(|(name, text)| Some((name, text?)))
                .collect(),
        })
    }
}

impl Search {
    fn read(all: &Members<'_>) -> Result<Search, Error> {
        if all.get("queryOptions").is_none() {
            return Ok(Search {
                cached: true,
                ..Search::default()
            });
        }
        let options = all.object("queryOptions")?;
        let mut query = Vec::new();
        for (name, parameter) in [
            ("datacenter", "dc"),
            ("namespace", "ns"),
            ("partition", "partition"),
            ("near", "near"),
            ("filter", "filter"),
        ] {
            query.extend(options.text(name)?.map(|text| (parameter, text)));
        }
        let consistent = options.flag("requireConsistent")?;
        for (flag, parameter) in [
            (options.flag("allowStale")?, "stale"),
            (consistent, "consistent"),
        ] {
            query.extend(flag.then(|| (parameter, String::new())));
        }
        let node = options.object("nodeMeta")?;
        for (key, value) in node.map.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            query.push(("node-meta", format!("{key}:{value}")));
        }
        let mut control = Vec::new();
        for (name, directive) in [("maxAge", "max-age"), ("staleIfError", "stale-if-error")] {
            let seconds = options.time(name)?.map(|time| time.as_secs());
            control.extend(seconds.map(|seconds| format!("{directive}={seconds}")));
        }
        Ok(Search {
            query,
            token: options.text("token")?.map(Secret),
            cached: options.flag("useCache")? && !consistent,
            cache_control: Some(control.join(", ")).filter(|text| !text.is_empty()),
            wait: options.time("waitTime")?,
        })
    }
}

/// What is registered, if anything is: what the Configuration spells out, or
/// the application with its sidecar's health.
fn registration(
    all: &Members<'_>,
    registers: bool,
    context: &Context,
    port_key: &str,
) -> Result<Option<Value>, Error> {
    let mut service = match all.get("advancedRegistration") {
        Some(Value::Object(service)) => service.clone(),
        Some(_) => return Err(wrong("advancedRegistration", "must be an object")),
        None if !registers => return Ok(None),
        None => own(all, context)?,
    };
    let meta = service
        .keys()
        .find(|name| name.eq_ignore_ascii_case("meta"))
        .cloned()
        .unwrap_or_else(|| "Meta".to_owned());
    let meta = service.entry(meta).or_insert_with(|| json!({}));
    if meta.is_null() {
        *meta = json!({});
    }
    match meta.as_object_mut() {
        Some(meta) => meta.insert(
            port_key.to_owned(),
            Value::String(context.internal_port.to_string()),
        ),
        None => return Err(wrong("meta", "must be an object")),
    };
    Ok(Some(Value::Object(service)))
}

fn own(all: &Members<'_>, context: &Context) -> Result<Map<String, Value>, Error> {
    let missing = |name: &str| Error::invalid(format!("metadata property missing: {name}"));
    let Context {
        app_id,
        host,
        http_port,
        ..
    } = context;
    let app_port = context.app_port.ok_or_else(|| missing("APP_PORT"))?;
    if app_id.is_empty() {
        return Err(missing("APP_ID"));
    }
    let id = format!("{app_id}-{host}-{http_port}");
    let in_url = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.clone(),
    };
    let health = json!([{
        "Name": "Dapr Health Status",
        "CheckID": format!("daprHealth:{id}"),
        "Interval": CHECK_INTERVAL,
        "HTTP": format!("http://{in_url}:{http_port}/v1.0/healthz?appid={app_id}"),
    }]);
    let given = all.get("checks").filter(|checks| **checks != json!([]));
    let service = json!({
        "ID": id,
        "Name": app_id,
        "Address": host,
        "Port": app_port,
        "Checks": given.unwrap_or(&health),
        "Tags": all.get("tags").unwrap_or(&json!([])),
        "Meta": all.get("meta").unwrap_or(&json!({})),
    });
    Ok(service.as_object().cloned().unwrap_or_default())
}

/// A text of a registration, by name in any case; empty if it has none.
pub fn text<'a>(registration: &'a Value, name: &str) -> &'a str {
    let members = Members {
        of: "",
        map: registration.as_object(),
    };
    let text = members.get(name).and_then(Value::as_str);
    text.unwrap_or_default()
}

/// The id of a registration; without one the agent takes the name.
pub fn service_id(registration: &Value) -> &str {
    match text(registration, "id") {
        "" => text(registration, "name"),
        id => id,
    }
}
