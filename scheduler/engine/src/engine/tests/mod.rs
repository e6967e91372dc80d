mod rules;
mod world;

use proptest::prelude::*;

use super::*;
use world::{Act, World};

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..6u8, 0..4u8, 1..4u32).prop_map(|(name, kind, repeats)| Act::Put {
            name,
            kind,
            repeats
        }),
        (0..6u8).prop_map(Act::Delete),
        (0..4u8, any::<bool>()).prop_map(|(stream, limited)| Act::Open(stream, limited)),
        (0..4u8).prop_map(Act::Close),
        (0..8usize).prop_map(Act::Perform),
        (0..8usize, any::<bool>()).prop_map(|(which, accepted)| Act::Answer(which, accepted)),
        (0..3000u64).prop_map(Act::Wait),
        any::<bool>().prop_map(Act::StoreFails),
        (1..4u8, 0..3u8, 0..8u8).prop_map(|(members, own, idle)| Act::Members(
            members,
            own % members,
            idle
        )),
    ];
    prop::collection::vec(act, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens in whatever order: nothing is early, a job is under way
    /// once at a time, what is deleted is not delivered, answers are counted
    /// exactly; and when nothing fails any more, all jobs come to their end.
    #[test]
    fn prop_jobs_keep_their_promises(acts in acts()) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        world.settle();
    }
}
