//! The same with schedulers as they are.

use std::path::Path;

use anyhow::Result;
use outrider_harness::{Placement, Scheduler, Signal, port, wait};
use serde_json::json;

use super::{CUT_OVER, Host, ids, placement, until_all_work};

async fn serving(port: u16, folder: &Path) -> Result<Scheduler> {
    Scheduler::at(port, folder, &["--placement-enabled"]).await
}

fn address(scheduler: &Scheduler) -> String {
    format!("127.0.0.1:{}", scheduler.port())
}

/// Has an actor reminded every second.
async fn remind(host: &Host) -> Result<()> {
    let path = "/v1.0/actors/cat/1/reminders/feed";
    let body = json!({"dueTime": "1s", "period": "1s"});
    let answer = host.daprd.http().post(path, &body).await?;
    anyhow::ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    Ok(())
}

fn reminded(hosts: [&Host; 2]) -> usize {
    let seen = hosts.into_iter().flat_map(|host| host.app.seen());
    let target = "/actors/cat/1/method/remind/feed";
    seen.filter(|seen| seen.target == target).count()
}

async fn until_reminded_again(hosts: [&Host; 2]) -> Result<()> {
    let before = reminded(hosts);
    wait::until("further ticks", || async {
        (reminded(hosts) >= before + 2).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_scheduler_serves_calls_and_reminders_also_after_it_was_killed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = serving(port::free(), folder.path()).await?;
    let at = address(&scheduler);
    let (one, other) = tokio::try_join!(Host::of(&at), Host::of(&at))?;
    until_all_work(&one, &other).await?;
    remind(&one).await?;
    until_reminded_again([&one, &other]).await?;

    let port = scheduler.port();
    scheduler.signal(Signal::KILL)?;
    drop(scheduler);
    let _scheduler = serving(port, folder.path()).await?;
    until_all_work(&one, &other).await?;
    until_reminded_again([&one, &other]).await?;
    for id in ids() {
        let (here, there) = (one.calls(), other.calls());
        other.works(&id).await?;
        let is_here = one.calls().get(&id) > here.get(&id);
        let is_there = other.calls().get(&id) > there.get(&id);
        assert!(is_here != is_there, "{id}");
    }
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_frozen_is_noticed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = serving(port::free(), folder.path()).await?;
    let host = Host::of(&address(&scheduler)).await?;
    host.works("1").await?;
    scheduler.signal(Signal::STOP)?;
    let line = "the stream to the scheduler that leads placement has ended";
    // It waits for less than 20 s.
    let noticed = host.daprd.line(line).await;
    scheduler.signal(Signal::CONT)?;
    noticed?;
    host.until_hosting().await?;
    host.works("1").await
}

#[tokio::test]
async fn a_reminder_goes_on_while_sidecars_go_to_schedulers_and_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = serving(port::free(), folder.path()).await?;
    let service = Placement::start(&[]).await?;
    let flags = [
        format!("--scheduler-host-address={}", address(&scheduler)),
        placement(&service),
    ];
    let spawn = || Host::spawn(|builder| builder.flag(&flags[0]).flag(&flags[1]));
    let (one, other) = (spawn().await?, spawn().await?);
    tokio::try_join!(one.until_hosting(), other.until_hosting())?;
    one.daprd.line("Connected to placement service").await?;
    until_all_work(&one, &other).await?;
    remind(&one).await?;
    until_reminded_again([&one, &other]).await?;

    let port = service.port();
    service.stop().await?;
    let line = "Connected to the scheduler that leads placement";
    let moved = async { tokio::try_join!(one.daprd.line(line), other.daprd.line(line)) };
    tokio::time::timeout(CUT_OVER, moved).await??;
    until_all_work(&one, &other).await?;
    until_reminded_again([&one, &other]).await?;

    let _service = Placement::start(&[&format!("--port={port}")]).await?;
    let back = "the scheduler has placement no more";
    wait::until(back, || async {
        let lines = one.daprd.lines();
        let connected = "Connected to placement service";
        let lines = lines.iter().filter(|line| line.contains(connected));
        (lines.count() >= 2).then_some(())
    })
    .await?;
    until_all_work(&one, &other).await?;
    until_reminded_again([&one, &other]).await
}
