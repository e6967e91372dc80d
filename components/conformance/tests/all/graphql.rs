use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use outrider_conformance::bindings::{has_directions, invoke, output};
use serde_json::{Value, json};

use crate::bindings::connect;

/// Answers with what it was asked.
async fn echo(headers: HeaderMap, body: String) -> String {
    let body: Value = serde_json::from_str(&body).expect("is JSON");
    if body["query"]
        .as_str()
        .is_some_and(|text| text.contains("fails"))
    {
        return json!({"errors": [{"message": "no such field"}], "data": null}).to_string();
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    json!({"data": {"asked": body, "headers": [header("x-all"), header("x-one")]}}).to_string()
}

#[tokio::test]
async fn binding() {
    // As the sidecar does when it starts.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("is bound");
    let router = Router::new().route("/graphql", post(echo));
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.expect("serves") });
    let endpoint = format!("http://{address}/graphql");

    has_directions((false, true), |direction| {
        let endpoint = endpoint.clone();
        async move {
            let properties = [("endpoint", endpoint.as_str()), ("direction", direction)];
            connect("bindings.graphql", &properties).await
        }
    })
    .await;
    let properties = [("endpoint", endpoint.as_str()), ("header:x-all", "a")];
    let binding = connect("bindings.graphql", &properties)
        .await
        .expect("connects");
    let output = output(&binding);
    let metadata = [
        ("mutation", "mutation { a }"),
        ("header:x-one", "b"),
        ("variable:name", "value"),
    ];
    let answer = invoke(output, "mutation", "", &metadata)
        .await
        .expect("works");
    let answer = answer.expect("an answer");
    let wanted = json!({
        "asked": {"query": "mutation { a }", "variables": {"name": "value"}},
        "headers": ["a", "b"],
    });
    let data: Value = serde_json::from_slice(&answer.data).expect("is JSON");
    assert_eq!(data, wanted);
    assert_eq!(answer.metadata["operation"], "mutation");

    for (operation, text, error) in [
        (
            "query",
            "mutation { a }",
            "GraphQL Error: command is not a query",
        ),
        (
            "query",
            "query { fails }",
            "GraphQL Error: graphql: no such field",
        ),
    ] {
        let failure = invoke(output, operation, "", &[(operation, text)]).await;
        assert_eq!(failure.expect_err("fails").to_string(), error);
    }
    server.abort_all();
}
