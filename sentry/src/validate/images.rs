//! The container images of a pod, for an extension of its certificate.

use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Image<'a> {
    role: &'static str,
    container_name: &'a str,
    image: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
}

/// A JSON list: init containers that stay, then the others, in the pod's order.
/// `None` if the pod has no containers.
pub fn of_pod(pod: &Value) -> Option<Vec<u8>> {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let containers: Vec<(Value, &str)> = list(&pod["spec"]["initContainers"])
        .into_iter()
        .filter(|c| c["restartPolicy"] == "Always")
        .map(|c| (c, "initContainerStatuses"))
        .chain(
            list(&pod["spec"]["containers"])
                .into_iter()
                .map(|c| (c, "containerStatuses")),
        )
        .collect();
    if containers.is_empty() {
        return None;
    }
    let images: Vec<Image<'_>> = containers
        .iter()
        .map(|(container, statuses)| {
            let name = container["name"].as_str().unwrap_or_default();
            let statuses = pod["status"][*statuses].as_array();
            let status = statuses.and_then(|all| all.iter().find(|s| s["name"] == name));
            Image {
                role: if name == "daprd" { "daprd" } else { "app" },
                container_name: name,
                image: container["image"].as_str().unwrap_or_default(),
                digest: status.and_then(|s| digest(s["imageID"].as_str()?)),
            }
        })
        .collect();
    serde_json::to_vec(&images).ok()
}

fn digest(image_id: &str) -> Option<&str> {
    match image_id.rsplit_once('@') {
        Some((_, digest)) => Some(digest).filter(|d| !d.is_empty()),
        None => Some(image_id).filter(|id| id.starts_with("sha256:")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_are_listed_in_order_with_the_digests_that_are_known() {
        let pod = json!({
            "spec": {
                "initContainers": [
                    {"name": "setup", "image": "s"},
                    {"name": "daprd", "image": "d", "restartPolicy": "Always"},
                ],
                "containers": [{"name": "app", "image": "a"}, {"name": "late", "image": "l"}],
            },
            "status": {
                "initContainerStatuses": [{"name": "daprd", "imageID": "r/d@sha256:1"}],
                "containerStatuses": [{"name": "app", "imageID": "sha256:2"}, {"name": "late", "imageID": "tag"}],
            },
        });
        assert_eq!(
            String::from_utf8(of_pod(&pod).unwrap()).unwrap(),
            r#"[{"role":"daprd","containerName":"daprd","image":"d","digest":"sha256:1"},{"role":"app","containerName":"app","image":"a","digest":"sha256:2"},{"role":"app","containerName":"late","image":"l"}]"#
        );
        assert_eq!(of_pod(&json!({"spec": {}})), None);
    }
}
