use outrider_crds::decode;
use serde_json::json;

use super::*;

fn settings() -> Settings {
    Settings {
        image: "ghcr.io/dapr/daprd:1.18.4".into(),
        image_pull_policy: "IfNotPresent".into(),
        namespace: "dapr-system".into(),
        trust_domain: "cluster.local".into(),
        cluster_domain: "cluster.local".into(),
        actors: None,
        reminders: None,
        scheduler: false,
        ignore_entrypoint_tolerations: vec![json!({"key": "aws", "effect": "NoSchedule"})],
        run_as_non_root: true,
        run_as_user: None,
        run_as_group: None,
        read_only_root_filesystem: true,
        drop_all_capabilities: true,
        downward_apis: false,
        native_sidecar: false,
        sockets_folder: "/tmp/dapr-components-sockets".into(),
        identity_token: true,
    }
}

/// A pod with these annotations besides `enabled` and `app-id`.
fn pod(annotations: &[(&str, &str)]) -> Value {
    let mut pod = json!({
        "metadata": {"generateName": "app-", "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": "app"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    for (name, value) in annotations {
        pod["metadata"]["annotations"][format!("dapr.io/{name}")] = json!(value);
    }
    pod
}

/// With members in alphabetical order, whatever keeps them otherwise.
macro_rules! snapshot {
    ($value:expr) => {
        insta::with_settings!({sort_maps => true}, { insta::assert_json_snapshot!($value) })
    };
}

struct Case {
    settings: Settings,
    declared: Vec<Declared>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            settings: settings(),
            declared: Vec::new(),
        }
    }
}

impl Case {
    fn patch(&self, pod: &Value) -> Result<Patch, Error> {
        let situation = Situation {
            settings: &self.settings,
            namespace: "default",
            mtls: true,
            anchors: "PEM",
            declared: &self.declared,
        };
        patch(&decode::from_value(pod).unwrap(), &situation)
    }

    /// The pod as the API server would store it, and the warnings.
    fn apply(&self, pod: &Value) -> (Value, Vec<String>) {
        let patch = self.patch(pod).unwrap();
        let mut patched = pod.clone();
        let operations: json_patch::Patch =
            serde_json::from_value(json!(patch.operations)).unwrap();
        json_patch::patch(&mut patched, &operations).unwrap();
        (patched, patch.warnings)
    }

    fn sidecar(&self, annotations: &[(&str, &str)]) -> Value {
        let (pod, _) = self.apply(&pod(annotations));
        let containers = pod["spec"]["containers"].as_array().unwrap();
        containers
            .iter()
            .find(|container| container["name"] == SIDECAR)
            .unwrap()
            .clone()
    }

    /// The arguments that the annotations add or change.
    fn arguments(&self, annotations: &[(&str, &str)]) -> Vec<String> {
        let read = |container: Value| -> Vec<String> {
            serde_json::from_value(container["args"].clone()).unwrap()
        };
        let plain = read(Self::default().sidecar(&[]));
        let mut changed = read(self.sidecar(annotations));
        for argument in plain {
            if let Some(at) = changed.iter().position(|it| *it == argument) {
                changed.remove(at);
            }
        }
        changed
    }
}

#[test]
fn a_pod_without_options_gets_the_default_patch() {
    snapshot!(Case::default().patch(&pod(&[])).unwrap().operations);
}

#[test]
fn all_settings_work_together() {
    let mut settings = settings();
    settings.actors = Some(Actors::Placement(
        settings.address("dapr-placement-server", 50005),
    ));
    settings.scheduler = true;
    settings.downward_apis = true;
    settings.drop_all_capabilities = true;
    settings.run_as_user = Some(1000);
    settings.run_as_group = Some(2000);
    let mut pod = pod(&[
        ("app-port", "8080"),
        ("app-protocol", "grpc"),
        ("app-ssl", "true"),
        ("config", "tracing"),
        ("env", "A=1,2,B=3"),
        ("env-from-secret", "C=s:k,D=d"),
        ("api-token-secret", "tokens"),
        ("app-token-secret", "app-tokens"),
        ("sidecar-cpu-request", "100m"),
        ("sidecar-memory-limit", "64Mi"),
        ("sidecar-liveness-probe-delay-seconds", "7"),
        ("sidecar-readiness-probe-threshold", "9"),
        ("sidecar-seccomp-profile-type", "RuntimeDefault"),
        ("volume-mounts", "data:/data"),
        ("volume-mounts-rw", "scratch:/scratch, data:/data2"),
        ("unix-domain-socket-path", "/sockets"),
        ("pluggable-components", "store"),
    ]);
    pod["metadata"]["labels"] = json!({"x": "y"});
    pod["spec"]["volumes"] = json!([{"name": "data"}, {"name": "scratch"}]);
    pod["spec"]["containers"] = json!([
        {"name": "app", "env": [{"name": "DAPR_GRPC_PORT", "value": "mine"}]},
        {"name": "store", "volumeMounts": [{"name": "data", "mountPath": "/x"}]},
        {"name": "other", "volumeMounts": [{"name": "data", "mountPath": "/sockets"}]},
    ]);
    let (pod, warnings) = Case {
        settings,
        ..Case::default()
    }
    .apply(&pod);
    assert_eq!(warnings, [] as [&str; 0]);
    snapshot!(pod);
}

/// Annotations, and the arguments that they add or change.
type Row = (
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);
const ARGUMENTS: &[Row] = &[
    (&[("app-port", "-1")], &[]),
    // What is left empty counts as absent.
    (&[("app-port", "")], &[]),
    (&[("app-port", " 8080 ")], &["--app-port", "8080"]),
    (&[("grpc-port", ""), ("metrics-port", " ")], &[]),
    (&[("app-max-concurrency", "")], &[]),
    (&[("graceful-shutdown-seconds", ""), ("config", " ")], &[]),
    (
        &[
            ("block-shutdown-duration", ""),
            ("app-binding-options-timeout", ""),
            ("actors-disseminate-timeout", " "),
            ("disable-init-endpoints", ""),
        ],
        &[],
    ),
    (&[("dapr-unknown", "x")], &[]),
    (&[("enable-metrics", "false")], &["--enable-metrics=false"]),
    (&[("metrics-port", "1")], &["1"]),
    (
        &[("app-channel-address", "h")],
        &["--app-channel-address", "h"],
    ),
    (
        &[("placement-host-address", " h:1 ")],
        &["--placement-host-address", "h:1"],
    ),
    (&[("placement-host-address", "''")], &[]),
    (
        &[("scheduler-host-address", "h:1,h:2")],
        &["--scheduler-host-address", "h:1,h:2"],
    ),
    (
        &[("scheduler-host-address", "\"\"")],
        &["--scheduler-host-address", ""],
    ),
    (
        &[("sentry-request-jwt-audiences", "a,b")],
        &["--sentry-request-jwt-audiences", "a,b"],
    ),
    (
        &[("enable-api-logging", "")],
        &["--enable-api-logging=false"],
    ),
    (
        &[("enable-api-logging", "yes")],
        &["--enable-api-logging=true"],
    ),
    (
        &[("disable-builtin-k8s-secret-store", "1")],
        &["--disable-builtin-k8s-secret-store"],
    ),
    (
        &[
            ("enable-app-health-check", "on"),
            ("app-health-threshold", "7"),
        ],
        &[
            "--enable-app-health-check",
            "--app-health-check-path",
            "/healthz",
            "--app-health-probe-interval",
            "5",
            "--app-health-probe-timeout",
            "500",
            "--app-health-threshold",
            "7",
        ],
    ),
    (&[("app-health-threshold", "7")], &[]),
    (
        &[("app-binding-options-timeout", "30s")],
        &["--app-binding-options-timeout", "30s"],
    ),
    (&[("log-as-json", "true")], &["--log-as-json"]),
    (&[("log-level", "debug")], &["debug"]),
    (&[("enable-profiling", "true")], &["--enable-profiling"]),
    (
        &[("app-max-concurrency", "-1")],
        &["--app-max-concurrency", "-1"],
    ),
    (
        &[("http-max-request-size", "4")],
        &["--dapr-http-max-request-size", "4"],
    ),
    (&[("max-body-size", "4Mi")], &["--max-body-size", "4Mi"]),
    (
        &[("http-read-buffer-size", "8")],
        &["--dapr-http-read-buffer-size", "8"],
    ),
    (
        &[("read-buffer-size", "8Ki")],
        &["--read-buffer-size", "8Ki"],
    ),
    (
        &[("block-shutdown-duration", "2s")],
        &["--dapr-block-shutdown-duration", "2s"],
    ),
    (&[("graceful-shutdown-seconds", "12")], &["12"]),
    (
        &[("actors-disseminate-timeout", "5s")],
        &["--actors-disseminate-timeout", "5s"],
    ),
    (
        &[("disable-init-endpoints", "config")],
        &["--disable-init-endpoints", "config"],
    ),
    (&[("sidecar-listen-addresses", "0.0.0.0")], &["0.0.0.0"]),
    (
        &[("grpc-port", "1"), ("internal-grpc-port", "2")],
        &["1", "2"],
    ),
];

#[test]
fn each_annotation_adds_its_argument() {
    for (annotations, expected) in ARGUMENTS {
        let arguments = Case::default().arguments(annotations);
        assert_eq!(arguments, *expected, "{annotations:?}");
    }
}

#[test]
fn annotations_go_before_the_services_of_the_injector() {
    let with = |actors, reminders: Option<&str>| Case {
        settings: Settings {
            actors,
            reminders: reminders.map(str::to_owned),
            ..settings()
        },
        ..Case::default()
    };
    let placement = with(Some(Actors::Placement("p:1".into())), None);
    assert_eq!(
        placement.arguments(&[]),
        ["--placement-host-address", "p:1"]
    );
    assert_eq!(
        placement.arguments(&[("placement-host-address", "q:1")]),
        ["--placement-host-address", "q:1"]
    );
    assert_eq!(
        placement.arguments(&[("placement-host-address", " ")]),
        [] as [&str; 0]
    );
    let other = with(Some(Actors::Other("x:a:1".into())), Some("r:b:2"));
    assert_eq!(
        other.arguments(&[]),
        ["--actors-service", "x:a:1", "--reminders-service", "r:b:2"]
    );
}

#[test]
fn the_debugger_and_tolerations_change_the_command() {
    let plain = Case::default().sidecar(&[]);
    assert_eq!(
        (&plain["command"], &plain["args"][0]),
        (&Value::Null, &json!("/daprd"))
    );
    let debugged = Case::default().sidecar(&[("enable-debug", "true"), ("debug-port", "41000")]);
    let start: Vec<_> = debugged["args"].as_array().unwrap()[..10].to_vec();
    assert_eq!(
        json!(start),
        json!([
            "/dlv",
            "--listen",
            ":41000",
            "--accept-multiclient",
            "--headless=true",
            "--log",
            "--api-version=2",
            "exec",
            "/daprd",
            "--"
        ])
    );
    assert_eq!(
        debugged["ports"][4],
        json!({"name": "dapr-debug", "containerPort": 41000})
    );
    let mut tolerant = pod(&[]);
    tolerant["spec"]["tolerations"] = json!([{"key": "aws", "effect": "NoSchedule"}]);
    let (tolerant, _) = Case::default().apply(&tolerant);
    let sidecar = &tolerant["spec"]["containers"][1];
    assert_eq!(
        (&sidecar["command"], &sidecar["args"][0]),
        (&json!(["/daprd"]), &json!("--dapr-http-port"))
    );
}

#[test]
fn certificates_make_a_windows_sidecar_an_administrator() {
    let sidecar = Case::default().sidecar(&[("env", "SSL_CERT_DIR=/c")]);
    assert_eq!(
        sidecar["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "runAsNonRoot": false, "readOnlyRootFilesystem": false,
            "windowsOptions": {"runAsUserName": "ContainerAdministrator"},
        })
    );
}

#[test]
fn injected_containers_pass_restricted_pod_security() {
    let case = Case {
        declared: vec![
            Declared {
                name: "plain".into(),
                scopes: Vec::new(),
                container: r#"{"image": "a"}"#.into(),
            },
            Declared {
                name: "own".into(),
                scopes: Vec::new(),
                container:
                    r#"{"image": "b", "securityContext": {"runAsNonRoot": false, "runAsUser": 7}}"#
                        .into(),
            },
        ],
        ..Case::default()
    };
    let (pod, _) = case.apply(&pod(&[("inject-pluggable-components", "true")]));
    let context = |index: usize| &pod["spec"]["containers"][index]["securityContext"];
    for index in [1, 2] {
        for (member, value) in [
            ("allowPrivilegeEscalation", json!(false)),
            ("runAsNonRoot", json!(true)),
            ("capabilities", json!({"drop": ["ALL"]})),
            ("seccompProfile", json!({"type": "RuntimeDefault"})),
        ] {
            assert_eq!(context(index)[member], value, "{index} {member}");
        }
    }
    let own = context(3);
    assert_eq!(
        (
            &own["runAsNonRoot"],
            &own["runAsUser"],
            &own["capabilities"]
        ),
        (&json!(false), &json!(7), &json!({"drop": ["ALL"]}))
    );
    let mut windows = self::pod(&[]);
    windows["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
    let (windows, _) = case.apply(&windows);
    let context = &windows["spec"]["containers"][1]["securityContext"];
    assert!(context["seccompProfile"].is_null() && context["capabilities"].is_null());
    let sidecar = Case::default().sidecar(&[
        ("sidecar-seccomp-profile-type", "Unconfined"),
        ("sidecar-image", ""),
    ]);
    assert_eq!(
        sidecar["securityContext"]["seccompProfile"],
        json!({"type": "Unconfined"})
    );
    assert_eq!(sidecar["image"], "ghcr.io/dapr/daprd:1.18.4");
}

#[test]
fn a_pod_with_a_sidecar_is_not_patched() {
    for list in ["containers", "initContainers"] {
        let mut pod = pod(&[]);
        pod["spec"][list] = json!([{"name": "daprd"}]);
        assert_eq!(Case::default().patch(&pod), Ok(Patch::default()), "{list}");
    }
}

#[test]
fn the_app_id_is_the_annotation_or_the_name_and_has_to_be_valid() {
    let mut bare = pod(&[]);
    bare["metadata"] =
        json!({"name": "bare", "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": ""}});
    let (bare, _) = Case::default().apply(&bare);
    assert_eq!(bare["metadata"]["labels"]["dapr.io/app-id"], "bare");
    let mut nameless = pod(&[]);
    nameless["metadata"]["annotations"] = json!({"dapr.io/enabled": "true"});
    let error = Case::default().patch(&nameless).unwrap_err().to_string();
    assert_eq!(error, "value for the dapr.io/app-id annotation is empty");
    let error = Case::default()
        .patch(&pod(&[("app-id", "a.b")]))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("invalid app id (input: 'a.b', service: 'a.b-dapr'): "),
        "{error}"
    );
}

#[test]
fn an_error_names_the_wrong_annotation() {
    for (name, value) in [
        ("app-port", "http"),
        ("grpc-port", "x"),
        ("metrics-port", "1.5"),
        ("app-max-concurrency", "many"),
        ("graceful-shutdown-seconds", "5s"),
        ("sidecar-cpu-request", "much"),
        ("sidecar-liveness-probe-threshold", "x"),
        ("volume-mounts", "data"),
        ("volume-mounts-rw", "a:b:c"),
        ("env", "x"),
    ] {
        let error = Case::default()
            .patch(&pod(&[(name, value)]))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("annotation dapr.io/{name} ")),
            "{error}"
        );
    }
}

/// The names in a list of containers.
fn names(pod: &Value, list: &str) -> Vec<String> {
    let containers = pod["spec"][list].as_array().into_iter().flatten();
    containers
        .map(|container| container["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_native_sidecar_is_the_last_init_container_and_is_restarted() {
    let plain = Case::default();
    let native = Case {
        settings: Settings {
            native_sidecar: true,
            ..settings()
        },
        ..Case::default()
    };
    let mut expected = plain.sidecar(&[]);
    expected["restartPolicy"] = json!("Always");

    let (by_setting, _) = native.apply(&pod(&[]));
    assert_eq!(by_setting["spec"]["initContainers"], json!([expected]));
    assert_eq!(names(&by_setting, "containers"), ["app"]);
    assert_eq!(
        by_setting["spec"]["containers"][0]["env"],
        plain.apply(&pod(&[])).0["spec"]["containers"][0]["env"]
    );

    let mut prepared = pod(&[("enable-native-sidecar", "true")]);
    prepared["spec"]["initContainers"] = json!([{"name": "prepare", "image": "p"}]);
    let (by_annotation, _) = plain.apply(&prepared);
    assert_eq!(
        names(&by_annotation, "initContainers"),
        ["prepare", "daprd"]
    );
    assert_eq!(plain.patch(&by_annotation).unwrap(), Patch::default());

    let (refused, _) = native.apply(&pod(&[("enable-native-sidecar", "false")]));
    assert_eq!(names(&refused, "initContainers"), [""; 0]);
    assert_eq!(names(&refused, "containers"), ["app", "daprd"]);
}

#[test]
fn component_containers_are_native_beside_a_native_sidecar() {
    let case = Case {
        declared: vec![Declared {
            name: "store".into(),
            scopes: Vec::new(),
            container: r#"{"image": "a", "restartPolicy": "Never"}"#.into(),
        }],
        ..Case::default()
    };
    let mut with_own = pod(&[
        ("enable-native-sidecar", "true"),
        ("inject-pluggable-components", "true"),
        ("pluggable-components", "own"),
    ]);
    with_own["spec"]["containers"] =
        json!([{"name": "app", "image": "app"}, {"name": "own", "image": "own"}]);
    let (pod, _) = case.apply(&with_own);
    assert_eq!(names(&pod, "containers"), ["app", "own"]);
    assert_eq!(names(&pod, "initContainers"), ["store", "daprd"]);
    assert_eq!(pod["spec"]["initContainers"][0]["restartPolicy"], "Always");
    let socket = "dapr-components-unix-domain-socket";
    for container in [
        &pod["spec"]["initContainers"][0],
        &pod["spec"]["initContainers"][1],
        &pod["spec"]["containers"][1],
    ] {
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(
            mounts.iter().any(|mount| mount["name"] == socket),
            "{container}"
        );
    }
}

#[test]
fn a_mount_of_a_missing_volume_is_a_warning() {
    let (_, warnings) = Case::default().apply(&pod(&[("volume-mounts", "data:/data")]));
    assert_eq!(
        warnings,
        [r#"annotation dapr.io/volume-mounts: the pod has no volume "data""#]
    );
}

#[test]
fn containers_of_components_in_scope_are_added() {
    let declared = |name: &str, scopes: &[&str], container: &str| Declared {
        name: name.into(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        container: container.into(),
    };
    let case = Case {
        declared: vec![
            declared(
                "store",
                &[],
                r#"{"image": "a", "volumeMounts": [{"name": "scratch", "mountPath": "/s"}]}"#,
            ),
            declared("again", &[], r#"{"image": "a"}"#),
            declared("foreign", &["other"], r#"{"image": "b"}"#),
            declared("broken", &[], "{"),
            declared(
                "second",
                &["app"],
                r#"{"image": "c", "name": "n", "volumeMounts": [{"name": "scratch"}]}"#,
            ),
        ],
        ..Case::default()
    };
    let (plain, _) = case.apply(&pod(&[]));
    assert_eq!(plain["spec"]["containers"].as_array().unwrap().len(), 2);
    let (pod, _) = case.apply(&pod(&[
        ("inject-pluggable-components", "true"),
        ("pluggable-components-sockets-folder", "/f"),
    ]));
    let names: Vec<_> = pod["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].clone())
        .collect();
    assert_eq!(json!(names), json!(["app", "daprd", "store", "n"]));
    let volumes: Vec<_> = pod["spec"]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].clone())
        .collect();
    assert_eq!(
        json!(volumes),
        json!([
            "dapr-identity-token",
            "dapr-components-unix-domain-socket",
            "scratch"
        ])
    );
    let store = &pod["spec"]["containers"][2];
    assert_eq!(
        store["env"],
        json!([{"name": "DAPR_COMPONENT_SOCKETS_FOLDER", "value": "/f"}])
    );
    assert_eq!(
        store["volumeMounts"][1],
        json!({"name": "dapr-components-unix-domain-socket", "mountPath": "/f"})
    );
}

#[test]
fn only_true_asks_for_a_sidecar() {
    for (word, expected) in [
        ("true", true),
        ("True", true),
        (" true ", true),
        ("yes", false),
        ("1", false),
        ("false", false),
    ] {
        let map: Map = [("dapr.io/enabled".to_owned(), word.to_owned())].into();
        assert_eq!(wants_sidecar(&map), expected, "{word}");
    }
    assert!(!wants_sidecar(&Map::new()));
}
