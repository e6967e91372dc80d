//! What the chart renders for common values.

use anyhow::{Context as _, Result, ensure};
use outrider_cluster::product;
use outrider_cluster::{Cluster, may_boot};

/// A rendered object.
struct Object {
    kind: String,
    name: String,
    text: String,
}

async fn rendered(values: &[&str]) -> Result<Option<Vec<Object>>> {
    if !may_boot() {
        return Ok(None);
    }
    let cluster = Cluster::shared().await?;
    let chart = product::chart();
    let chart = chart.to_str().context("the chart's path is no text")?;
    let mut words = vec!["template", "dapr", chart, "--namespace", "dapr-system"];
    for value in values {
        words.extend(["--set", value]);
    }
    let text = cluster.helm(words).await?;
    let objects = text.split("\n---").filter_map(|text| {
        let find = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
        Some(Object {
            kind: find("kind: ")?.to_owned(),
            name: find("  name: ")?.trim_matches('"').to_owned(),
            text: text.to_owned(),
        })
    });
    Ok(Some(objects.collect()))
}

fn named<'a>(objects: &'a [Object], kind: &str, name: &str) -> Result<&'a Object> {
    let is_it = |o: &&Object| o.kind == kind && o.name == name;
    objects
        .iter()
        .find(is_it)
        .with_context(|| format!("no {kind} {name}"))
}

const DEPLOYMENTS: [&str; 3] = ["dapr-operator", "dapr-sentry", "dapr-sidecar-injector"];
const PLACEMENT: &str = "dapr-placement-server";
const SCHEDULER: &str = "dapr-scheduler-server";
const SCHEDULER_BUDGET: &str = "dapr-scheduler-server-disruption-budget";

#[tokio::test]
async fn by_default_each_service_has_one_replica() -> Result<()> {
    let Some(objects) = rendered(&[]).await? else {
        return Ok(());
    };
    for name in DEPLOYMENTS {
        let deployment = named(&objects, "Deployment", name)?;
        ensure!(deployment.text.contains("replicas: 1"), "{name}");
        ensure!(!deployment.text.contains("--log-as-json"), "{name}");
        ensure!(deployment.text.contains("runAsNonRoot: true"), "{name}");
    }
    named(&objects, "Configuration", "daprsystem")?;
    named(
        &objects,
        "MutatingWebhookConfiguration",
        "dapr-sidecar-injector",
    )?;
    // Schedulers are always several, unless fewer are asked for.
    let budgets = objects.iter().filter(|o| o.kind == "PodDisruptionBudget");
    let budgets: Vec<&str> = budgets.map(|o| o.name.as_str()).collect();
    ensure!(budgets == [SCHEDULER_BUDGET], "{budgets:?}");
    Ok(())
}

#[tokio::test]
async fn placement_and_scheduler_are_deployed_and_sidecars_are_told_of_them() -> Result<()> {
    let Some(objects) = rendered(&[]).await? else {
        return Ok(());
    };
    let placement = named(&objects, "StatefulSet", PLACEMENT)?;
    ensure!(placement.text.contains("replicas: 1"), "{}", placement.text);
    ensure!(
        !placement.text.contains("initial-cluster"),
        "alone, it has no peers"
    );
    let scheduler = named(&objects, "StatefulSet", SCHEDULER)?;
    for wanted in [
        "replicas: 3",
        "dapr-scheduler-server-2=https://dapr-scheduler-server-2.dapr-scheduler-server.dapr-system.svc.cluster.local:2380",
        "name: dapr-scheduler-data-dir",
        "storage: 16Gi",
        "fsGroup: 65532",
        "podAntiAffinity",
    ] {
        ensure!(
            scheduler.text.contains(wanted),
            "{wanted}\n{}",
            scheduler.text
        );
    }
    for name in [PLACEMENT, SCHEDULER, "dapr-scheduler-server-a"] {
        named(&objects, "Service", name)?;
    }
    let injector = named(&objects, "Deployment", "dapr-sidecar-injector")?;
    for wanted in [
        "--scheduler-enabled=true",
        "name: ACTORS_ENABLED\n              value: \"true\"",
        "value: \"dapr-placement-server:50005\"",
    ] {
        ensure!(
            injector.text.contains(wanted),
            "{wanted}\n{}",
            injector.text
        );
    }
    Ok(())
}

#[tokio::test]
async fn several_placements_keep_away_from_each_other_without_the_rest_being_several() -> Result<()>
{
    let Some(objects) = rendered(&["dapr_placement.ha=true"]).await? else {
        return Ok(());
    };
    let placement = named(&objects, "StatefulSet", PLACEMENT)?;
    for wanted in ["replicas: 3", "podAntiAffinity"] {
        ensure!(
            placement.text.contains(wanted),
            "{wanted}\n{}",
            placement.text
        );
    }
    named(
        &objects,
        "PodDisruptionBudget",
        "dapr-placement-server-disruption-budget",
    )?;
    let operator = named(&objects, "Deployment", "dapr-operator")?;
    ensure!(
        !operator.text.contains("podAntiAffinity"),
        "{}",
        operator.text
    );
    Ok(())
}

#[tokio::test]
async fn without_actors_or_scheduler_nothing_of_them_is_deployed() -> Result<()> {
    let values = [
        "global.actors.enabled=false",
        "global.scheduler.enabled=false",
    ];
    let Some(objects) = rendered(&values).await? else {
        return Ok(());
    };
    let left = objects.iter().filter(|o| {
        let of = |what| o.name.contains(what);
        of("placement") || of("scheduler")
    });
    let left: Vec<_> = left.map(|o| format!("{} {}", o.kind, o.name)).collect();
    ensure!(left.is_empty(), "{left:?}");
    let injector = named(&objects, "Deployment", "dapr-sidecar-injector")?;
    ensure!(
        injector.text.contains("--scheduler-enabled=false"),
        "{}",
        injector.text
    );
    Ok(())
}

#[tokio::test]
async fn schedulers_serve_placement_in_place_of_its_service_if_wanted() -> Result<()> {
    let Some(objects) = rendered(&[]).await? else {
        return Ok(());
    };
    let scheduler = named(&objects, "StatefulSet", SCHEDULER)?;
    ensure!(!scheduler.text.contains("--placement-enabled"));
    let pods = "[get, list, watch]";
    let reads_pods = |objects: &[Object]| {
        let role = named(objects, "Role", "dapr-scheduler")?;
        let is_it = |rule: &String| rule.starts_with("resources: [pods]") && rule.contains(pods);
        anyhow::Ok(rules(role).iter().any(is_it))
    };
    ensure!(reads_pods(&objects)?, "also where it does not serve");

    let wanted = "global.scheduler.placement.enabled=true";
    for more in ["global.ha.enabled=false", "global.ha.enabled=true"] {
        let objects = rendered(&[wanted, more]).await?.context("rendered")?;
        let left = objects.iter().filter(|o| o.name.contains("placement"));
        let left: Vec<_> = left.map(|o| format!("{} {}", o.kind, o.name)).collect();
        ensure!(left.is_empty(), "{left:?}");
        let scheduler = named(&objects, "StatefulSet", SCHEDULER)?;
        ensure!(scheduler.text.contains("- --placement-enabled\n"));
        ensure!(reads_pods(&objects)?);
        // Sidecars can go back.
        let injector = named(&objects, "Deployment", "dapr-sidecar-injector")?;
        let address = "value: \"dapr-placement-server:50005\"";
        ensure!(injector.text.contains(address), "{}", injector.text);
    }
    for (value, named) in [
        ("global.scheduler.enabled=false", "global.scheduler.enabled"),
        ("global.actors.enabled=false", "global.actors.enabled"),
        (
            "global.actors.serviceName=scheduler",
            "global.actors.serviceName",
        ),
    ] {
        let error = rendered(&[wanted, value]).await.err();
        let error = format!("{:#}", error.context("was rendered")?);
        let text = format!("global.scheduler.placement.enabled needs {named}");
        ensure!(error.contains(&text), "{value}: {error}");
    }
    // What `helm upgrade --reuse-values` has of an older release.
    let objects = rendered(&["global.scheduler.placement=null"]).await?;
    named(&objects.context("rendered")?, "StatefulSet", PLACEMENT)?;
    Ok(())
}

#[tokio::test]
async fn settings_of_the_scheduler_become_its_flags() -> Result<()> {
    let values = [
        "dapr_scheduler.replicaCount=1",
        "dapr_scheduler.workers=2000000",
        "dapr_scheduler.cluster.inMemoryStorage=true",
        "dapr_scheduler.etcdEmbed=false",
        "dapr_scheduler.etcdClientEndpoints={a:1,b:2}",
        "dapr_scheduler.etcdClientUsername=u",
        "dapr_scheduler.etcdClientPassword=secret word",
        "dapr_scheduler.overrideBroadcastHostPort=c:3",
    ];
    let Some(objects) = rendered(&values).await? else {
        return Ok(());
    };
    let scheduler = named(&objects, "StatefulSet", SCHEDULER)?;
    for wanted in [
        "replicas: 1",
        "--workers=2000000\n",
        "--etcd-embed=false",
        "--etcd-client-endpoints=a:1,b:2",
        "--override-broadcast-host-port=c:3",
        "medium: Memory",
    ] {
        ensure!(
            scheduler.text.contains(wanted),
            "{wanted}\n{}",
            scheduler.text
        );
    }
    ensure!(
        !scheduler.text.contains("secret word"),
        "{}",
        scheduler.text
    );
    let password = named(&objects, "Secret", "dapr-scheduler-etcd")?;
    ensure!(
        password.text.contains("c2VjcmV0IHdvcmQ="),
        "{}",
        password.text
    );
    ensure!(
        !scheduler.text.contains("podAntiAffinity"),
        "{}",
        scheduler.text
    );
    ensure!(
        !scheduler.text.contains("volumeClaimTemplates"),
        "{}",
        scheduler.text
    );
    ensure!(
        objects.iter().all(|o| o.name != SCHEDULER_BUDGET),
        "one has no budget"
    );
    Ok(())
}

#[tokio::test]
async fn high_availability_means_three_replicas_with_budgets() -> Result<()> {
    let values = ["global.ha.enabled=true", "global.logAsJson=true"];
    let Some(objects) = rendered(&values).await? else {
        return Ok(());
    };
    for name in DEPLOYMENTS {
        let deployment = named(&objects, "Deployment", name)?;
        ensure!(deployment.text.contains("replicas: 3"), "{name}");
        ensure!(deployment.text.contains("--log-as-json"), "{name}");
        ensure!(deployment.text.contains("podAntiAffinity"), "{name}");
    }
    let placement = named(&objects, "StatefulSet", PLACEMENT)?;
    for wanted in [
        "replicas: 3",
        "dapr-placement-server-2=dapr-placement-server-2.dapr-placement-server.dapr-system.svc.cluster.local:8201",
        // Dapr's has it, and Kubernetes lets no upgrade take it away.
        "name: raft-log",
    ] {
        ensure!(
            placement.text.contains(wanted),
            "{wanted}\n{}",
            placement.text
        );
    }
    let budgets = objects.iter().filter(|o| o.kind == "PodDisruptionBudget");
    assert_eq!(budgets.count(), 5);
    Ok(())
}

#[tokio::test]
async fn values_reach_the_objects_they_are_for() -> Result<()> {
    let cases = [
        (
            "global.registry=my.registry/dapr",
            "Deployment",
            "my.registry/dapr/",
        ),
        ("global.tag=9.9.9", "Deployment", ":9.9.9"),
        (
            "global.imagePullPolicy=Never",
            "Deployment",
            "imagePullPolicy: Never",
        ),
        ("global.imagePullSecrets=pull", "Deployment", "name: pull"),
        (
            "global.mtls.enabled=false",
            "Configuration",
            "enabled: false",
        ),
        ("global.mtls.workloadCertTTL=1h", "Configuration", "1h"),
        (
            "global.mtls.controlPlaneTrustDomain=my.domain",
            "Configuration",
            "my.domain",
        ),
        ("dapr_sentry.logLevel=debug", "Deployment", "debug"),
        ("global.nodeSelector.disk=ssd", "Deployment", "disk: ssd"),
    ];
    for (value, kind, wanted) in cases {
        let Some(objects) = rendered(&[value]).await? else {
            return Ok(());
        };
        ensure!(
            objects
                .iter()
                .any(|o| o.kind == kind && o.text.contains(wanted)),
            "{value}: no {kind} with {wanted}"
        );
    }
    Ok(())
}

/// The rules of a role as lines: resources, names and verbs.
fn rules(role: &Object) -> Vec<String> {
    let mut rules: Vec<String> = Vec::new();
    for line in role.text.lines().map(str::trim) {
        if line.starts_with("- apiGroups:") {
            rules.push(String::new());
        } else if let (Some(rule), false) = (rules.last_mut(), line.starts_with('#')) {
            rule.push_str(line);
            rule.push(' ');
        }
    }
    rules
}

#[tokio::test]
async fn roles_grant_what_our_images_need_and_no_more() -> Result<()> {
    for namespaced in ["false", "true"] {
        let value = format!("global.rbac.namespaced={namespaced}");
        let Some(objects) = rendered(&[&value]).await? else {
            return Ok(());
        };
        let roles = objects
            .iter()
            .filter(|o| ["Role", "ClusterRole"].contains(&o.kind.as_str()));
        let (mut seen, mut events) = (0, 0);
        for role in roles {
            for rule in rules(role) {
                seen += 1;
                let of = |resources: &str| rule.starts_with(&format!("resources: [{resources}]"));
                let verbs = rule.rsplit("verbs: ").next().unwrap_or_default().trim();
                let what = format!("{} {}: {rule}", role.kind, role.name);
                ensure!(!verbs.contains('*') && !rule.contains("[*"), "{what}");
                if of("pods") {
                    ensure!(
                        !verbs.contains("delete") && !verbs.contains("patch"),
                        "{what}"
                    );
                }
                if of("secrets") {
                    let writes = rule.contains("resourceNames: [dapr-trust-bundle]")
                        && role.name == "dapr-sentry";
                    let wanted = if writes { "[get, update]" } else { "[get]" };
                    ensure!(verbs == wanted, "{what}");
                    ensure!(role.name != "dapr-injector", "{what}");
                }
                if of("customresourcedefinitions") {
                    ensure!(
                        rule.contains("resourceNames: [subscriptions.dapr.io]"),
                        "{what}"
                    );
                }
                if of("mutatingwebhookconfigurations") {
                    ensure!(
                        rule.contains("resourceNames: [dapr-sidecar-injector]"),
                        "{what}"
                    );
                }
                if of("events") {
                    ensure!(
                        verbs == "[create]" && role.name.starts_with("dapr-operator"),
                        "{what}"
                    );
                    events += 1;
                }
                ensure!(!of("serviceaccounts"), "{what}");
            }
        }
        ensure!(events == 1, "{events} rules are about events");
        ensure!(seen > 12, "{seen} rules were read");
    }
    Ok(())
}

#[tokio::test]
async fn one_value_grants_what_the_images_of_dapr_need() -> Result<()> {
    let values = [
        "global.rbac.daprImages=true",
        "global.operator.watchdogCanPatchPodLabels=true",
    ];
    let Some(objects) = rendered(&values).await? else {
        return Ok(());
    };
    let rules = |kind: &str, name: &str| anyhow::Ok(rules(named(&objects, kind, name)?).concat());
    let operator = rules("ClusterRole", "dapr-operator-admin")?;
    for rule in [
        "resources: [secrets] verbs: [get, list, watch]",
        "resources: [pods] verbs: [get, delete, list, watch, patch]",
        "resources: [services, services/finalizers] verbs:",
    ] {
        ensure!(operator.contains(rule), "{rule}\n{operator}");
    }
    let own = rules("Role", "dapr-operator")?;
    ensure!(
        own.contains("[operator.dapr.io, webhooks.dapr.io]"),
        "{own}"
    );
    let sentry = rules("ClusterRole", "dapr-sentry")?;
    ensure!(
        sentry.contains("resources: [pods] verbs: [get, list, watch]"),
        "{sentry}"
    );
    let injector = rules("ClusterRole", "dapr-injector")?;
    ensure!(
        injector.contains("resources: [serviceaccounts] verbs: [get, list]"),
        "{injector}"
    );
    Ok(())
}

#[tokio::test]
async fn only_the_api_server_reaches_the_webhooks_if_wanted() -> Result<()> {
    let Some(objects) = rendered(&[]).await? else {
        return Ok(());
    };
    ensure!(objects.iter().all(|o| o.kind != "NetworkPolicy"));
    let values = [
        "global.networkPolicy.enabled=true",
        "global.networkPolicy.apiServer={10.0.0.1/32,fd00::1/128}",
    ];
    let Some(objects) = rendered(&values).await? else {
        return Ok(());
    };
    for (name, app, port) in [
        (
            "dapr-sidecar-injector-webhook",
            "dapr-sidecar-injector",
            4000,
        ),
        ("dapr-operator-webhook", "dapr-operator", 19443),
    ] {
        let policy = named(&objects, "NetworkPolicy", name)?;
        let (guarded, open) = policy
            .text
            .split_once("# Probes and scrapes")
            .context("no open ports")?;
        for wanted in [
            "cidr: \"10.0.0.1/32\"",
            "cidr: \"fd00::1/128\"",
            &format!("app: {app}"),
        ] {
            ensure!(guarded.contains(wanted), "{wanted}\n{}", policy.text);
        }
        let line = format!("port: {port}\n");
        ensure!(
            guarded.contains(&line) && !open.contains(&line),
            "{}",
            policy.text
        );
    }
    let error = rendered(&["global.networkPolicy.enabled=true"]).await;
    let error = error.err().context("was rendered")?;
    ensure!(format!("{error:#}").contains("apiServer"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn sidecars_pass_restricted_pod_security_by_default() -> Result<()> {
    let Some(objects) = rendered(&[]).await? else {
        return Ok(());
    };
    let injector = named(&objects, "Deployment", "dapr-sidecar-injector")?;
    for variable in ["SIDECAR_DROP_ALL_CAPABILITIES", "SIDECAR_RUN_AS_NON_ROOT"] {
        let wanted = format!("- name: {variable}\n              value: \"true\"");
        ensure!(injector.text.contains(&wanted), "{}", injector.text);
    }
    Ok(())
}

#[tokio::test]
async fn an_invalid_value_is_refused_by_name() -> Result<()> {
    if !may_boot() {
        return Ok(());
    }
    let error = rendered(&["global.ha.podAntiAffinityPolicy=sometimes"]).await;
    let error = error.err().context("was rendered")?;
    ensure!(
        format!("{error:#}").contains("podAntiAffinityPolicy"),
        "{error:#}"
    );
    Ok(())
}

#[tokio::test]
async fn native_sidecars_are_on_where_the_cluster_is_known_to_have_them() -> Result<()> {
    let value = |chosen: &'static str| async move {
        let set = format!("dapr_sidecar_injector.nativeSidecar={chosen}");
        let Some(objects) = rendered(&[&set]).await? else {
            return anyhow::Ok(None);
        };
        let injector = named(&objects, "Deployment", "dapr-sidecar-injector")?;
        let after = injector.text.split_once("name: NATIVE_SIDECAR_ENABLED");
        let (_, after) = after.context("no variable")?;
        let line = after.lines().nth(1).unwrap_or_default();
        Ok(Some(line.trim().to_owned()))
    };
    // `helm template` asks no cluster.
    for (chosen, wanted) in [("auto", "false"), ("true", "true"), ("false", "false")] {
        let Some(line) = value(chosen).await? else {
            return Ok(());
        };
        ensure!(line == format!("value: \"{wanted}\""), "{chosen}: {line}");
    }
    let error = value("perhaps").await.err().context("was rendered")?;
    ensure!(format!("{error:#}").contains("nativeSidecar"), "{error:#}");
    Ok(())
}
