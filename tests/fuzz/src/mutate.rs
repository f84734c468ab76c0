//! Changes to inputs, and the repair of checksums behind them.
//!
//! Invariants: what comes out is a function of what goes in and of the random stream; an input
//! never grows beyond the target's limit. Without the repair nearly every changed frame would end
//! at its checksum, and nothing behind it would be met.

use crate::random::Random;
use chainring_ring::header::{HEADER_BYTES, u32_at};
use xxhash_rust::xxh3::xxh3_128;

/// Numbers at the borders of fields.
const BORDERS: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    511,
    512,
    4095,
    4096,
    65_535,
    (1 << 31) - 1,
    u32::MAX as u64,
    1 << 32,
    1 << 62,
    (1 << 62) + 1,
    u64::MAX,
];

/// Changes `bytes` once; they stay within `limit`. `words` are the language's, `other` is another
/// input to take parts of.
pub fn mutate(
    bytes: &mut Vec<u8>,
    limit: usize,
    words: &[&[u8]],
    other: &[u8],
    random: &mut Random,
) {
    let at = random.below(bytes.len() + 1);
    match random.below(if words.is_empty() { 14 } else { 24 }) {
        0..=2 => flip(bytes, random),
        3 | 4 => put(bytes, &[random.next() as u8], random),
        5..=7 => {
            let border = BORDERS[random.below(BORDERS.len())].to_le_bytes();
            put(bytes, &border[..1 << random.below(4)], random);
        }
        8 => {
            let by = random.below(33) as u64;
            add(bytes, by.wrapping_sub(16), random);
        }
        9 => {
            let end = at + random.below((bytes.len() - at).min(64) + 1);
            bytes.drain(at..end);
        }
        10 => bytes.truncate(at),
        11 => {
            let length = random.below(32);
            let part: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, part);
        }
        12 => {
            let from = random.below(other.len() + 1);
            let length = random.below((other.len() - from).min(256) + 1);
            let end = if random.once_in(2) { at } else { bytes.len().min(at + length) };
            bytes.splice(at..end, other[from..from + length].iter().copied());
        }
        13 => {
            let length = random.below((bytes.len() - at).min(256) + 1);
            let part = bytes[at..at + length].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, part);
        }
        14..=17 => {
            let digit = bytes[at..].iter_mut().find(|byte| byte.is_ascii_digit());
            if let Some(digit) = digit {
                *digit = b'0' + random.below(10) as u8;
            }
        }
        _ => {
            let word = words[random.below(words.len())];
            bytes.splice(at..at, word.iter().copied());
        }
    }
    bytes.truncate(limit);
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let (at, bit) = (random.below(bytes.len()), random.below(8));
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
}

/// Writes a number over bytes, most often where a field of its size may lie.
fn put(bytes: &mut [u8], number: &[u8], random: &mut Random) {
    let mut at = random.below(bytes.len());
    if !random.once_in(4) {
        at -= at % number.len();
    }
    let length = number.len().min(bytes.len() - at);
    bytes[at..at + length].copy_from_slice(&number[..length]);
}

/// Adds to a field of 4 bytes.
fn add(bytes: &mut [u8], by: u64, random: &mut Random) {
    let at = random.below(bytes.len()) / 4 * 4;
    if let Some(field) = bytes.get_mut(at..at + 4) {
        let sum = u32_at(field, 0).wrapping_add(by as u32);
        field.copy_from_slice(&sum.to_le_bytes());
    }
}

/// No repair: for text.
pub fn as_is(_: &mut Vec<u8>, _: &mut Random) {}

/// Makes the checksums of the frame at the start of `bytes` right; its size stays what it says.
pub fn seal(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let end = (u32_at(bytes, 56) as usize).clamp(HEADER_BYTES, bytes.len());
    let body = xxh3_128(&bytes[HEADER_BYTES..end]);
    bytes[16..32].copy_from_slice(&body.to_le_bytes());
    let head = xxh3_128(&bytes[16..HEADER_BYTES]);
    bytes[..16].copy_from_slice(&head.to_le_bytes());
}

/// Repairs one frame: most often size and length too, and what all frames have in common.
pub fn frame(bytes: &mut Vec<u8>, random: &mut Random) {
    if random.once_in(16) {
        return;
    }
    bytes.resize(bytes.len().max(HEADER_BYTES), 0);
    if !random.once_in(4) {
        let size = bytes.len() as u32;
        bytes[56..60].copy_from_slice(&size.to_le_bytes());
        if u32_at(bytes, 60) > size - HEADER_BYTES as u32 || random.once_in(4) {
            bytes[60..64].copy_from_slice(&(size - HEADER_BYTES as u32).to_le_bytes());
        }
    }
    if !random.once_in(8) {
        common(bytes);
    }
    seal(bytes);
}

/// Repairs a frame of a fixed size: bytes are added or dropped until it has that.
pub fn fixed(bytes: &mut Vec<u8>, size: usize, random: &mut Random) {
    bytes.resize(size, 0);
    if random.once_in(16) {
        return;
    }
    if !random.once_in(8) {
        common(bytes);
        bytes[56..60].copy_from_slice(&(size as u32).to_le_bytes());
    }
    seal(bytes);
}

/// Repairs frames that follow each other, the next one at a multiple of `unit` where one ends.
pub fn train(bytes: &mut [u8], unit: usize, random: &mut Random) {
    let mut at = 0;
    while at + HEADER_BYTES <= bytes.len() && !random.once_in(16) {
        let size = u32_at(bytes, at + 56) as usize;
        if size < HEADER_BYTES || size > bytes.len() - at {
            at += unit;
            continue;
        }
        seal(&mut bytes[at..at + size]);
        at += size.next_multiple_of(unit);
    }
}

/// What all frames have in common: version, and zeros in what is reserved.
fn common(bytes: &mut [u8]) {
    bytes[55] = chainring_ring::header::VERSION;
    for reserved in [64..68, 69..72, 97..104, 112..128] {
        bytes[reserved].fill(0);
    }
}
