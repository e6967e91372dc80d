//! The connection to a component's program.

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use outrider_components::{Error, Metadata};
use outrider_proto::components::v1::{FeaturesResponse, MetadataRequest};
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use crate::error::of;

/// Which component of the sidecar a call is for: one program may serve several.
const INSTANCE: &str = "x-component-instance";
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection whose calls name their component.
pub type Link = InterceptedService<Channel, Instance>;

#[derive(Clone)]
pub struct Instance(MetadataValue<Ascii>);

impl Interceptor for Instance {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(INSTANCE, self.0.clone());
        Ok(request)
    }
}

/// Connects for the component called `name`, as soon as somebody listens.
/// Later it connects again by itself, when the program was started anew.
pub async fn open(socket: &Path, name: &str) -> Result<Link, Error> {
    let instance = MetadataValue::try_from(name).map_err(|_| {
        Error::invalid(format!(
            "the name {name:?} cannot be sent in a header: use ASCII characters"
        ))
    })?;
    let channel = channel(socket).await;
    Ok(InterceptedService::new(channel, Instance(instance)))
}

/// Connects as soon as somebody listens. Dropping the future gives up.
pub async fn channel(socket: &Path) -> Channel {
    // Servers want a host, though a socket has none.
    let endpoint = Endpoint::from_static("http://localhost");
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    loop {
        match endpoint.connect_with_connector(connector.clone()).await {
            Ok(channel) => return channel,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// The properties of a component, as its program gets them.
pub fn properties(metadata: &Metadata) -> MetadataRequest {
    let pairs = metadata.iter();
    MetadataRequest {
        properties: pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    }
}

/// The features that a program says it has, as far as `named` knows them.
pub fn features<F>(
    answer: Result<Response<FeaturesResponse>, Status>,
    named: impl Fn(&str) -> Option<F>,
) -> Result<Vec<F>, Error> {
    let said = answer.map_err(of)?.into_inner().features;
    Ok(said.iter().filter_map(|name| named(name)).collect())
}
