//! Profiles for pprof.

use anyhow::Result;
use outrider_harness::http::Client;
use outrider_harness::{Daprd, port};

#[tokio::test]
async fn profiles_of_time_and_memory_are_served_where_they_are_wanted() -> Result<()> {
    let port = port::free();
    let daprd = Daprd::builder()
        .flag("--enable-profiling")
        .flag(&format!("--profile-port={port}"))
        .start()
        .await?;
    let profiles = Client::new(port);
    let heap = profiles.get("/debug/pprof/heap").await?;
    assert_eq!(heap.status, 200);
    assert_eq!(
        heap.header("content-type"),
        Some("application/octet-stream")
    );
    assert!(heap.text().contains("inuse_space") && heap.text().contains("daprd"));
    let profiling = profiles.get("/debug/pprof/profile?seconds=1");
    let working = async {
        for _ in 0..50 {
            daprd.http().get("/v1.0/metadata").await?;
        }
        anyhow::Ok(())
    };
    let (profile, worked) = tokio::join!(profiling, working);
    worked?;
    let profile = profile?;
    assert_eq!(profile.status, 200);
    assert!(profile.text().contains("nanoseconds") && profile.text().contains("thread "));
    for (path, status) in [
        ("/debug/pprof/", 200),
        ("/debug/pprof/cmdline", 200),
        ("/debug/pprof/profile?seconds=0", 400),
        ("/debug/pprof/goroutine", 404),
        ("/", 404),
    ] {
        assert_eq!(profiles.get(path).await?.status, status, "{path}");
    }
    // One that goes on does not delay the end.
    let (profile, code) = tokio::join!(profiles.get("/debug/pprof/profile?seconds=60"), async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        daprd.stop().await
    });
    assert_eq!(code?, Some(0));
    drop(profile);
    Ok(())
}

#[tokio::test]
async fn no_profiles_unless_they_are_wanted() -> Result<()> {
    let port = port::free();
    let daprd = Daprd::builder()
        .flag(&format!("--profile-port={port}"))
        .start()
        .await?;
    assert!(Client::new(port).get("/debug/pprof/").await.is_err());
    drop(daprd);
    Ok(())
}
