use std::collections::BTreeMap;
use std::sync::Arc;

use outrider_components::{Context, Metadata};

async fn run(
    type_name: &str,
    properties: &[(&str, &str)],
    environment: &[(&str, &str)],
    secrets: &[(&str, &[(&str, &str)])],
) {
    assert!(
        crate::TYPES.contains(&type_name),
        "add {type_name} to TYPES"
    );
    let found = crate::registry()
        .secrets
        .find(type_name, "v1")
        .expect("is registered");
    let environment: BTreeMap<_, _> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let context = Context {
        environment: Arc::new(environment),
        ..Context::default()
    };
    let metadata = Metadata::new("secrets", properties.iter().copied());
    let store = (found.constructor)(metadata, context)
        .await
        .expect("connects");
    outrider_conformance::secrets::run(&*store, secrets).await;
}

#[tokio::test]
async fn local_env() {
    let environment = [("DB_PASSWORD", "p"), ("OTHER", "o")];
    run(
        "secretstores.local.env",
        &[],
        &environment,
        &[
            ("DB_PASSWORD", &[("DB_PASSWORD", "p")]),
            ("OTHER", &[("OTHER", "o")]),
        ],
    )
    .await;
    run(
        "secretstores.local.env",
        &[("prefix", "DB_")],
        &environment,
        &[("PASSWORD", &[("PASSWORD", "p")])],
    )
    .await;
}

#[tokio::test]
async fn local_file() {
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), r#"{"db": {"user": "u", "password": "p"}}"#).expect("write");
    let path = file.path().to_str().expect("is text");
    run(
        "secretstores.local.file",
        &[("secretsFile", path)],
        &[],
        &[("db:user", &[("db:user", "u")])],
    )
    .await;
    run(
        "secretstores.local.file",
        &[("secretsFile", path), ("multiValued", "true")],
        &[],
        &[("db", &[("user", "u"), ("password", "p")])],
    )
    .await;
}
