//! The coverage-guided driver: libFuzzer over the targets of `chainring-fuzz`.
//!
//! `CHAINRING_TARGET` names the target, so that one build serves all. Invariant: changes go through
//! the target's repair, as in the deterministic driver; otherwise nothing passes a checksum.
#![no_main]

use chainring_fuzz::random::Random;
use chainring_fuzz::{TARGETS, Target, target};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use std::sync::LazyLock;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("CHAINRING_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        panic!("CHAINRING_TARGET is one of {}", names.join(" "))
    })
});

fuzz_target!(|bytes: &[u8]| {
    (TARGET.run)(bytes);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random::new(seed.into());
    let size = fuzzer_mutate(data, size, max_size);
    let mut bytes = data[..size].to_vec();
    (TARGET.repair)(&mut bytes, &mut random);
    bytes.truncate(max_size.min(TARGET.bytes_max));
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
});
