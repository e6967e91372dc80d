//! Examples with small changes, the same in every run. `OUTRIDER_FUZZ_SECONDS`
//! continues with further changes for this time per target, and `OUTRIDER_FUZZ`
//! names a single target.

use std::time::{Duration, Instant};

use outrider_fuzz::TARGETS;

/// Changed inputs of each target.
const ROUNDS: u64 = 400;
const LENGTH: usize = 4096;

/// <https://prng.di.unimi.it/splitmix64.c>
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Bytes that parsers often handle wrongly.
const FRAGMENTS: [&[u8]; 24] = [
    b"\0",
    b"\xff",
    b"\x80",
    b"\xc0\x0c",
    b"\xff\xff\xff\xff",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"[",
    b"{",
    b"]",
    b"}",
    b":",
    b",",
    b"%",
    b"%2e",
    b"..",
    b"/",
    b"$",
    b"${",
    b"-1",
    b"9223372036854775808",
    "\u{e9}".as_bytes(),
];

fn mutate(examples: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = examples[random.below(examples.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let length = random.below(12) + 1;
        let end = (at + length).min(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].to_vec();
                for _ in 0..=random.below(40) {
                    bytes.splice(at..at, part.iter().copied());
                }
            }
            3 => {
                let other = &examples[random.below(examples.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(80)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            4 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            5 if at < bytes.len() => bytes[at] = random.next() as u8,
            _ => {
                let fragment = FRAGMENTS[random.below(FRAGMENTS.len())];
                for _ in 0..=random.below(3) {
                    bytes.splice(at..at, fragment.iter().copied());
                }
            }
        }
    }
    bytes.truncate(LENGTH);
    bytes
}

/// Without optimisation a level of recursion takes many times the stack.
const STACK: usize = 64 << 20;

#[test]
fn no_target_panics_or_hangs_on_changed_examples() {
    let run = std::thread::Builder::new().stack_size(STACK);
    run.spawn(mutations).unwrap().join().unwrap().unwrap();
}

fn mutations() -> std::io::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let seconds = variable("OUTRIDER_FUZZ_SECONDS")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let corpus = outrider_fuzz::corpus();
    for (name, target) in TARGETS {
        if variable("OUTRIDER_FUZZ").is_some_and(|wanted| wanted != name) {
            continue;
        }
        let files = std::fs::read_dir(corpus.join(name))?.map(|entry| Ok(entry?.path()));
        let mut files = files.collect::<std::io::Result<Vec<_>>>()?;
        files.sort();
        let read = files.iter().map(std::fs::read);
        let examples = read.collect::<std::io::Result<Vec<_>>>()?;
        let mut random = Random(1);
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut rounds = 0;
        while rounds < ROUNDS || Instant::now() < end {
            let bytes = mutate(&examples, &mut random);
            let start = Instant::now();
            let result = std::panic::catch_unwind(|| target(&bytes));
            assert!(
                result.is_ok(),
                "{name}: {:?}",
                String::from_utf8_lossy(&bytes)
            );
            let took = start.elapsed();
            assert!(
                took < Duration::from_secs(10),
                "{name}: {took:?} for {bytes:?}"
            );
            rounds += 1;
        }
        println!("{name}: {rounds} inputs");
    }
    Ok(())
}
