//! What stands in the labels of HTTP calls.
//! <https://docs.dapr.io/operations/observability/metrics/metrics-overview/#http-metrics-path-matching>

use std::borrow::Cow;
use std::collections::HashMap;

use http::Method;

/// Paths that are shown as they are, whatever the settings.
const ALWAYS: [&str; 4] = [
    "/dapr/config",
    "/dapr/metrics",
    "/dapr/subscribe",
    "/healthz",
];
const INVOKE: &str = "/v1.0/invoke/";

/// A verb, as a small number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verb(u8);

const VERBS: [&str; 9] = [
    "GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE",
];

impl Verb {
    pub fn new(method: &Method) -> Self {
        let known = VERBS.iter().position(|verb| *verb == method.as_str());
        Self(known.unwrap_or(VERBS.len()) as u8)
    }

    pub fn name(self) -> &'static str {
        VERBS.get(usize::from(self.0)).copied().unwrap_or("UNKNOWN")
    }

    /// One number for a verb and a status.
    pub fn with_status(self, status: u16) -> u32 {
        u32::from(self.0) << 16 | u32::from(status)
    }
}

/// How paths become labels.
#[derive(Debug, Default)]
pub struct Paths {
    /// Whether a path without a template is shown.
    pub increased: bool,
    templates: Option<Templates>,
}

impl Paths {
    pub fn new(increased: bool, templates: &[String]) -> Self {
        Self {
            increased,
            templates: (!templates.is_empty()).then(|| Templates::new(templates)),
        }
    }

    /// Of a request to the API; `path` is decoded.
    pub fn of_request<'a>(&'a self, path: &'a str) -> Cow<'a, str> {
        if self.templates.is_none() && !self.increased {
            return Cow::Borrowed("");
        }
        self.label(path)
    }

    /// Of a call to the application.
    pub fn of_call<'a>(&'a self, path: &'a str) -> Cow<'a, str> {
        if ALWAYS.iter().any(|always| &always[1..] == path) {
            return Cow::Owned(format!("/{path}"));
        }
        self.label(path)
    }

    fn label<'a>(&'a self, path: &'a str) -> Cow<'a, str> {
        if ALWAYS.contains(&path) {
            return Cow::Borrowed(path);
        }
        if let Some(templates) = &self.templates {
            let whole = normal(path);
            if let Some(found) = templates.find(&whole) {
                return Cow::Borrowed(found);
            }
            let short = cut(&whole);
            let found = templates.find(&short).filter(|found| *found != "/");
            if let (false, Some(found)) = (short == whole, found) {
                return Cow::Borrowed(found);
            }
        }
        if self.increased {
            cut(path)
        } else {
            Cow::Borrowed("")
        }
    }
}

/// With one slash in front, and no two in a row.
fn normal(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') && !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut text = format!("/{path}");
    while text.contains("//") {
        text = text.replace("//", "/");
    }
    Cow::Owned(text)
}

/// The path without keys, ids and names, each of which would be a series.
pub fn cut(path: &str) -> Cow<'_, str> {
    if path.is_empty() {
        return Cow::Borrowed(path);
    }
    let path = normal(path);
    let mut parts = path[1..].splitn(3, '/');
    let (first, second, rest) = (parts.next(), parts.next(), parts.next());
    let short = match (first, second, rest) {
        (Some("actors"), _, Some(_)) | (_, Some("actors" | "workflows"), Some(_)) => {
            without_ids(&path)
        }
        (Some(_), Some("state" | "secrets"), Some(rest)) => {
            let key = rest.find('/').map_or(0, |slash| rest.len() - slash);
            Short::Prefix(path.len() - key)
        }
        _ => Short::Whole,
    };
    match (short, path) {
        (Short::Whole, path) => path,
        (Short::Text(text), _) => Cow::Owned(text),
        (Short::Prefix(end), Cow::Borrowed(path)) => Cow::Borrowed(&path[..end]),
        (Short::Prefix(end), Cow::Owned(mut path)) => {
            path.truncate(end);
            Cow::Owned(path)
        }
    }
}

/// Of actors and workflows.
fn without_ids(path: &str) -> Short {
    let parts: Vec<&str> = path[1..].splitn(6, '/').collect();
    match parts.as_slice() {
        ["actors", kind, _, rest @ ..] => {
            let mut parts = vec!["actors", kind, "{id}"];
            parts.extend(rest);
            Short::Text(parts.join("/"))
        }
        [version, "actors", kind, _, what, ..] => {
            Short::Text(format!("/{version}/actors/{kind}/{{id}}/{what}"))
        }
        [version, "workflows", component, _] => {
            Short::Text(format!("/{version}/workflows/{component}/{{instanceId}}"))
        }
        [version, "workflows", component, name, start] if start.starts_with("start") => {
            Short::Text(format!("/{version}/workflows/{component}/{name}/start"))
        }
        [version, "workflows", component, _, "raiseEvent", event] if !event.is_empty() => {
            Short::Text(format!(
                "/{version}/workflows/{component}/{{instanceId}}/raiseEvent/{{eventName}}"
            ))
        }
        [version, "workflows", component, _, what, ..] => Short::Text(format!(
            "/{version}/workflows/{component}/{{instanceId}}/{what}"
        )),
        _ => Short::Whole,
    }
}

enum Short {
    Whole,
    Prefix(usize),
    Text(String),
}

/// Path templates, in the form of Go's `ServeMux`: `{name}` is one segment,
/// `{name...}` and a slash at the end are all that follow, `{$}` is nothing.
/// <https://pkg.go.dev/net/http#hdr-Patterns-ServeMux>
#[derive(Debug, Default)]
struct Templates {
    root: Node,
    texts: Vec<String>,
}

#[derive(Debug, Default)]
struct Node {
    literal: HashMap<String, Node>,
    any: Option<Box<Node>>,
    /// A template that ends here, and the same with all that follows or with
    /// a slash.
    here: Option<usize>,
    rest: Option<usize>,
    slash: Option<usize>,
}

impl Templates {
    fn new(given: &[String]) -> Self {
        let mut templates = Self::default();
        for text in given {
            let text = normal(text).into_owned();
            if !text.starts_with(INVOKE) {
                templates.add(format!("/v1.0/invoke/{{app_id}}/method{text}"));
            }
            templates.add(text);
        }
        templates
    }

    fn add(&mut self, text: String) {
        let index = self.texts.len();
        let mut node = &mut self.root;
        let mut parts = text[1..].split('/').peekable();
        let place = loop {
            let Some(part) = parts.next() else {
                break &mut node.here;
            };
            let is_last = parts.peek().is_none();
            let is_name = part.len() > 2 && part.starts_with('{') && part.ends_with('}');
            match part {
                "" if is_last => break &mut node.rest,
                "{$}" if is_last => break &mut node.slash,
                _ if is_name && part.ends_with("...}") => break &mut node.rest,
                _ if is_name => node = node.any.get_or_insert_default(),
                _ => node = node.literal.entry(part.to_owned()).or_default(),
            }
        };
        place.get_or_insert(index);
        self.texts.push(text);
    }

    /// The most specific template that fits.
    fn find(&self, path: &str) -> Option<&str> {
        let path = path.strip_prefix('/')?;
        let found = self
            .root
            .find(Some(path))
            .or_else(|| self.root.find(Some(&format!("{path}/"))))?;
        Some(&self.texts[found])
    }
}

impl Node {
    fn find(&self, path: Option<&str>) -> Option<usize> {
        let Some(path) = path else {
            return self.here;
        };
        let (part, next) = match path.split_once('/') {
            Some((part, next)) => (part, Some(next)),
            None => (path, None),
        };
        let literal = self.literal.get(part).and_then(|node| node.find(next));
        literal
            .or_else(|| {
                let any = self.any.as_ref().filter(|_| !part.is_empty())?;
                any.find(next)
            })
            .or_else(|| self.slash.filter(|_| path.is_empty()))
            .or(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_ids_are_cut() {
        for (path, short) in [
            ("", ""),
            ("/v1.0/healthz", "/v1.0/healthz"),
            ("/v1.0/state/store/key/of/many", "/v1.0/state/store"),
            ("//v1.0//state/store/key", "/v1.0/state/store"),
            ("/v1.0/state/store", "/v1.0/state/store"),
            ("/v1.0/secrets/store/bulk", "/v1.0/secrets/store"),
            (
                "/v1.0/invoke/app/method/a/b/c",
                "/v1.0/invoke/app/method/a/b/c",
            ),
            ("/v1.0/actors/T/1/method/m", "/v1.0/actors/T/{id}/method"),
            ("/v1.0/actors/T/1", "/v1.0/actors/T/1"),
            ("actors/T/1/method/m", "actors/T/{id}/method/m"),
            ("orders/1", "/orders/1"),
            (
                "/v1.0/workflows/dapr/7",
                "/v1.0/workflows/dapr/{instanceId}",
            ),
            (
                "/v1.0/workflows/dapr/order/start?x",
                "/v1.0/workflows/dapr/order/start",
            ),
            (
                "/v1.0/workflows/dapr/7/pause",
                "/v1.0/workflows/dapr/{instanceId}/pause",
            ),
            (
                "/v1.0/workflows/dapr/7/raiseEvent/e",
                "/v1.0/workflows/dapr/{instanceId}/raiseEvent/{eventName}",
            ),
        ] {
            assert_eq!(cut(path), short, "{path}");
        }
    }

    fn paths(increased: bool, templates: &[&str]) -> Paths {
        let templates: Vec<String> = templates.iter().map(|t| (*t).to_owned()).collect();
        Paths::new(increased, &templates)
    }

    #[test]
    fn low_cardinality_has_no_paths() {
        let paths = paths(false, &[]);
        assert_eq!(paths.of_request("/v1.0/state/s/k"), "");
        assert_eq!(paths.of_request("/healthz"), "");
        assert_eq!(paths.of_call("orders/1"), "");
        assert_eq!(paths.of_call("dapr/config"), "/dapr/config");
    }

    #[test]
    fn templates_of_requests_and_calls() {
        let low = paths(
            false,
            &[
                "/orders/{id}",
                "/orders/new",
                "/items/",
                "/v1.0/state/store/{key}",
                "/exact/{$}",
                "/files/{name...}",
            ],
        );
        for (path, label) in [
            ("/orders/1", "/orders/{id}"),
            ("/orders/new", "/orders/new"),
            ("/orders/1/2", ""),
            ("/orders/", ""),
            ("/items", "/items/"),
            ("/items/a/b", "/items/"),
            ("/exact/", "/exact/{$}"),
            ("/exact/a", ""),
            ("/files/a/b", "/files/{name...}"),
            ("/v1.0/state/store/k", "/v1.0/state/store/{key}"),
            (
                "/v1.0/invoke/app/method/orders/1",
                "/v1.0/invoke/{app_id}/method/orders/{id}",
            ),
            ("/v1.0/invoke/app/method/other", ""),
        ] {
            assert_eq!(low.of_request(path), label, "{path}");
        }
        assert_eq!(low.of_call("orders/1"), "/orders/{id}");
        let high = paths(true, &["/orders/{id}", "/v1.0/state/store"]);
        assert_eq!(high.of_request("/v1.0/publish/p/t"), "/v1.0/publish/p/t");
        assert_eq!(high.of_request("/v1.0/state/other/k"), "/v1.0/state/other");
        assert_eq!(high.of_request("/v1.0/state/store/k"), "/v1.0/state/store");
        assert_eq!(paths(false, &["/"]).of_request("/any/thing"), "/");
    }

    #[test]
    fn verbs() {
        assert_eq!(Verb::new(&Method::PATCH).name(), "PATCH");
        assert_eq!(
            Verb::new(&Method::from_bytes(b"FOO").unwrap()).name(),
            "UNKNOWN"
        );
    }

    proptest::proptest! {
        #[test]
        fn prop_never_panics(path in "\\PC{0,40}", template in "(/|\\{x\\}|\\{x\\.\\.\\.\\}|\\{\\$\\}|a|\\PC){0,6}") {
            let _ = cut(&path);
            for increased in [true, false] {
                let paths = paths(increased, &[&template]);
                let _ = paths.of_request(&path);
                let _ = paths.of_call(&template);
            }
        }

        #[test]
        fn prop_state_paths_keep_their_store(store in "[a-z]{1,8}", key in "[a-z/]{1,12}") {
            let path = format!("/v1.0/state/{store}/{key}");
            proptest::prop_assert_eq!(cut(&path).into_owned(), format!("/v1.0/state/{store}"));
        }
    }
}
