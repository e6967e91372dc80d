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

use crate::error::from_status;

/// The header with the name of the component that a call is for: one program may
/// serve several.
const INSTANCE: &str = "x-component-instance";
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that adds the header with the component's name to all calls.
pub type Connection = InterceptedService<Channel, InstanceHeader>;

#[derive(Clone)]
pub struct InstanceHeader(MetadataValue<Ascii>);

impl Interceptor for InstanceHeader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(INSTANCE, self.0.clone());
        Ok(request)
    }
}

/// Connects for the component called `name`, as soon as the program listens. The
/// connection is made again by itself after the program has restarted.
pub async fn open(socket: &Path, name: &str) -> Result<Connection, Error> {
    let instance = MetadataValue::try_from(name).map_err(|_| {
        Error::invalid(format!(
            "the name {name:?} cannot be sent in a header: use ASCII characters"
        ))
    })?;
    let channel = channel(socket).await;
    Ok(InterceptedService::new(channel, InstanceHeader(instance)))
}

/// Connects as soon as the program listens. Dropping the future ends the
/// attempts.
pub async fn channel(socket: &Path) -> Channel {
    // Servers require an authority, though a socket has none.
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

/// The properties of a component, for its program.
pub fn properties(metadata: &Metadata) -> MetadataRequest {
    let pairs = metadata.iter();
    MetadataRequest {
        properties: pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    }
}

/// The features that a program reports. Those that `named` does not know are
/// left out.
pub fn features<F>(
    answer: Result<Response<FeaturesResponse>, Status>,
    named: impl Fn(&str) -> Option<F>,
) -> Result<Vec<F>, Error> {
    let names = answer.map_err(from_status)?.into_inner().features;
    Ok(names.iter().filter_map(|name| named(name)).collect())
}
