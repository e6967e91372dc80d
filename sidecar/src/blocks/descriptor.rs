//! What a building block says of itself. The router, the lists of allowed
//! APIs, the API log and the error metric read it.

use futures_util::future::BoxFuture;
use http::{Method as Verb, Response};
use outrider_net::body::Body;

use super::Apis;
use super::http::Request;

/// A building block: one of these, and a place in [`super::ALL`].
pub struct Block {
    /// Routes of the HTTP API. The first that fits counts.
    pub routes: &'static [Route],
    /// Methods of the gRPC API.
    pub methods: &'static [Method],
    /// Its codes of errors, and the category that metrics have for them. One
    /// that ends with an underscore stands for all that begin with it.
    pub errors: &'static [(&'static str, &'static str)],
}

/// A version of the API, as lists of allowed APIs name it.
pub type Version = &'static str;

pub const V1: Version = "v1";
pub const V1_ALPHA1: Version = "v1alpha1";
pub const V1_ALPHA2: Version = "v1alpha2";
pub const V1_BETA1: Version = "v1beta1";

/// A route of the HTTP API.
pub struct Route {
    /// What the API log calls it.
    pub name: &'static str,
    pub verbs: &'static [Verb],
    pub versions: &'static [Version],
    /// The path after the version: `{}` is one segment, which has a name of
    /// something, `{*}` is the rest.
    pub path: &'static str,
    /// What lists of allowed APIs call it.
    pub group: &'static str,
    /// Boxed, so that a request takes no more memory than its own route does.
    pub answer: for<'a> fn(&'a Apis, Request, Names<'a>) -> BoxFuture<'a, Response<Body>>,
}

/// The names in a path; empty where it has fewer.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// Decoded, like the next two.
    pub first: &'a str,
    pub second: &'a str,
    pub third: &'a str,
    /// The last of them as it was sent.
    pub rest: &'a str,
}

/// A method of the gRPC API.
pub struct Method {
    pub name: &'static str,
    pub version: Version,
    /// What lists of allowed APIs call it.
    pub group: &'static str,
}

impl Method {
    pub const fn new(name: &'static str, version: Version, group: &'static str) -> Self {
        Self {
            name,
            version,
            group,
        }
    }
}

pub const GET_TO_DELETE: &[Verb] = &[Verb::GET, Verb::POST, Verb::PUT, Verb::DELETE];
pub const GET: &[Verb] = &[Verb::GET];
pub const POST: &[Verb] = &[Verb::POST];
pub const PUT: &[Verb] = &[Verb::PUT];
pub const POST_OR_PUT: &[Verb] = &[Verb::POST, Verb::PUT];
pub const DELETE: &[Verb] = &[Verb::DELETE];
