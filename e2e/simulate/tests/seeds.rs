//! Every world, for as many seeds as a minute allows; `cargo xtask simulate`
//! runs more.

use outrider_simulate::{World, run};

const SEEDS: std::ops::Range<u64> = 1..301;

fn all_are_well(world: World) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in SEEDS.filter(|seed| seed % threads == thread) {
                    if let Err(violation) = run(world, seed, false) {
                        panic!("{world}: seed {seed}: {violation}");
                    }
                }
            });
        }
    });
}

#[test]
fn actors_are_active_once_and_calls_are_answered_whatever_fails() {
    all_are_well(World::Actors);
}

#[test]
fn jobs_are_triggered_in_time_and_as_often_as_they_say_whatever_fails() {
    all_are_well(World::Jobs);
}

#[test]
fn a_seed_has_the_same_run_each_time() {
    for world in World::ALL {
        for seed in SEEDS.take(10) {
            let [one, other] = [(); 2].map(|()| run(world, seed, false));
            assert_eq!(one, other, "{world}: seed {seed}");
        }
    }
}
