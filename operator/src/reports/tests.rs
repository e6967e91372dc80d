use axum::Router;
use axum::http::Method;
use axum::response::IntoResponse as _;
use outrider_host::Tasks;
use outrider_k8s::watch::{self, Interest};
use outrider_security::{Peer, SpiffeId, TrustDomain};
use reports_server::Reports as _;
use tonic::Code;

use super::*;

type Written = Arc<Mutex<Vec<(String, Value)>>>;

/// With the components `ours` and `theirs`, of which app `app` sees the first, and what is written.
async fn reports(tasks: &Tasks) -> (Reports, Written) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let written = Written::default();
    let writes = written.clone();
    let answer = async move |method: Method, uri: http::Uri, body: String| {
        if method == Method::POST {
            let event = serde_json::from_str(&body).unwrap();
            writes.lock().unwrap().push((uri.path().to_owned(), event));
            return body.into_response();
        }
        if uri.query().unwrap_or_default().contains("watch=true") {
            return http::StatusCode::OK.into_response();
        }
        let metadata = |name: &str| json!({"name": name, "namespace": "default", "uid": "u", "resourceVersion": "7"});
        let ours = json!({"metadata": metadata("ours"), "scopes": ["app"]});
        let theirs = json!({"metadata": metadata("theirs"), "scopes": ["other"]});
        let items = json!({"items": [ours, theirs]});
        items.to_string().into_response()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer);
    tasks.spawn("api server", async move {
        drop(axum::serve(listener, router).await)
    });
    let uri = format!("http://{address}").parse().unwrap();
    let client = Client::try_from(kube::Config::new(uri)).unwrap();
    let collection = Collection {
        version: "/apis/dapr.io/v1alpha1",
        plural: "components",
    };
    let (store, driver) = watch::new(client.clone(), Interest::whole(collection, None));
    tasks.spawn("watch", driver.run(tasks.stopping()));
    let synced = tokio::time::timeout(Duration::from_secs(10), store.synced());
    synced.await.unwrap();
    let components = Resource {
        store,
        kind: "Component",
        api_version: "dapr.io/v1alpha1",
    };
    let reporter = ("dapr-operator", "pod-0".to_owned());
    (Reports::new(client, components, reporter), written)
}

/// A report of app `app` in namespace `default`.
fn report(name: &str) -> FailureReport {
    FailureReport {
        namespace: "default".to_owned(),
        kind: "Component".to_owned(),
        name: name.to_owned(),
        reason: "InitFailed".to_owned(),
        message: "no\nhost".to_owned(),
    }
}

fn signed(report: FailureReport) -> Request<FailureReport> {
    let mut request = Request::new(report);
    request.extensions_mut().insert(Peer {
        address: None,
        id: Some(SpiffeId::workload(&TrustDomain::public(), "default", "app").unwrap()),
    });
    request
}

#[tokio::test]
async fn a_report_becomes_one_event() {
    let tasks = Tasks::new();
    let (reports, written) = reports(&tasks).await;
    for _ in 0..2 {
        reports
            .report_failure(signed(report("ours")))
            .await
            .unwrap();
    }
    let written = written.lock().unwrap();
    let [(path, event)] = written.as_slice() else {
        panic!("{written:?}")
    };
    assert_eq!(path, "/api/v1/namespaces/default/events");
    let about = json!({
        "apiVersion": "dapr.io/v1alpha1", "kind": "Component", "namespace": "default",
        "name": "ours", "uid": "u", "resourceVersion": "7",
    });
    assert_eq!(event["involvedObject"], about);
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reason"], "InitFailed");
    assert_eq!(event["message"], "app app: no host");
    assert_eq!(event["reportingComponent"], "dapr-operator");
    assert_eq!(event["reportingInstance"], "pod-0");
}

#[tokio::test]
async fn a_report_about_an_object_out_of_the_callers_scope_is_refused() {
    let tasks = Tasks::new();
    let (reports, written) = reports(&tasks).await;
    let refused = async |request| reports.report_failure(request).await.unwrap_err().code();
    let unsigned = Request::new(report("ours"));
    assert_eq!(refused(unsigned).await, Code::PermissionDenied);
    let changed = |change: fn(&mut FailureReport)| {
        let mut report = report("ours");
        change(&mut report);
        signed(report)
    };
    for (change, wanted) in [
        (
            (|r| r.namespace = "other".to_owned()) as fn(&mut FailureReport),
            Code::PermissionDenied,
        ),
        (|r| r.namespace.clear(), Code::PermissionDenied),
        (|r| r.kind = "Secret".to_owned(), Code::InvalidArgument),
        (|r| r.reason = "Killed".to_owned(), Code::InvalidArgument),
        (|r| r.name = "theirs".to_owned(), Code::NotFound),
        (|r| r.name = "none".to_owned(), Code::NotFound),
        (|r| r.name = "../../pods".to_owned(), Code::NotFound),
    ] {
        assert_eq!(refused(changed(change)).await, wanted);
    }
    assert!(written.lock().unwrap().is_empty());
}

#[test]
fn events_are_limited_by_component_app_and_in_all() {
    let key = |name: &str, app_id: &str| Key {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        app_id: app_id.to_owned(),
        reason: "InitFailed",
    };
    let (mut recent, start) = (Recent::default(), Instant::now());
    assert_eq!(recent.admit(key("c", "a"), start), Admission::Granted);
    assert_eq!(recent.admit(key("c", "a"), start), Admission::Repeated);
    assert_eq!(recent.admit(key("c", "b"), start), Admission::Granted);
    assert_eq!(recent.admit(key("d", "a"), start), Admission::Granted);
    for app in 3..REMEMBERED {
        let admitted = recent.admit(key("e", &app.to_string()), start);
        assert_eq!(admitted, Admission::Granted);
    }
    assert_eq!(recent.admit(key("f", "a"), start), Admission::Full);
    assert_eq!(recent.admit(key("c", "a"), start), Admission::Repeated);
    let later = start + INTERVAL;
    assert_eq!(recent.admit(key("c", "a"), later), Admission::Granted);
    assert_eq!(recent.0.len(), 1);
}

#[test]
fn a_message_and_a_name_fit_into_an_event() {
    let long = message("app", &"ä".repeat(100_000));
    assert!(
        long.len() <= LONGEST_MESSAGE && long.ends_with('ä'),
        "{long}"
    );
    let name = unique_name(&format!("{}.{}", "a".repeat(199), "b".repeat(53)));
    assert!(name.len() <= 253 && !name.contains(".."), "{name}");
}
