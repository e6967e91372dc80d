use outrider_conformance::server;
use outrider_conformance::state::{run, survives};

use crate::state_version;

#[tokio::test]
async fn state() {
    let Some(mut server) = server::etcd().await else {
        return;
    };
    let address = server.address();
    for version in ["v1", "v2"] {
        let properties = [
            // The first server is not there.
            ("endpoints", &*format!("127.0.0.1:1,{address}")),
            ("keyPrefixPath", version),
            ("tlsEnable", "false"),
        ];
        let store = state_version("state.etcd", version, &properties).await;
        run(&*store).await;
    }
    let properties = [("endpoints", address.as_str())];
    let store = state_version("state.etcd", "v2", &properties).await;
    survives(&*store, &mut server).await;
    store.close().await.expect("close");
}
