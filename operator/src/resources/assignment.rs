//! Which Configuration an app has, by the annotations of its pods.

use outrider_crds::annotations::{APP_ID, CONFIG, ENABLED};
use outrider_k8s::watch::Store;
use outrider_kit::truthy;
use serde_json::{Value, json};

/// Reduces a pod with a sidecar to its name and two annotations, and drops others.
pub fn keep(pod: Value) -> Option<Value> {
    let metadata = &pod["metadata"];
    let enabled = metadata["annotations"][ENABLED.name]
        .as_str()
        .is_some_and(truthy);
    enabled.then(|| {
        let annotation = |name: &str| (name.to_owned(), metadata["annotations"][name].clone());
        let annotations: serde_json::Map<_, _> = [annotation(APP_ID.name), annotation(CONFIG.name)]
            .into_iter()
            .collect();
        json!({"metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "annotations": annotations,
        }})
    })
}

/// Whether one of the app's pods uses this Configuration. During a roll-out pods may differ.
pub fn configurations(pods: &Store, namespace: &str, app_id: &str, configuration: &str) -> bool {
    pods.list(Some(namespace)).iter().any(|pod| {
        let annotation = |name: &str| {
            pod.json["metadata"]["annotations"][name]
                .as_str()
                .filter(|text| !text.is_empty())
        };
        annotation(APP_ID.name).unwrap_or(&pod.name) == app_id
            && annotation(CONFIG.name).map(str::trim) == Some(configuration)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_pod_with_a_sidecar_name_and_annotations_are_kept() {
        let pod = |enabled: &str| {
            json!({"metadata": {"name": "p", "namespace": "n", "resourceVersion": "1", "annotations": {
                "dapr.io/enabled": enabled, "dapr.io/config": "c", "other": "x",
            }}, "spec": {"containers": []}})
        };
        assert_eq!(keep(pod("no")), None);
        assert_eq!(keep(json!({"metadata": {"name": "p"}})), None);
        assert_eq!(
            keep(pod("yes")),
            Some(
                json!({"metadata": {"name": "p", "namespace": "n", "annotations": {
                    "dapr.io/app-id": null, "dapr.io/config": "c",
                }}})
            )
        );
    }
}
