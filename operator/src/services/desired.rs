//! From a workload to its Service. No I/O.

use outrider_crds::annotations as a;
use outrider_crds::annotations::{Annotation, Map};
use outrider_crds::app_id;
use outrider_k8s::watch::Object;
use outrider_kit::truthy;
use serde_json::{Value, json};

const KIND: &str = "outrider.kind";
const HTTP_PORT: u16 = 3500;
/// Annotations that scrapers look for.
const SCRAPE: [&str; 4] = [
    "prometheus.io/probe",
    "prometheus.io/scrape",
    "prometheus.io/port",
    "prometheus.io/path",
];

/// A workload whose template asks for a sidecar.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    pub name: String,
    namespace: String,
    kind: String,
    uid: String,
    pub app_id: String,
    /// Name of the Service.
    pub service: String,
    annotations: Map,
    selector: Value,
}

pub fn keep_deployment(object: Value) -> Option<Value> {
    keep(object, "Deployment")
}

pub fn keep_stateful_set(object: Value) -> Option<Value> {
    keep(object, "StatefulSet")
}

/// What decides the Service; nothing of workloads without a sidecar.
fn keep(object: Value, kind: &str) -> Option<Value> {
    let annotations = object
        .pointer("/spec/template/metadata/annotations")?
        .as_object()?;
    if !annotations
        .get(a::ENABLED.name)?
        .as_str()
        .is_some_and(truthy)
    {
        return None;
    }
    let ours: serde_json::Map<_, _> = annotations
        .iter()
        .filter(|(name, _)| name.starts_with("dapr.io/"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let metadata = &object["metadata"];
    Some(json!({
        KIND: kind,
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "deletionTimestamp": metadata["deletionTimestamp"],
        },
        "annotations": ours,
        "selector": object["spec"]["selector"]["matchLabels"],
    }))
}

impl Workload {
    /// Nothing if it is going away.
    pub fn read(object: &Object) -> Result<Option<Self>, app_id::Error> {
        let json = &object.json;
        if !json["metadata"]["deletionTimestamp"].is_null() {
            return Ok(None);
        }
        let annotations: Map =
            serde_json::from_value(json["annotations"].clone()).unwrap_or_default();
        let app_id = annotations.get(a::APP_ID.name).cloned().unwrap_or_default();
        Ok(Some(Self {
            name: object.name.clone(),
            namespace: object.namespace.clone(),
            kind: json[KIND].as_str().unwrap_or_default().to_owned(),
            uid: json["metadata"]["uid"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            service: app_id::service_name(&app_id)?,
            app_id,
            annotations,
            selector: json["selector"].clone(),
        }))
    }

    pub fn service(&self, mtls: bool) -> Value {
        let map = &self.annotations;
        // An empty one counts as on: sidecars have metrics by default.
        let metrics = a::ENABLE_METRICS
            .text(map)
            .is_none_or(|text| text.is_empty() || truthy(text));
        let metrics_port = port(&a::METRICS_PORT, map);
        let mut annotations = serde_json::Map::new();
        annotations.insert(a::APP_ID.name.to_owned(), json!(self.app_id));
        if metrics {
            let [probe, scrape, port, path] = SCRAPE;
            let port_text = metrics_port.to_string();
            for (name, value) in [
                (probe, "true"),
                (scrape, "true"),
                (port, port_text.as_str()),
                (path, "/"),
            ] {
                annotations.insert(name.to_owned(), json!(value));
            }
        }
        for (name, value) in pairs(a::SIDECAR_SERVICE_ANNOTATIONS.read(map)) {
            if annotations.contains_key(name) {
                tracing::warn!(target: "dapr.operator.handlers", "Ignoring reserved annotation {name:?} as it operator-managed");
                continue;
            }
            annotations.insert(name.to_owned(), json!(value));
        }
        let grpc = port(&a::GRPC_PORT, map);
        let internal = port(&a::INTERNAL_GRPC_PORT, map);
        let listed = |name: &str, port: i32, target: i32, protocol: &str| json!({"name": name, "protocol": "TCP", "port": port, "targetPort": target, "appProtocol": protocol});
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": self.service,
                "namespace": self.namespace,
                "labels": {a::ENABLED.name: "true"},
                "annotations": annotations,
                "ownerReferences": [{
                    "apiVersion": "apps/v1",
                    "kind": self.kind,
                    "name": self.name,
                    "uid": self.uid,
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
            "spec": {
                "clusterIP": "None",
                "selector": self.selector,
                "ports": [
                    listed("dapr-http", 80, i32::from(HTTP_PORT), "http"),
                    listed("dapr-grpc", grpc, grpc, "grpc"),
                    listed("dapr-internal", internal, internal, if mtls { "tls" } else { "grpc" }),
                    listed("dapr-metrics", metrics_port, metrics_port, "http"),
                ],
            },
        })
    }
}

/// A number of 32 bits, or the default.
fn port(annotation: &Annotation<i64>, map: &Map) -> i32 {
    let number = annotation
        .text(map)
        .and_then(|text| text.trim().parse().ok());
    number.unwrap_or_else(|| annotation.default.try_into().unwrap_or_default())
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.trim(), value.trim()))
        .filter(|(name, _)| !name.is_empty())
}

/// The Service as it is, with what we want of it. What others have added stays.
pub fn merge(known: &Value, wanted: &Value) -> Value {
    let mut merged = known.clone();
    for part in ["labels", "annotations"] {
        let target = &mut merged["metadata"][part];
        if !target.is_object() {
            *target = json!({});
        }
        let Some(target) = target.as_object_mut() else {
            continue;
        };
        if part == "annotations" {
            SCRAPE.iter().for_each(|name| drop(target.remove(*name)));
        }
        for (name, value) in wanted["metadata"][part].as_object().into_iter().flatten() {
            target.insert(name.clone(), value.clone());
        }
    }
    merged["metadata"]["ownerReferences"] = wanted["metadata"]["ownerReferences"].clone();
    for part in ["selector", "ports", "clusterIP"] {
        merged["spec"][part] = wanted["spec"][part].clone();
    }
    merged
}

/// For writing: the store leaves these out.
pub fn typed(mut service: Value) -> Value {
    service["apiVersion"] = json!("v1");
    service["kind"] = json!("Service");
    service
}

/// Whether it was made here, for a Deployment or a StatefulSet.
pub fn is_ours(service: &Value) -> bool {
    let metadata = &service["metadata"];
    let app_id = metadata["annotations"][a::APP_ID.name]
        .as_str()
        .unwrap_or_default();
    let owners = metadata["ownerReferences"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let owned = owners.iter().any(|owner| {
        owner["controller"] == true
            && owner["apiVersion"] == "apps/v1"
            && (owner["kind"] == "Deployment" || owner["kind"] == "StatefulSet")
    });
    owned && metadata["name"] == format!("{app_id}-dapr")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(annotations: &[(&str, &str)]) -> Value {
        let mut template = json!({"dapr.io/enabled": "yes", "dapr.io/app-id": "app", "other": "x"});
        for (name, value) in annotations {
            template[format!("dapr.io/{name}")] = json!(value);
        }
        json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "u"},
            "spec": {
                "selector": {"matchLabels": {"app": "x"}},
                "template": {"metadata": {"annotations": template}, "spec": {"containers": []}},
            },
        })
    }

    fn service(annotations: &[(&str, &str)], mtls: bool) -> Value {
        let json = keep_deployment(deployment(annotations)).unwrap();
        let object = Object {
            namespace: "n".into(),
            name: "d".into(),
            json,
        };
        Workload::read(&object).unwrap().unwrap().service(mtls)
    }

    #[test]
    fn a_workload_without_further_annotations_gets_the_default_ports() {
        let port = |name: &str, port: u16, target: u16, protocol: &str| json!({"name": name, "protocol": "TCP", "port": port, "targetPort": target, "appProtocol": protocol});
        assert_eq!(
            service(&[], true),
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {
                    "name": "app-dapr", "namespace": "n",
                    "labels": {"dapr.io/enabled": "true"},
                    "annotations": {
                        "dapr.io/app-id": "app", "prometheus.io/probe": "true", "prometheus.io/scrape": "true",
                        "prometheus.io/port": "9090", "prometheus.io/path": "/",
                    },
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u",
                        "controller": true, "blockOwnerDeletion": true}],
                },
                "spec": {"clusterIP": "None", "selector": {"app": "x"}, "ports": [
                    port("dapr-http", 80, 3500, "http"),
                    port("dapr-grpc", 50001, 50001, "grpc"),
                    port("dapr-internal", 50002, 50002, "tls"),
                    port("dapr-metrics", 9090, 9090, "http"),
                ]},
            })
        );
    }

    #[test]
    fn ports_and_annotations_follow_the_workload() {
        let service = service(
            &[
                ("enable-metrics", "false"),
                ("grpc-port", "60001"),
                ("internal-grpc-port", "wrong"),
                (
                    "sidecar-svc-annotations",
                    " a = b ,nothing,=x,dapr.io/app-id=stolen, c=d=e",
                ),
            ],
            false,
        );
        assert_eq!(
            service["metadata"]["annotations"],
            json!({"dapr.io/app-id": "app", "a": "b", "c": "d=e"})
        );
        let ports = service["spec"]["ports"].as_array().unwrap();
        assert_eq!(
            (&ports[1]["port"], &ports[2]["port"]),
            (&json!(60001), &json!(50002))
        );
        assert_eq!(ports[2]["appProtocol"], "grpc");
    }

    #[test]
    fn only_annotated_workloads_that_are_not_being_deleted_count() {
        let mut plain = deployment(&[]);
        plain["spec"]["template"]["metadata"]["annotations"]["dapr.io/enabled"] = json!("false");
        assert_eq!(keep_deployment(plain), None);
        assert_eq!(keep_stateful_set(json!({"metadata": {"name": "x"}})), None);
        let read = |edit: fn(&mut Value)| {
            let mut workload = deployment(&[]);
            edit(&mut workload);
            let json = keep_stateful_set(workload).unwrap();
            Workload::read(&Object {
                namespace: "n".into(),
                name: "d".into(),
                json,
            })
        };
        assert_eq!(
            read(|it| it["metadata"]["deletionTimestamp"] = json!("now")),
            Ok(None)
        );
        let nameless = read(|it| {
            it["spec"]["template"]["metadata"]["annotations"]["dapr.io/app-id"] = json!("")
        });
        assert_eq!(nameless, Err(app_id::Error::Empty));
        assert_eq!(
            read(|_| ()).unwrap().unwrap().service(true)["metadata"]["ownerReferences"][0]["kind"],
            "StatefulSet"
        );
    }

    #[test]
    fn a_service_keeps_what_others_added() {
        let wanted = service(&[("enable-metrics", "false")], true);
        let mut known = service(&[], true);
        known["metadata"]["resourceVersion"] = json!("5");
        known["metadata"]["labels"]["team"] = json!("a");
        known["metadata"]["annotations"]["team"] = json!("b");
        known["spec"]["clusterIPs"] = json!(["None"]);
        known["spec"]["ports"][0]["port"] = json!(81);
        let merged = merge(&known, &wanted);
        assert_eq!(
            merged["metadata"]["labels"],
            json!({"dapr.io/enabled": "true", "team": "a"})
        );
        assert_eq!(
            merged["metadata"]["annotations"],
            json!({"dapr.io/app-id": "app", "team": "b"})
        );
        assert_eq!(
            (
                &merged["metadata"]["resourceVersion"],
                &merged["spec"]["ports"][0]["port"]
            ),
            (&json!("5"), &json!(80))
        );
        assert_eq!(merge(&merged, &wanted), merged, "nothing changes any more");
    }

    #[test]
    fn only_our_services_are_deleted() {
        let ours = service(&[], true);
        assert!(is_ours(&ours));
        for (pointer, value) in [
            ("/metadata/name", json!("other")),
            ("/metadata/ownerReferences", json!([])),
            ("/metadata/ownerReferences/0/kind", json!("Rollout")),
        ] {
            let mut changed = ours.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert!(!is_ours(&changed), "{pointer}");
        }
    }
}
