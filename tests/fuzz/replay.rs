//! Replays the committed corpus of each fuzz target, every prefix of each input, and many changes of each.
//!
//! `cargo test -p twill-backends --test fuzz -- --ignored` writes the seeds again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

mod seeds;
mod targets;

/// So many changed copies of each input are tried.
const CHANGES: u64 = 300;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target)
}

/// The next of a sequence of numbers without order (Steele and others, "SplitMix").
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 27) as usize
}

fn replay(target: &str, run: fn(&[u8])) {
    let mut inputs = 0;
    for entry in fs::read_dir(corpus(target)).unwrap() {
        let path = entry.unwrap().path();
        let input = fs::read(&path).unwrap();
        run(&input);
        inputs += 1;
        for len in 0..input.len().min(400) {
            run(&input[..len]);
        }
        let mut state = input.len() as u64;
        for _ in 0..CHANGES {
            let mut changed = input.clone();
            for _ in 0..=random(&mut state) % 4 {
                // Headers are where it matters, and they come first.
                let reach = if random(&mut state).is_multiple_of(2) { 100 } else { input.len() };
                let at = random(&mut state) % reach.min(input.len()).max(1);
                if let Some(byte) = changed.get_mut(at) {
                    *byte ^= 1 << (random(&mut state) % 8);
                }
            }
            run(&changed);
        }
    }
    assert!(inputs >= 5, "{inputs} inputs in {}", corpus(target).display());
}

#[test]
fn decapsulate() {
    replay("decapsulate", targets::decapsulate);
}

#[test]
fn segment() {
    replay("segment", targets::segment);
}

#[test]
fn coalesce() {
    replay("coalesce", targets::coalesce);
}

#[test]
#[ignore = "writes the corpus"]
fn write_the_seeds() {
    for (target, name, bytes) in seeds::all() {
        let path = corpus(target).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn the_seeds_are_committed_as_they_are_made() {
    for (target, name, bytes) in seeds::all() {
        assert_eq!(fs::read(corpus(target).join(&name)).unwrap(), bytes, "{target}/{name}");
    }
}
