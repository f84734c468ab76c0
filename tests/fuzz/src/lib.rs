//! Hostile bytes for every decoder: what is fuzzed, what must hold, and how it is driven.
//!
//! A target takes any bytes and panics if something does not hold: round trips, independent
//! readings of the same bytes, limits. Both drivers, the deterministic one of this package and the
//! coverage-guided one in `libfuzzer/`, use the same targets, seeds and repairs.
//!
//! Invariants: a target is a function of its bytes; its input has at most `bytes_max` bytes, and
//! it may hold at most `memory_max` bytes at a time and run for [`trial::TIME_MAX`].

pub mod counting;
pub mod drive;
pub mod mutate;
pub mod random;
pub mod regressions;
pub mod targets;
pub mod trial;

use random::Random;

/// One door at which bytes come in.
pub struct Target {
    /// Its name, also that of its folder of regressions.
    pub name: &'static str,
    /// Takes any bytes; panics if something does not hold. True if the bytes were taken for good
    /// ones: a target whose inputs all end at the first check shows nothing.
    pub run: fn(&[u8]) -> bool,
    /// Inputs that are good, to be spoilt.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes checksums right again behind a change, most times.
    pub repair: fn(&mut Vec<u8>, &mut Random),
    /// Words of the language, for text.
    pub words: &'static [&'static [u8]],
    /// Longest input, bytes.
    pub bytes_max: usize,
    /// Most memory at a time, bytes, what the target's own checks take included.
    pub memory_max: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    targets::frames::HEADER,
    targets::frames::ORDERS,
    targets::frames::CONTROL,
    targets::frames::DIRECT,
    targets::hello::HELLO,
    targets::frames::DECLARE,
    targets::mesh::MESH,
    targets::stream::STREAM,
    targets::bodies::RECORDS,
    targets::bodies::DELIVERY,
    targets::bodies::LINES,
    targets::http::REQUESTS,
    targets::http::ANSWER,
    targets::config::CONFIG,
    targets::disk::SUPERBLOCK,
    targets::disk::BLOCK,
    targets::disk::SEGMENT,
    targets::image::IMAGE,
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
