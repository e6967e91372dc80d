//! From a request of the HTTP API to the building block that answers it.
//! <https://docs.dapr.io/reference/api/>

use http::{HeaderMap, Method, Response, StatusCode};
use outrider_net::body::Body;
use outrider_net::path::{check_query, query_unescape};

use crate::blocks::descriptor::{Names, Route, V1, V1_ALPHA1, V1_ALPHA2, V1_BETA1, Version};
use crate::blocks::error::{malformed, unimplemented};
use crate::blocks::http::{Request, text};
use crate::blocks::{self, absent, invoke};
use crate::edge::Apis;
use crate::edge::userinfo::Without;

/// What a request is for, with names still escaped.
struct Match<'a> {
    to: Matched,
    version: Version,
    names: [&'a str; MOST],
}

/// Names that a path may have.
const MOST: usize = 3;

#[derive(Clone, Copy)]
enum Matched {
    Route(&'static Route),
    /// A building block that this release does not have.
    Absent(&'static str),
}

impl Matched {
    /// Whether the last name is the rest of the path.
    fn has_rest(self) -> bool {
        matches!(self, Self::Route(route) if route.path.ends_with("{*}"))
    }

    /// What lists of allowed APIs call it.
    fn group(self) -> &'static str {
        match self {
            Self::Route(route) => route.group,
            Self::Absent(name) => name,
        }
    }
}

fn route<'a>(verb: &Method, path: &'a str) -> Option<Match<'a>> {
    let (version, path) = path.trim_start_matches('/').split_once('/')?;
    let version = match version {
        "v1.0" => V1,
        "v1.0-alpha1" => V1_ALPHA1,
        "v1.0-alpha2" => V1_ALPHA2,
        "v1.0-beta1" => V1_BETA1,
        _ => return None,
    };
    let (first, _) = segment_of(path);
    let routes = blocks::ALL.iter().flat_map(|block| block.routes);
    for route in routes {
        if begins_with(route.path, first)
            && route.verbs.contains(verb)
            && route.versions.contains(&version)
            && let Some(names) = fit(route.path, path)
        {
            return Some(Match {
                to: Matched::Route(route),
                version,
                names,
            });
        }
    }
    let (block, _) = path.split_once('/')?;
    let name = absent::NAMES.iter().find(|name| **name == block)?;
    Some(Match {
        to: Matched::Absent(name),
        version,
        names: [""; MOST],
    })
}

/// Whether that is the first segment of a pattern, which has no name in it.
fn begins_with(pattern: &str, first: &str) -> bool {
    // The end is compared first: it tells most of them apart.
    matches!(pattern.as_bytes().get(first.len()), None | Some(b'/')) && pattern.starts_with(first)
}

/// The names that a path has in the places of a pattern, if it fits.
fn fit<'a>(pattern: &str, path: &'a str) -> Option<[&'a str; MOST]> {
    let mut found = [""; MOST];
    let mut next = 0;
    let (mut pattern, mut path) = (Some(pattern), Some(path));
    while let (Some(parts), Some(segments)) = (pattern, path) {
        if parts == "{*}" {
            *found.get_mut(next)? = segments;
            return Some(found);
        }
        let (part, segment);
        (part, pattern) = segment_of(parts);
        (segment, path) = segment_of(segments);
        if part == "{}" {
            *found.get_mut(next)? = segment;
            next += 1;
        } else if part != segment {
            return None;
        }
    }
    (pattern.is_none() && path.is_none()).then_some(found)
}

/// The first segment of a path, and what is behind it. Segments are short: a
/// plain loop is faster than a search.
fn segment_of(path: &str) -> (&str, Option<&str>) {
    match path.bytes().position(|byte| byte == b'/') {
        Some(end) => (&path[..end], Some(&path[end + 1..])),
        None => (path, None),
    }
}

/// What a request is for, without names of things: for the API log.
pub fn name(verb: &Method, path: &str, headers: &HeaderMap) -> String {
    match route(verb, path).map(|found| found.to) {
        Some(Matched::Absent(name)) => name.to_owned(),
        Some(Matched::Route(route)) => route.name.to_owned(),
        None => match invoke::address::of_http(headers, path) {
            Ok(address) => format!("InvokeService/{}", Without(&address.target)),
            Err(_) => "InvokeService".to_owned(),
        },
    }
}

/// The group of a request's route, and the names in its path as they were sent;
/// nothing where it is an invocation.
pub fn target<'a>(verb: &Method, path: &'a str) -> Option<(&'static str, &'a str, &'a str)> {
    let found = route(verb, path)?;
    Some((found.to.group(), found.names[0], found.names[1]))
}

/// Health routes need neither token nor permission.
pub fn is_health(verb: &Method, path: &str) -> bool {
    *verb == Method::GET && matches!(path, "/v1.0/healthz" | "/v1.0/healthz/outbound")
}

/// Answers one request. `path` is the cleaned path of its URL. What no block
/// has a route for is an invocation.
pub async fn dispatch(apis: &Apis, path: &str, request: Request) -> Response<Body> {
    let allowed = |found: &Match<'_>| {
        is_health(&request.method, path) || apis.allowed.http(found.version, found.to.group())
    };
    let Some(found) = route(&request.method, path).filter(allowed) else {
        return if apis.allowed.http(V1, invoke::GROUP) {
            invoke::http::invoke(&apis.blocks.invoke, request).await
        } else {
            text(StatusCode::NOT_FOUND, "404 page not found\n")
        };
    };
    let [first, second, third] = found.names;
    let names = check_query(request.query()).and_then(|()| {
        let names = [query_unescape(first)?, query_unescape(second)?];
        let last = match query_unescape(third) {
            // The rest of a path is for its route to decode.
            Err(_) if found.to.has_rest() => None,
            last => Some(last?),
        };
        Ok((names, last))
    });
    let (names, last) = match &names {
        Ok(names) => names,
        Err(cause) => return malformed(cause.to_string()).into(),
    };
    let names = Names {
        first: &names[0],
        second: &names[1],
        third: last.as_deref().unwrap_or(third),
        rest: third,
    };
    match found.to {
        Matched::Route(route) => (route.answer)(&apis.blocks, request, names).await,
        Matched::Absent(name) => unimplemented(name).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &str) -> Option<(&'static str, &str, &str)> {
        let found = route(&method, path)?;
        let name = match found.to {
            Matched::Route(route) => route.name,
            Matched::Absent(name) => name,
        };
        Some((name, found.names[0], found.names[1]))
    }

    #[test]
    fn routes() {
        assert_eq!(
            found(Method::GET, "/v1.0/state/s/k%2Fl"),
            Some(("GetState", "s", "k%2Fl"))
        );
        assert_eq!(
            found(Method::PUT, "/v1.0/state/s"),
            Some(("SaveState", "s", ""))
        );
        assert_eq!(
            found(Method::POST, "/v1.0/state/s/bulk"),
            Some(("GetBulkState", "s", ""))
        );
        assert_eq!(
            found(Method::GET, "/v1.0/state/s/bulk"),
            Some(("GetState", "s", "bulk"))
        );
        assert_eq!(
            found(Method::POST, "/v1.0/publish/p/a/b/c"),
            Some(("PublishEvent", "p", "a/b/c"))
        );
        assert_eq!(
            found(Method::POST, "/v1.0-alpha1/publish/bulk/p/a/b"),
            Some(("BulkPublishEvent", "p", "a/b"))
        );
        assert_eq!(
            found(Method::DELETE, "/v1.0/actors/t/1/method/a/b"),
            Some(("InvokeActor", "t", "1"))
        );
        assert_eq!(found(Method::PATCH, "/v1.0/actors/t/1/method/a"), None);
        assert_eq!(
            found(Method::GET, "/v1.0/healthz/outbound"),
            Some(("HealthzOutbound", "", ""))
        );
    }

    #[test]
    fn only_the_rest_of_a_path_is_left_to_its_route() {
        for (path, rest) in [
            ("/v1.0/actors/t/1/method/%zz", true),
            ("/v1.0/actors/t/1/state/%zz", false),
            ("/v1.0/actors/t/1/reminders/%zz", false),
        ] {
            let found = route(&Method::GET, path).unwrap();
            assert_eq!(found.to.has_rest(), rest, "{path}");
        }
    }

    #[test]
    fn a_pattern_has_at_most_three_names_and_fits_itself() {
        for route in blocks::ALL.iter().flat_map(|block| block.routes) {
            let path = route.path.replace("{*}", "a/b").replace("{}", "x");
            assert!(fit(route.path, &path).is_some(), "{}", route.path);
            assert!(!route.path.starts_with('{'), "{}", route.path);
        }
        assert_eq!(fit("state/{}", "state"), None);
        assert_eq!(fit("state/{}", "state/a/b"), None);
        assert_eq!(fit("publish/{}/{*}", "publish/p"), None);
        assert_eq!(fit("a/{}/{}/{}", "a/1/2/3"), Some(["1", "2", "3"]));
        assert_eq!(fit("a/{}/{}/{}/{}", "a/1/2/3/4"), None);
    }

    #[test]
    fn what_is_absent_says_so() {
        assert_eq!(found(Method::POST, "/v1.0/workflows"), None);
        assert_eq!(
            found(Method::GET, "/v1.0-beta1/workflows/dapr/1"),
            Some(("workflows", "", ""))
        );
    }

    #[test]
    fn what_falls_through_to_invocation() {
        for (method, path) in [
            (Method::HEAD, "/v1.0/healthz"),
            (Method::GET, "/v1.0/state/s/k/l"),
            (Method::GET, "/v1.0/invoke/a/method/b"),
            (Method::POST, "/v1.0/publish/p"),
            (Method::GET, "/anything"),
            (Method::GET, "/v1.0/metadata/x"),
        ] {
            assert_eq!(found(method, path), None, "{path}");
        }
    }
}
