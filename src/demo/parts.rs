//! Parts: what one node ships into one topic, and reading it record by record.
//!
//! Invariant: a [`Reader`] gives the same records whenever it is made, so that what a node ships,
//! what is summed up and what is compared come from one place. A reader allocates nothing after
//! it was made.

use std::sync::Arc;

/// Where the records of a part come from.
#[derive(Clone, Debug)]
pub enum Content {
    /// Lines of a text, which is cut at line ends.
    Lines {
        /// The whole text.
        text: Arc<Vec<u8>>,
        /// Byte offset of the part's begin.
        from: usize,
        /// Byte offset of its end.
        to: usize,
    },
    /// Bytes from a seed.
    Random {
        /// Differs from part to part.
        seed: u64,
        /// Bytes of a record.
        size: u32,
        /// Records.
        count: u64,
    },
}

/// What one node ships into one topic.
#[derive(Clone, Debug)]
pub struct Part {
    /// Name of the topic.
    pub topic: String,
    /// Index of the node that ships it.
    pub node: usize,
    /// The records.
    pub content: Content,
}

impl Content {
    /// Number and bytes of the records.
    pub fn sum(&self) -> (u64, u64) {
        match self {
            Content::Lines { text, from, to } => {
                let part = &text[*from..*to];
                let open = part.last().is_some_and(|last| *last != b'\n');
                let lines = memchr::memchr_iter(b'\n', part).count() as u64;
                (lines + u64::from(open), part.len() as u64)
            }
            Content::Random { size, count, .. } => (*count, count * u64::from(*size)),
        }
    }

    /// Reads the records from the first on.
    pub fn reader(&self) -> Reader {
        let buffer = match self {
            Content::Lines { .. } => Vec::new(),
            Content::Random { size, .. } => vec![0; *size as usize],
        };
        let at = if let Content::Lines { from, .. } = self { *from } else { 0 };
        Reader { content: self.clone(), at, end: at, index: 0, made: None, buffer }
    }
}

/// Reads a part record by record.
#[derive(Debug)]
pub struct Reader {
    content: Content,
    /// Begin of the next line.
    at: usize,
    /// Its end, once it was looked for; else `at`.
    end: usize,
    /// Number of the next record.
    index: u64,
    /// Number of the record in the buffer.
    made: Option<u64>,
    buffer: Vec<u8>,
}

impl Reader {
    /// The next record, without taking it.
    pub fn peek(&mut self) -> Option<&[u8]> {
        match &self.content {
            Content::Lines { text, to, .. } => {
                if self.at == *to {
                    return None;
                }
                if self.end == self.at {
                    let line = memchr::memchr(b'\n', &text[self.at..*to]);
                    self.end = line.map_or(*to, |feed| self.at + feed + 1);
                }
                Some(&text[self.at..self.end])
            }
            Content::Random { seed, count, .. } => {
                if self.index == *count {
                    return None;
                }
                if self.made != Some(self.index) {
                    self.made = Some(self.index);
                    random_bytes(mix(*seed ^ mix(self.index)), &mut self.buffer);
                }
                Some(&self.buffer)
            }
        }
    }

    /// Takes the record that [`Reader::peek`] showed.
    pub fn advance(&mut self) {
        self.at = self.end;
        self.index += 1;
    }

    /// Number of the next record: its offset in the topic.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Goes to a record behind this one, or to the end.
    pub fn skip_to(&mut self, index: u64) {
        if let Content::Random { count, .. } = &self.content {
            self.index = index.clamp(self.index, *count);
        }
        while self.index < index && self.peek().is_some() {
            self.advance();
        }
    }
}

/// One step of splitmix64: every input has another output, and no pattern is left.
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Fills with bytes from a seed, 8 a multiplication (wyrand).
fn random_bytes(seed: u64, out: &mut [u8]) {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0xa076_1d64_78bd_642f);
        let wide = u128::from(state) * u128::from(state ^ 0xe703_7ed1_a0b4_28db);
        (wide as u64 ^ (wide >> 64) as u64).to_le_bytes()
    };
    let mut words = out.chunks_exact_mut(8);
    for word in &mut words {
        word.copy_from_slice(&next());
    }
    let rest = words.into_remainder();
    let last = next();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Cuts a text at line ends into `count` consecutive parts of about the same size: their ends.
pub fn cut(text: &[u8], count: usize) -> Vec<usize> {
    let mut ends = Vec::with_capacity(count);
    let mut last = 0;
    for part in 1..=count {
        let wanted = (text.len() as u128 * part as u128 / count as u128) as usize;
        if wanted > last {
            let feed = memchr::memchr(b'\n', &text[wanted - 1..]);
            last = feed.map_or(text.len(), |feed| wanted + feed);
        }
        ends.push(last);
    }
    ends
}

/// Where the first line longer than `most` begins, and its number from 1.
pub fn too_long(text: &[u8], most: usize) -> Option<(usize, u64)> {
    let mut start = 0;
    let feeds = memchr::memchr_iter(b'\n', text).map(|feed| feed + 1);
    for (line, end) in (1..).zip(feeds.chain(Some(text.len()))) {
        if end - start > most {
            return Some((start, line));
        }
        start = end;
    }
    None
}
