//! Secret stores that other programs serve.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::secrets::{Feature, GetRequest, Store};
use outrider_components::{Error, Metadata, Pairs};
use outrider_proto::components::v1 as wire;
use wire::secret_store_client::SecretStoreClient;

use crate::connection::{self, Connection};
use crate::error::{check, from_status};

struct Remote {
    client: SecretStoreClient<Connection>,
    features: Vec<Feature>,
}

pub async fn connect(socket: Arc<Path>, metadata: Metadata) -> Result<Arc<dyn Store>, Error> {
    let connection = connection::open(&socket, metadata.component()).await?;
    let mut client = SecretStoreClient::new(connection).max_decoding_message_size(usize::MAX);
    let metadata = Some(connection::properties(&metadata));
    let init = wire::SecretStoreInitRequest { metadata };
    check(client.init(init).await)?;
    let reported = client.features(wire::FeaturesRequest {}).await;
    let features = connection::features(reported, Feature::named)?;
    Ok(Arc::new(Remote { client, features }))
}

#[async_trait]
impl Store for Remote {
    fn features(&self) -> &[Feature] {
        &self.features
    }

    async fn get(&self, request: &GetRequest) -> Result<Pairs, Error> {
        let request = wire::GetSecretRequest {
            key: request.name.clone(),
            metadata: request.metadata.clone(),
        };
        let answer = self.client.clone().get(request).await;
        Ok(answer.map_err(from_status)?.into_inner().data)
    }

    async fn bulk_get(&self, metadata: &Pairs) -> Result<HashMap<String, Pairs>, Error> {
        let metadata = metadata.clone();
        let request = wire::BulkGetSecretRequest { metadata };
        let answer = self.client.clone().bulk_get(request).await;
        let data = answer.map_err(from_status)?.into_inner().data;
        Ok(data.into_iter().map(|(k, v)| (k, v.secrets)).collect())
    }

    async fn ping(&self) -> Result<(), Error> {
        check(self.client.clone().ping(wire::PingRequest {}).await)
    }
}
