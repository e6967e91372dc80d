//! What reads bytes of the API server and of authors of pods, for the crate
//! `outrider-fuzz`.

use outrider_crds::decode;
use serde_json::Value;

use crate::patch::{self, Settings, Situation};
use crate::review::Review;

/// An admission review, and the patch of its pod.
pub fn review(body: &[u8]) {
    let Ok(review) = Review::parse(body) else {
        return;
    };
    let object = review.request.map_or(Value::Null, |request| request.object);
    let Ok(pod) = decode::from_value(&object) else {
        return;
    };
    let settings = Settings {
        image: "daprd".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        namespace: "dapr-system".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        actors: None,
        reminders: None,
        scheduler: false,
        ignore_entrypoint_tolerations: Vec::new(),
        run_as_non_root: true,
        run_as_user: None,
        run_as_group: None,
        read_only_root_filesystem: true,
        drop_all_capabilities: false,
        downward_apis: false,
        native_sidecar: false,
        sockets_folder: "/tmp/sockets".to_owned(),
        identity_token: true,
    };
    let situation = Situation {
        settings: &settings,
        namespace: "default",
        mtls: true,
        anchors: "PEM",
        declared: &[],
    };
    let _ = patch::patch(&pod, &situation);
}
