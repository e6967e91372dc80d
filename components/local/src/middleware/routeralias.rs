//! `middleware.http.routeralias`: <https://docs.dapr.io/reference/components-reference/supported-middleware/middleware-routeralias/>.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::middleware::{
    Middleware, Next, Outcome, Request, decoded_path, set_target,
};
use outrider_components::{Context, Error, Field, Metadata};
use outrider_kit::pattern::Pattern;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";

outrider_components::fields! {
    struct Fields {
        /// Paths and what they are replaced with, as a JSON or YAML object. A
        /// path may have variables, `/users/{id}` or `/users/{id:[0-9]+}`,
        /// which become parameters of the query. Without this property each of
        /// the others is a path and its value, which is deprecated.
        "routes" => routes: Option<String>;
    }
}

/// What a part of a path is escaped by.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b' ');

#[derive(Debug, Default)]
struct Aliases {
    /// Paths without variables. They win.
    plain: HashMap<String, String>,
    /// The others, in the order of the file.
    templates: Vec<(Pattern, Template, String)>,
}

/// The names of variables, in the order of the groups in the pattern.
type Template = Vec<String>;

/// Reads the routes.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Middleware>, Error> {
    let Fields { routes } = Fields::read(&metadata)?;
    let mut aliases = Aliases::default();
    if metadata.iter().count() > 1 || (routes.is_none() && metadata.iter().count() > 0) {
        tracing::warn!(target: SCOPE, "component {}: listing routes as key-value pairs is deprecated: use the property routes", metadata.component());
        for (path, to) in metadata.iter() {
            if path.is_empty() || to.is_empty() {
                return Err(Error::invalid(
                    "invalid key/value pair in metadata: must not be empty",
                ));
            }
            aliases.add(&metadata, path, to)?;
        }
    } else if let Some(routes) = routes {
        let Routes(routes) = serde_saphyr::from_str(&routes).map_err(|error| {
            let error = error.without_snippet().to_string();
            Error::invalid(format!(
                "failed to decode 'routes' property as JSON or YAML: {error}"
            ))
        })?;
        for (path, to) in routes {
            aliases.add(&metadata, &path, &to)?;
        }
    }
    Ok(Arc::new(aliases))
}

impl Aliases {
    fn add(&mut self, metadata: &Metadata, path: &str, to: &str) -> Result<(), Error> {
        if !path.starts_with('/') {
            tracing::warn!(target: SCOPE, "component {}: the route {path:?} fits no request: a path begins with a slash", metadata.component());
            return Ok(());
        }
        let to = utf8_percent_encode(to, PATH).to_string();
        if !path.contains(['{', '}']) {
            self.plain.insert(path.to_owned(), to);
            return Ok(());
        }
        let (pattern, names) = template(path)
            .map_err(|what| metadata.wrong("routes", format!("has the path {path:?}: {what}")))?;
        self.templates.push((pattern, names, to));
        Ok(())
    }

    /// What the path is replaced with, and the variables in it.
    fn find(&self, path: &str) -> Option<(&str, Vec<(&str, String)>)> {
        if let Some(to) = self.plain.get(path) {
            return Some((to, Vec::new()));
        }
        self.templates.iter().find_map(|(pattern, names, to)| {
            let values = pattern.named(path)?;
            let value = |at: usize| {
                let group = group(at);
                let mut values = values.iter();
                let found = values.find(|(name, _)| *name == group);
                found.map(|(_, value)| value.clone())
            };
            let variables = names.iter().enumerate();
            let variables = variables.filter_map(|(at, name)| Some((name.as_str(), value(at)?)));
            Some((to.as_str(), variables.collect()))
        })
    }
}

/// What the group of a variable is called: its own name need not be one.
fn group(at: usize) -> String {
    format!("variable{at}")
}

/// A path with variables as a pattern, and their names.
fn template(path: &str) -> Result<(Pattern, Template), String> {
    let (mut pattern, mut names) = ("^".to_owned(), Vec::new());
    let mut rest = path;
    while let Some(start) = rest.find(['{', '}']) {
        let end = closing(&rest[start..]).ok_or("unbalanced braces")? + start;
        pattern.push_str(&literal(&rest[..start]));
        let inner = &rest[start + 1..end];
        let (name, of) = inner.split_once(':').unwrap_or((inner, "[^/]+"));
        if name.is_empty() || of.is_empty() {
            return Err("a variable has a name, and a pattern behind its colon".to_owned());
        }
        pattern.push_str(&format!("(?P<{}>{of})", group(names.len())));
        names.push(name.to_owned());
        rest = &rest[end + 1..];
    }
    pattern.push_str(&literal(rest));
    pattern.push('$');
    Ok((Pattern::new(&pattern)?, names))
}

/// Where the brace that opens a text is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => open = open.checked_sub(1)?,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

/// A pattern that matches just this.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii_punctuation() {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[async_trait]
impl Middleware for Aliases {
    async fn handle(&self, mut request: Request, next: Next<'_>) -> Outcome {
        let uri = request.uri();
        let path = decoded_path(uri);
        if let Some((to, variables)) = self.find(&path) {
            let query = with(uri.query().unwrap_or_default(), variables);
            let target = match query.is_empty() {
                true => to.to_owned(),
                false => format!("{to}?{query}"),
            };
            set_target(request.uri_mut(), &target)?;
        }
        next.run(request).await
    }
}

/// A query with further parameters, in the order of their names. Without any
/// it stays as it is.
fn with(query: &str, variables: Vec<(&str, String)>) -> String {
    if variables.is_empty() {
        return query.to_owned();
    }
    let mut all: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let named = variables.into_iter();
    all.extend(named.map(|(name, value)| (name.to_owned(), value)));
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    let escape = |text: &str| {
        let escaped = utf8_percent_encode(text, QUERY).to_string();
        escaped.replace(' ', "+")
    };
    let pairs = all
        .iter()
        .map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// The members of an object in their order.
struct Routes(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Routes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Routes, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Routes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of paths")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Routes, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Routes(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use outrider_components::middleware::{End, Response, full};

    use super::*;

    struct Echo;

    #[async_trait]
    impl End for Echo {
        async fn answer(&self, request: Request) -> Outcome {
            Ok(Response::new(full(request.uri().to_string())))
        }
    }

    async fn aliases(properties: &[(&str, &str)]) -> Result<Arc<dyn Middleware>, Error> {
        let metadata = Metadata::new("alias", properties.iter().copied());
        connect(metadata, Context::default()).await
    }

    async fn asked(aliases: &Arc<dyn Middleware>, uri: &str) -> String {
        let mut request = Request::new(full(""));
        *request.uri_mut() = uri.parse().expect("a URI");
        let chain = [aliases.clone()];
        let response = Next::new(&chain, &Echo).run(request).await;
        let body = response.expect("an answer").into_body().collect().await;
        String::from_utf8_lossy(&body.expect("a body").to_bytes()).into_owned()
    }

    const JSON: &str = r#"{
        "/v1.0/mall/info": "/v1.0/invoke/srv.default/method/mall/info",
        "/v1.0/hello/{id}/info": "/v1.0/invoke/srv/method/hello",
        "/v1.0/hello/{id:[0-9]{2,3}}/by/{who}": "/b",
        "/v1.0/hello/{else}/by/{who}": "/c d?",
        "/v1.0/hello/fixed/info": "/fixed"
    }"#;
    const YAML: &str = "/v1.0/mall/info: /v1.0/invoke/srv.default/method/mall/info\n";

    #[tokio::test]
    async fn paths_are_replaced_and_variables_become_parameters() {
        let json = aliases(&[("routes", JSON)]).await.expect("valid");
        for (uri, wanted) in [
            (
                "/v1.0/mall/info?id=123",
                "/v1.0/invoke/srv.default/method/mall/info?id=123",
            ),
            (
                "/v1.0/mall/%69nfo",
                "/v1.0/invoke/srv.default/method/mall/info",
            ),
            (
                "http://host:1/v1.0/hello/1/info?user=b+c&a=%2F",
                "http://host:1/v1.0/invoke/srv/method/hello?a=%2F&id=1&user=b+c",
            ),
            ("/v1.0/hello/123/by/me", "/b?id=123&who=me"),
            ("/v1.0/hello/1/by/a%26b%20c", "/c%20d%3F?else=1&who=a%26b+c"),
            ("/v1.0/hello/fixed/info", "/fixed"),
            ("/v1.0/hello/1/2/info", "/v1.0/hello/1/2/info"),
            ("/v1.0/mall/info/", "/v1.0/mall/info/"),
        ] {
            assert_eq!(asked(&json, uri).await, wanted);
        }
    }

    #[tokio::test]
    async fn routes_are_json_yaml_or_properties() {
        for properties in [
            &[("routes", YAML)][..],
            &[
                (
                    "/v1.0/mall/info",
                    "/v1.0/invoke/srv.default/method/mall/info",
                ),
                ("/x", "/y"),
            ],
        ] {
            let aliases = aliases(properties).await.expect("valid");
            let wanted = "/v1.0/invoke/srv.default/method/mall/info";
            assert_eq!(asked(&aliases, "/v1.0/mall/info").await, wanted);
        }
        let none = aliases(&[]).await.expect("valid");
        assert_eq!(asked(&none, "/x").await, "/x");
    }

    #[tokio::test]
    async fn routes_that_make_no_sense_are_refused() {
        for routes in [
            "[1]",
            "{",
            r#"{"/a/{b": "/c"}"#,
            r#"{"/a/{b:(}": "/c"}"#,
            r#"{"/a/}": "/c"}"#,
        ] {
            assert!(aliases(&[("routes", routes)]).await.is_err(), "{routes}");
        }
        assert!(aliases(&[("/a", ""), ("/b", "/c")]).await.is_err());
        // No path of a request: left out.
        let odd = aliases(&[("routes", r#"{"a": "/b"}"#)])
            .await
            .expect("valid");
        assert_eq!(asked(&odd, "/a").await, "/a");
    }
}
