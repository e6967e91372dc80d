#[tokio::test]
async fn state_in_a_file() {
    let folder = tempfile::tempdir().expect("folder");
    let path = format!("file:{}", folder.path().join("state.db").display());
    let store = crate::state("state.sqlite", &[("connectionString", &path)]).await;
    outrider_conformance::state::run(&*store).await;
}

#[tokio::test]
async fn state_in_memory() {
    let store = crate::state("state.sqlite", &[("connectionString", ":memory:")]).await;
    outrider_conformance::state::run(&*store).await;
}
