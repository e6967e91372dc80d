//! The sidecar's container.

use outrider_crds::annotations as a;
use outrider_crds::annotations::{Annotation, Map};
use serde_json::{Map as Object, Value, json};

use super::pluggable::Components;
use super::pod::Pod;
use super::volumes::Volumes;
use super::{Error, HTTP_PORT, PUBLIC_PORT, SIDECAR, Situation, arguments, env};

const PROGRAM: &str = "/daprd";
const DEBUGGER: &str = "/dlv";
/// What restricted Pod Security asks for.
/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/>
pub const SECCOMP_PROFILE: &str = "RuntimeDefault";

pub fn sidecar(
    pod: &Pod,
    situation: &Situation<'_>,
    volumes: &Volumes,
    components: &Components,
    warnings: &mut Vec<String>,
) -> Result<Value, Error> {
    let map = &pod.metadata.annotations;
    let settings = situation.settings;
    let environment = environment(map, situation, components)?;
    let (program, arguments) = command(map, pod.app_id(), situation)?;
    let mut container = json!({
        "name": SIDECAR,
        "image": a::IMAGE.read_filled(map).unwrap_or(&settings.image),
        "imagePullPolicy": settings.image_pull_policy,
        "ports": ports(map)?,
        "env": environment,
        "securityContext": security(pod, situation, &environment),
        "readinessProbe": probe(
            json!({"httpGet": {"path": "/v1.0/healthz", "port": PUBLIC_PORT}}),
            [
                a::READINESS_DELAY_SECONDS.read(map)?,
                a::READINESS_TIMEOUT_SECONDS.read(map)?,
                a::READINESS_PERIOD_SECONDS.read(map)?,
                a::READINESS_THRESHOLD.read(map)?,
            ],
        ),
        "livenessProbe": probe(
            json!({"tcpSocket": {"port": PUBLIC_PORT}}),
            [
                a::LIVENESS_DELAY_SECONDS.read(map)?,
                a::LIVENESS_TIMEOUT_SECONDS.read(map)?,
                a::LIVENESS_PERIOD_SECONDS.read(map)?,
                a::LIVENESS_THRESHOLD.read(map)?,
            ],
        ),
        "volumeMounts": volumes.sidecar_mounts(pod, warnings)?,
    });
    // Some virtual nodes drop the image's entry point as soon as there are arguments.
    if pod
        .spec
        .tolerations
        .iter()
        .any(|toleration| settings.ignore_entrypoint_tolerations.contains(toleration))
    {
        container["command"] = json!([program]);
        container["args"] = json!(arguments);
    } else {
        container["args"] = std::iter::once(program.to_owned())
            .chain(arguments)
            .collect();
    }
    let resources = resources(map)?;
    if !resources.is_empty() {
        container["resources"] = resources.into();
    }
    Ok(container)
}

/// The program, and its arguments.
fn command(
    map: &Map,
    app_id: &str,
    situation: &Situation<'_>,
) -> Result<(&'static str, Vec<String>), Error> {
    let mut arguments = arguments::arguments(map, app_id, situation)?;
    if !a::ENABLE_DEBUG.read(map) {
        return Ok((PROGRAM, arguments));
    }
    let listen = format!(":{}", a::DEBUG_PORT.read(map)?);
    let debugger = [
        "--listen",
        &listen,
        "--accept-multiclient",
        "--headless=true",
        "--log",
        "--api-version=2",
        "exec",
        PROGRAM,
        "--",
    ];
    arguments.splice(0..0, debugger.map(str::to_owned));
    Ok((DEBUGGER, arguments))
}

fn ports(map: &Map) -> Result<Value, Error> {
    let mut ports = vec![
        ("dapr-http", i64::from(HTTP_PORT)),
        ("dapr-grpc", a::GRPC_PORT.read(map)?),
        ("dapr-internal", a::INTERNAL_GRPC_PORT.read(map)?),
        ("dapr-metrics", a::METRICS_PORT.read(map)?),
    ];
    if a::ENABLE_DEBUG.read(map) {
        ports.push(("dapr-debug", a::DEBUG_PORT.read(map)?));
    }
    Ok(ports
        .into_iter()
        .map(|(name, port)| json!({"name": name, "containerPort": port}))
        .collect())
}

fn probe(mut probe: Value, [delay, timeout, period, threshold]: [i64; 4]) -> Value {
    probe["initialDelaySeconds"] = json!(delay);
    probe["timeoutSeconds"] = json!(timeout);
    probe["periodSeconds"] = json!(period);
    probe["failureThreshold"] = json!(threshold);
    probe
}

fn environment(
    map: &Map,
    situation: &Situation<'_>,
    components: &Components,
) -> Result<Vec<Value>, Error> {
    let settings = situation.settings;
    let mut variables = vec![
        json!({"name": "NAMESPACE", "value": situation.namespace}),
        json!({"name": "DAPR_TRUST_ANCHORS", "value": situation.anchors}),
        env::from_field("POD_NAME", "metadata.name"),
        json!({"name": "DAPR_CONTROLPLANE_NAMESPACE", "value": settings.namespace}),
        json!({"name": "DAPR_CONTROLPLANE_TRUST_DOMAIN", "value": settings.trust_domain}),
    ];
    if settings.downward_apis {
        variables.push(env::from_field("DAPR_HOST_IP", "status.podIP"));
    }
    let (requested, names) = env::requested(map)?;
    variables.extend(requested);
    if !names.is_empty() {
        variables.push(json!({"name": "DAPR_ENV_KEYS", "value": names.join(" ")}));
    }
    variables.extend(components.sidecar_env());
    for (name, secret) in [
        ("DAPR_API_TOKEN", a::API_TOKEN_SECRET),
        ("APP_API_TOKEN", a::APP_TOKEN_SECRET),
    ] {
        let secret = secret.read(map);
        if !secret.is_empty() {
            variables.push(env::from_secret(name, secret, "token"));
        }
    }
    Ok(variables)
}

fn security(pod: &Pod, situation: &Situation<'_>, environment: &[Value]) -> Value {
    let map = &pod.metadata.annotations;
    let settings = situation.settings;
    // On Windows certificates can only be installed by an administrator.
    let windows = environment
        .iter()
        .any(|variable| variable["name"] == "SSL_CERT_DIR");
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "runAsNonRoot": settings.run_as_non_root && !windows,
        "readOnlyRootFilesystem": settings.read_only_root_filesystem && !windows,
    });
    if windows {
        context["windowsOptions"] = json!({"runAsUserName": "ContainerAdministrator"});
    } else {
        for (member, id) in [
            ("runAsUser", settings.run_as_user),
            ("runAsGroup", settings.run_as_group),
        ] {
            if let Some(id) = id {
                context[member] = json!(id);
            }
        }
    }
    // Windows has neither, and the API server refuses them in a pod for Windows.
    if !windows && !pod.is_for_windows() {
        if settings.drop_all_capabilities {
            context["capabilities"] = json!({"drop": ["ALL"]});
        }
        let profile = a::SECCOMP_PROFILE_TYPE.read_filled(map);
        context["seccompProfile"] = json!({"type": profile.unwrap_or(SECCOMP_PROFILE)});
    }
    context
}

fn resources(map: &Map) -> Result<Object<String, Value>, Error> {
    let mut resources = Object::new();
    for (group, cpu, memory) in [
        ("requests", &a::CPU_REQUEST, &a::MEMORY_REQUEST),
        ("limits", &a::CPU_LIMIT, &a::MEMORY_LIMIT),
    ] {
        let mut amounts = Object::new();
        for (name, annotation) in [("cpu", cpu), ("memory", memory)] {
            if let Some(amount) = quantity(annotation, map)? {
                amounts.insert(name.into(), amount.into());
            }
        }
        if !amounts.is_empty() {
            resources.insert(group.into(), amounts.into());
        }
    }
    Ok(resources)
}

fn quantity<'a>(
    annotation: &Annotation<Option<&'static str>>,
    map: &'a Map,
) -> Result<Option<&'a str>, Error> {
    let Some(text) = annotation.read_filled(map) else {
        return Ok(None);
    };
    match outrider_kit::quantity::parse(text) {
        Ok(_) => Ok(Some(text)),
        Err(_) => Err(annotation
            .error("a quantity such as 100m or 64Mi", text)
            .into()),
    }
}
