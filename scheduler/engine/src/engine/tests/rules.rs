use outrider_proto::stored::v1::Spec;

use super::world::{World, job_metadata, reminder_metadata};
use super::*;

fn now_spec() -> Spec {
    Spec {
        due_time: Some("0s".to_owned()),
        ..Spec::default()
    }
}

fn name(metadata: &JobMetadata, short: &str) -> String {
    crate::key::name(metadata, short).unwrap()
}

fn put(world: &mut World, metadata: &JobMetadata, short: &str) -> String {
    let name = name(metadata, short);
    world.put(&name, metadata.clone(), now_spec(), 9);
    world.run();
    name
}

#[test]
fn a_job_without_a_consumer_is_staged_and_fires_when_one_comes() {
    let mut world = World::new();
    let job = put(&mut world, &job_metadata(), "a");
    assert_eq!((world.engine.staged(), world.flying().len()), (1, 0));
    assert_eq!(world.engine.overdue(world.now), None);
    world.open(1, None);
    world.run();
    assert_eq!(world.flying(), [job]);
    assert_eq!(world.engine.staged(), 0);
    assert_eq!(world.counted, [Counted::Undelivered(Kind::Job)]);
}

#[test]
fn what_a_lost_stream_had_goes_to_another() {
    let mut world = World::new();
    world.open(1, None);
    let job = put(&mut world, &job_metadata(), "a");
    world.close(1);
    world.open(2, None);
    world.run();
    assert_eq!(world.sent, [job.clone(), job]);
}

#[test]
fn streams_of_an_application_take_turns() {
    let mut world = World::new();
    world.open(1, None);
    world.open(2, None);
    for short in ["a", "b", "c", "d"] {
        put(&mut world, &job_metadata(), short);
    }
    world.close(1);
    assert_eq!(world.flying().len(), 2);
}

#[test]
fn a_stream_that_does_not_read_gets_no_more_than_its_window() {
    let mut world = World::new();
    world.open(1, None);
    world.open(2, None);
    let mut fat = now_spec();
    fat.payload = Some(Any {
        type_url: String::new(),
        value: vec![0; 600_000],
    });
    for short in ["a", "b", "c", "d", "e", "f"] {
        let metadata = job_metadata();
        world.put(&name(&metadata, short), metadata, fat.clone(), 1);
        world.run();
    }
    // Two are in each window; two wait until one has room.
    assert_eq!(world.flying().len(), 4);
    world.answer(0, true);
    world.run();
    assert_eq!(world.flying().len(), 4);
    world.settle();
    assert_eq!(world.sent.len(), 6);
}

#[test]
fn a_job_that_waits_for_room_is_read_few_times() {
    let mut world = World::new();
    let metadata = job_metadata();
    for index in 0..3000 {
        let name = name(&metadata, &index.to_string());
        world.put(&name, metadata.clone(), now_spec(), 1);
    }
    world.run();
    let staged = world.reads;
    world.open(1, None);
    world.run();
    assert_eq!(world.flying().len(), 1024, "as many as wait on a stream");
    world.settle();
    assert_eq!(world.sent.len(), 3000);
    let reads = world.reads - staged;
    assert!(reads <= 3000 * 3, "{reads}");
}

#[test]
fn a_limit_lets_one_through_after_the_other_by_seniority() {
    let mut world = World::new();
    world.open(1, Some(1));
    let metadata = reminder_metadata(None);
    let names = ["a", "b", "c"].map(|short| put(&mut world, &metadata, short));
    assert_eq!(world.flying(), [names[0].as_str()]);
    let pending = |world: &World| {
        let last = world.counted.iter().rev().find_map(|it| match it {
            Counted::Pending(_, pending) => Some(*pending),
            _ => None,
        });
        last.unwrap()
    };
    assert_eq!(pending(&world), 2);
    world.answer(0, false);
    world.run();
    assert_eq!(world.flying(), [names[1].as_str()]);
    assert_eq!(pending(&world), 1);
    // The slot of a lost stream is free for the next one.
    world.close(1);
    world.open(2, Some(1));
    world.run();
    assert_eq!(world.flying().len(), 1);
}

#[test]
fn a_slot_of_a_deleted_job_is_free_again() {
    let mut world = World::new();
    world.open(1, Some(1));
    let metadata = reminder_metadata(Some("n"));
    let first = put(&mut world, &metadata, "a");
    let second = put(&mut world, &metadata, "b");
    world.delete(&first);
    assert_eq!(world.flying(), [first.as_str()]);
    world.answer(0, true);
    world.run();
    assert_eq!(world.flying(), [second.as_str()]);
}

#[test]
fn a_job_that_the_store_does_not_give_is_overdue() {
    let mut world = World::new();
    world.open(1, None);
    let metadata = job_metadata();
    let name = name(&metadata, "a");
    world.put(&name, metadata, now_spec(), 1);
    world.wait(5000);
    let overdue = world.engine.overdue(world.now).unwrap();
    assert_eq!(
        (&*overdue.name, overdue.since),
        (name.as_str(), Duration::from_secs(5))
    );
    world.run();
    assert_eq!(world.engine.overdue(world.now), None);
}

#[test]
fn an_overwritten_job_is_another_job() {
    let mut world = World::new();
    world.open(1, None);
    let metadata = job_metadata();
    let job = put(&mut world, &metadata, "a");
    let mut later = now_spec();
    later.due_time = Some("1s".to_owned());
    world.put(&job, metadata, later, 1);
    world.answer(0, true);
    world.run();
    assert_eq!(world.engine.jobs(), 1, "the answer was for the job before");
    world.wait(1000);
    world.run();
    assert_eq!(world.flying(), [job]);
}

/// Which of the members has each of some jobs.
fn owners(members: &[Member]) -> Vec<u64> {
    let owner = |partition: u64| {
        let owns = |own: usize| {
            let mut engine = Engine::new(Settings { workers: 1 });
            let mut effects = Vec::new();
            let now = World::new().now;
            let members = members.to_vec();
            engine.handle(now, Event::Members { members, own }, &mut effects);
            let stored = Event::Stored {
                name: "j".into(),
                revision: 1,
                partition,
                due: None,
            };
            engine.handle(now, stored, &mut effects);
            !effects.is_empty()
        };
        let own: Vec<usize> = (0..members.len()).filter(|own| owns(*own)).collect();
        assert_eq!(own.len(), 1, "one owner");
        members[own[0]].id
    };
    (0..300).map(owner).collect()
}

fn member(id: u64, idle: bool) -> Member {
    Member { id, idle }
}

#[test]
fn members_share_jobs_and_a_lost_one_moves_its_share_alone() {
    let three = owners(&[11, 22, 33].map(|id| member(id, false)));
    let two = owners(&[11, 33].map(|id| member(id, false)));
    for (before, after) in three.iter().zip(&two) {
        assert!(before == after || *before == 22);
    }
    for id in [11, 22, 33] {
        let share = three.iter().filter(|it| **it == id).count();
        assert!((60..140).contains(&share), "{share}");
    }
}

#[test]
fn a_member_without_sidecars_has_no_jobs_unless_all_are_without() {
    let lost = owners(&[11, 33].map(|id| member(id, false)));
    let idle = owners(&[member(11, false), member(22, true), member(33, false)]);
    assert_eq!(idle, lost);
    let all = owners(&[11, 22, 33].map(|id| member(id, true)));
    assert_eq!(all, owners(&[11, 22, 33].map(|id| member(id, false))));
}

#[test]
fn a_job_of_a_member_that_lives_comes_after_a_moment() {
    let mut world = World::new();
    world.open(1, None);
    world.act(Act::Members(2, 0, 1));
    let job = put(&mut world, &job_metadata(), "a");
    assert!(world.flying().is_empty(), "it is the other's");
    world.act(Act::Members(2, 0, 2));
    world.run();
    assert!(world.flying().is_empty(), "the other finishes what it has");
    world.wait(1000);
    world.run();
    assert_eq!(world.flying(), [job]);
}

#[test]
fn jobs_of_a_lost_member_come_at_once() {
    let mut world = World::new();
    world.open(1, None);
    world.act(Act::Members(2, 0, 1));
    let job = put(&mut world, &job_metadata(), "a");
    world.act(Act::Members(1, 0, 0));
    world.run();
    assert_eq!(world.flying(), [job]);
}

#[test]
fn the_oldest_passes_first_whichever_gate_it_waits_at() {
    let mut world = World::new();
    let limit = |key: &str, most| Limit {
        key: key.to_owned(),
        most,
    };
    world.open_with(1, vec![limit("t", 2), limit("t:hot", 1)]);
    let (hot, other) = (reminder_metadata(Some("hot")), reminder_metadata(None));
    let put = |world: &mut World, metadata: &JobMetadata, short: &str| {
        let name = name(metadata, short);
        world.put(&name, metadata.clone(), now_spec(), 1);
        world.run();
        name
    };
    let held = put(&mut world, &hot, "held");
    let first = put(&mut world, &other, "first");
    let old = put(&mut world, &hot, "old");
    let cold = put(&mut world, &other, "cold");
    let young = put(&mut world, &hot, "young");
    assert_eq!(world.flying(), [held.as_str(), first.as_str()]);
    world.answer(1, true);
    world.run();
    assert_eq!(world.flying(), [held.as_str(), cold.as_str()]);
    world.answer(0, true);
    world.run();
    assert_eq!(world.flying(), [cold.as_str(), old.as_str()]);
    world.answer(1, true);
    world.run();
    assert_eq!(world.flying(), [cold.as_str(), young.as_str()]);
}

#[test]
fn a_limit_stays_counted_when_a_job_comes_back_while_it_is_read() {
    for own in [0, 1] {
        let mut world = World::new();
        world.open(0, Some(1));
        for name in [1, 3] {
            let (kind, repeats) = (0, 1);
            world.act(Act::Put {
                name,
                kind,
                repeats,
            });
        }
        world.wait(1000);
        world.run();
        assert_eq!(world.flying().len(), 1);
        // The other one may pass now, and is read when other members own it.
        world.answer(0, true);
        world.act(Act::Members(2, own, 0));
        world.act(Act::Members(1, 0, 0));
        world.settle();
    }
}
