//! Which Secrets are read, how often, and what happens to those that cannot be.

use super::*;

#[tokio::test]
async fn a_changed_secret_is_read_again_after_a_moment() {
    let reference = |name: &str| json!({"name": name, "secretKeyRef": {"name": name, "key": "k"}});
    let spec = json!({"metadata": [reference("known"), reference("missing"), {"name": "plain", "value": 1}]});
    let mut elsewhere = component(
        "b",
        "default",
        json!({"metadata": [reference("known")]}),
        &[],
    );
    elsewhere["auth"]["secretStore"] = json!("vault");
    let fixture = fixture([
        (
            COMPONENTS,
            vec![component("a", "default", spec, &[]), elsewhere],
        ),
        (SECRETS, vec![secret("known", "k", "hunter1")]),
    ])
    .await;
    let values = |listed: &[Value]| -> Vec<Value> {
        let items = listed
            .iter()
            .flat_map(|it| it["spec"]["metadata"].as_array().unwrap());
        items.map(|item| item["value"].clone()).collect()
    };
    let first = values(&fixture.components().await);
    assert_eq!(
        first,
        [
            json!(BASE64.encode("hunter1")),
            Value::Null,
            json!(1),
            Value::Null
        ]
    );
    // What was read is dropped after a moment.
    fixture.set(SECRETS, vec![secret("known", "k", "hunter2")]);
    let renewed = json!(BASE64.encode("hunter2"));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while values(&fixture.components().await)[0] != renewed {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fixture.tasks.stop(Some(Duration::ZERO)).await;
}

/// A component with one property from a secret.
fn wanting(name: &str, secret: &str) -> Value {
    let property = json!({"name": "p", "secretKeyRef": {"name": secret, "key": "k"}});
    component(name, "default", json!({"metadata": [property]}), &[])
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_affects_its_own_component_only() {
    let fixture = fixture([
        (
            COMPONENTS,
            vec![
                wanting("broken", "broken"),
                wanting("forbidden", "forbidden"),
                wanting("good", "good"),
                wanting("impossible", "../../kube-system/secrets/x?"),
                wanting("missing", "missing"),
            ],
        ),
        (SECRETS, vec![secret("good", "k", "v")]),
    ])
    .await;
    let refused = [("forbidden", 403), ("broken", 500)];
    fixture.cluster.lock().unwrap().refused.extend(refused);
    let listed = fixture.components().await;
    let values: Vec<_> = listed
        .iter()
        .map(|it| (&it["metadata"]["name"], &it["spec"]["metadata"][0]["value"]))
        .map(|(name, value)| (name.as_str().unwrap(), value.as_str()))
        .collect();
    let encoded = BASE64.encode("v");
    assert_eq!(
        values,
        [
            ("broken", None),
            ("forbidden", None),
            ("good", Some(encoded.as_str())),
            ("impossible", None),
            ("missing", None),
        ]
    );
    let mut asked = fixture.asked();
    asked.sort_unstable();
    let path = |name: &str| format!("/api/v1/namespaces/default/secrets/{name}");
    let expected = ["broken", "forbidden", "good", "missing"].map(path);
    assert_eq!(asked, expected, "each by its name, and never all of them");

    // A failure that is not about one secret is passed on, so that sidecars retry.
    let down = [("good", 503)];
    fixture.cluster.lock().unwrap().refused.extend(down);
    let request = || {
        ask(ListComponentsRequest {
            namespace: "default".into(),
        })
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let status = loop {
        match fixture.server.list_components(request()).await {
            Err(status) => break status,
            Ok(_) => assert!(tokio::time::Instant::now() < deadline),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    fixture.tasks.stop(Some(Duration::ZERO)).await;
}

#[tokio::test]
async fn a_thousand_sidecars_cost_one_read_of_a_secret() {
    const SIDECARS: usize = 1000;
    let fixture = fixture([
        (COMPONENTS, vec![]),
        (SECRETS, vec![secret("s", "k", "old")]),
    ])
    .await;
    let mut streams = Vec::new();
    for _ in 0..SIDECARS {
        let request = ask(ComponentUpdateRequest {
            namespace: "default".into(),
        });
        let events = fixture.server.component_update(request).await.unwrap();
        streams.push(events.into_inner());
    }
    // The second change follows the first at once, and needs the secret as it is then.
    for (round, value) in ["old", "new"].into_iter().enumerate() {
        fixture.set(SECRETS, vec![secret("s", "k", value)]);
        let mut changed = wanting("c", "s");
        changed["spec"]["round"] = json!(round);
        fixture.set(COMPONENTS, vec![changed]);
        let encoded = json!(BASE64.encode(value));
        let events = futures_util::future::join_all(streams.iter_mut().map(next)).await;
        for event in events {
            let json: Value = serde_json::from_slice(&event.component).unwrap();
            assert_eq!(json["spec"]["round"], round);
            assert_eq!(json["spec"]["metadata"][0]["value"], encoded);
        }
        assert_eq!(fixture.asked().len(), round + 1);
    }

    // Those that list at the same time share a read, too.
    let before = fixture.asked().len();
    let lists = (0..SIDECARS).map(|_| fixture.components());
    let listed = futures_util::future::join_all(lists).await;
    assert!(listed.iter().all(|components| components.len() == 1));
    let reads = fixture.asked().len() - before;
    assert!(reads <= 3, "{reads} reads for {SIDECARS} lists");
    fixture.tasks.stop(Some(Duration::ZERO)).await;
}

#[tokio::test]
async fn the_number_of_kept_secrets_is_limited_and_falls_to_none() {
    let fixture = fixture([]).await;
    let secrets = &fixture.server.secrets;
    for round in 0..600 {
        let mut component = wanting("c", &format!("s{round}"));
        let reader = secrets.reader("default", None);
        reader.resolve_component(&mut component).await.unwrap();
        assert!(secrets.kept() <= 512);
    }
    assert!(secrets.kept() > 0);
    fixture.tasks.spawn(
        "secrets",
        secrets.clone().drop_old(fixture.tasks.stopping()),
    );
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while secrets.kept() > 0 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fixture.tasks.stop(Some(Duration::ZERO)).await;
}
