//! The frame header: 128 bytes, little-endian, the same on the wire and on disk.
//!
//! ```text
//!   0  checksum        16  XXH3-128 of bytes 16..128; verified before any field is read
//!  16  checksum_body   16  XXH3-128 of bytes 128..size, padding included
//!  32  cluster         16
//!  48  epoch            4
//!  52  ring             2
//!  54  kind             1  a raw byte: hostile bytes must not become an invalid enum
//!  55  version          1
//!  56  size             4  the whole frame: header, body, zero padding to the block
//!  60  length           4  bytes of the body in use
//!  64  key              4  0; a later version keys both checksums with a cluster key
//!  68  origin           1  node that made the frame, not the one that passed it on
//!  69  reserved         3  zero
//!  72  incarnation      4  \ session of the origin
//!  76  start            4  /
//!  80  sequence         8  sequence of a value; number of a group or superblock
//!  88  round            4  \
//!  92  ballot_inc       4   | ballot, where the kind has one
//!  96  ballot_node      1  /
//!  97  reserved         7  zero
//! 104  instance         8  first instance, where the kind has one
//! 112  reserved        16  zero
//! ```
//! Fields are read by offset from bytes, never by casting memory, so this file needs no `unsafe`.

use crate::codec;
use crate::ids::{
    Ballot, ClusterId, Epoch, Incarnation, Instance, NodeId, RingId, Sequence, Session, ValueId,
};
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 128;
/// Version of the format that this code writes and reads.
pub const VERSION: u8 = 1;
/// Smallest unit of alignment on data links and disk, in bytes.
pub const BLOCK_BYTES_MIN: u32 = 512;
/// Largest unit of alignment, in bytes; groups on disk start at multiples of it.
pub const BLOCK_BYTES_MAX: u32 = 4096;

/// What a frame is. Codes are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A value packet: data link and disk.
    Value = 1,
    /// First block of a commit group.
    OrderBlock = 2,
    /// A commit group without orders or values: only says what is complete.
    Seal = 3,
    /// One copy of the superblock.
    Superblock = 4,
    /// First block of a segment.
    Segment = 5,
    /// The replicated state at a position, and where what follows lies in the log.
    Checkpoint = 6,
    /// Control link: orders of one ballot, contiguous.
    Orders = 16,
    /// Control link: the vote vector and the decided claim.
    Votes = 17,
    /// Data link: the sender does not hold these values.
    Declare = 18,
    /// Opens a connection.
    Hello = 32,
    /// Answers a [`Kind::Hello`].
    Welcome = 33,
    /// Refuses a [`Kind::Hello`], with the reason.
    Refusal = 34,
    /// 1A.
    Prepare = 48,
    /// 1B.
    Promise = 49,
    /// Answers a frame below the promise.
    Reject = 50,
    /// A coordinator's word that its ballot is open, and with which circle.
    Open = 51,
    /// A node outside the circle says what it has.
    Present = 52,
    /// A node misses its predecessor in the circle.
    Missed = 53,
    /// A node misses the coordinator and asks whether others do.
    Ask = 54,
    /// Answers a [`Kind::Ask`].
    Lost = 55,
    /// A node's running digest at a position.
    Check = 56,
    /// Asks for decided entries from an instance on.
    FetchEntries = 64,
    /// Answers [`Kind::FetchEntries`].
    Entries = 65,
    /// Asks for a value by its id.
    FetchValue = 66,
    /// Answers [`Kind::FetchValue`] when the value is not held.
    NotHeld = 67,
    /// Asks for a part of the oldest state that is kept.
    FetchState = 68,
    /// Answers [`Kind::FetchState`].
    State = 69,
}

impl Kind {
    /// True for what goes straight from shard to shard, whoever their neighbours are.
    pub fn is_direct(self) -> bool {
        use Kind::*;
        matches!(self, Prepare | Promise | Reject | Open | Present | Missed | Ask | Lost | Check)
    }

    /// The kind of a raw code, if this version knows it.
    pub fn from_code(code: u8) -> Option<Kind> {
        use Kind::*;
        let all = [
            Value,
            OrderBlock,
            Seal,
            Superblock,
            Segment,
            Checkpoint,
            Orders,
            Votes,
            Declare,
            Hello,
            Welcome,
            Refusal,
            Prepare,
            Promise,
            Reject,
            Open,
            Present,
            Missed,
            Ask,
            Lost,
            Check,
            FetchEntries,
            Entries,
            FetchValue,
            NotHeld,
            FetchState,
            State,
        ];
        all.into_iter().find(|kind| *kind as u8 == code)
    }
}

/// A decoded header. See the file's head for the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// XXH3-128 of everything behind the header, padding included.
    pub checksum_body: u128,
    /// Cluster that the frame belongs to.
    pub cluster: ClusterId,
    /// Epoch of that cluster.
    pub epoch: Epoch,
    /// Ring of that cluster.
    pub ring: RingId,
    /// What the frame is.
    pub kind: Kind,
    /// Whole frame in bytes: header, body, padding.
    pub size: u32,
    /// Bytes of the body in use.
    pub length: u32,
    /// Node that made the frame.
    pub origin: NodeId,
    /// Session of that node.
    pub session: Session,
    /// Sequence of a value, or the number of a group or superblock.
    pub sequence: Sequence,
    /// Ballot, or [`Ballot::ZERO`].
    pub ballot: Ballot,
    /// First instance, or 0.
    pub instance: Instance,
}

/// Why bytes are not a frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The header's checksum does not match: garbage, or damage.
    HeaderChecksum,
    /// Format version of another release.
    Version {
        /// What the frame says.
        found: u8,
    },
    /// A kind that this version does not know.
    Kind {
        /// What the frame says.
        code: u8,
    },
    /// Sizes that cannot be: length beyond size, size beyond `limit` or below a header.
    Size {
        /// What the frame says, bytes.
        size: u32,
        /// Largest frame accepted here, bytes.
        limit: u32,
    },
    /// A reserved byte is not zero, or a key id that this version does not have.
    Reserved,
    /// Another cluster's frame.
    Cluster {
        /// What the frame says.
        found: ClusterId,
    },
    /// Another epoch's frame.
    Epoch {
        /// What the frame says.
        found: Epoch,
    },
    /// The body's checksum does not match.
    BodyChecksum,
    /// The body does not parse as its kind demands.
    Body,
}

impl core::fmt::Display for FrameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            FrameError::HeaderChecksum => write!(f, "header checksum does not match"),
            FrameError::Version { found } => {
                write!(f, "format version {found}, this release speaks {VERSION}")
            }
            FrameError::Kind { code } => write!(f, "unknown frame kind {code}"),
            FrameError::Size { size, limit } => {
                write!(f, "frame size {size} is not possible here (limit {limit})")
            }
            FrameError::Reserved => write!(f, "reserved bytes are not zero"),
            FrameError::Cluster { found } => write!(f, "frame of cluster {:032x}", found.0),
            FrameError::Epoch { found } => write!(f, "frame of cluster epoch {}", found.0),
            FrameError::BodyChecksum => write!(f, "body checksum does not match"),
            FrameError::Body => write!(f, "body does not parse"),
        }
    }
}

impl core::error::Error for FrameError {}

/// Rounds `bytes` up to a multiple of `block` (a power of two).
pub fn round_up(bytes: usize, block: u32) -> usize {
    debug_assert!(block.is_power_of_two());
    let block = block as usize;
    (bytes + block - 1) & !(block - 1)
}

impl Header {
    /// The id of the value, for [`Kind::Value`].
    pub fn value_id(&self) -> ValueId {
        ValueId { origin: self.origin, session: self.session, sequence: self.sequence }
    }

    /// Writes the header into the first [`HEADER_BYTES`] of `frame`, computing both checksums.
    ///
    /// `frame` is the whole frame, `self.size` bytes, body and padding already in place;
    /// `self.checksum_body` is ignored.
    ///
    /// # Panics
    /// If `frame` is not `self.size` bytes long or `length` does not fit.
    pub fn seal(&self, frame: &mut [u8]) {
        assert_eq!(frame.len(), self.size as usize);
        assert!(HEADER_BYTES + self.length as usize <= frame.len());
        let (head, body) = frame.split_at_mut(HEADER_BYTES);
        self.put(head, xxh3_128(body));
    }

    fn put(&self, head: &mut [u8], checksum_body: u128) {
        head.fill(0);
        head[16..32].copy_from_slice(&checksum_body.to_le_bytes());
        head[32..48].copy_from_slice(&self.cluster.0.to_le_bytes());
        head[48..52].copy_from_slice(&self.epoch.0.to_le_bytes());
        head[52..54].copy_from_slice(&self.ring.0.to_le_bytes());
        head[54] = self.kind as u8;
        head[55] = VERSION;
        head[56..60].copy_from_slice(&self.size.to_le_bytes());
        head[60..64].copy_from_slice(&self.length.to_le_bytes());
        head[68] = self.origin.0;
        head[72..76].copy_from_slice(&self.session.incarnation.0.to_le_bytes());
        head[76..80].copy_from_slice(&self.session.start.to_le_bytes());
        head[80..88].copy_from_slice(&self.sequence.0.to_le_bytes());
        head[88..92].copy_from_slice(&self.ballot.round.to_le_bytes());
        head[92..96].copy_from_slice(&self.ballot.incarnation.0.to_le_bytes());
        head[96] = self.ballot.node.0;
        head[104..112].copy_from_slice(&self.instance.0.to_le_bytes());
        let checksum = xxh3_128(&head[16..HEADER_BYTES]);
        head[..16].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads a header; the checksum first. `limit` is the largest frame accepted, in bytes.
    ///
    /// # Errors
    /// Everything that [`FrameError`] names but cluster, epoch and body, which need to be
    /// checked by [`Header::check_cluster`] and [`Header::check_body`].
    pub fn decode(bytes: &[u8], limit: u32) -> Result<Header, FrameError> {
        let head: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or(FrameError::Size { size: bytes.len() as u32, limit })?;
        if u128_at(head, 0) != xxh3_128(&head[16..]) {
            return Err(FrameError::HeaderChecksum);
        }
        if head[55] != VERSION {
            return Err(FrameError::Version { found: head[55] });
        }
        let kind = Kind::from_code(head[54]).ok_or(FrameError::Kind { code: head[54] })?;
        let reserved = [64..68, 69..72, 97..104, 112..128];
        if reserved.into_iter().any(|range| head[range].iter().any(|byte| *byte != 0)) {
            return Err(FrameError::Reserved);
        }
        let (size, length) = (u32_at(head, 56), u32_at(head, 60));
        let fits = u64::from(length) + HEADER_BYTES as u64 <= u64::from(size);
        if !fits || size > limit {
            return Err(FrameError::Size { size, limit });
        }
        codec::check_positions(&[u64_at(head, 80), u64_at(head, 104)])?;
        Ok(Header {
            checksum_body: u128_at(head, 16),
            cluster: ClusterId(u128_at(head, 32)),
            epoch: Epoch(u32_at(head, 48)),
            ring: RingId(u16::from_le_bytes([head[52], head[53]])),
            kind,
            size,
            length,
            origin: NodeId(head[68]),
            session: Session {
                incarnation: Incarnation(u32_at(head, 72)),
                start: u32_at(head, 76),
            },
            sequence: Sequence(u64_at(head, 80)),
            ballot: codec::ballot_of(u32_at(head, 88), head[96], u32_at(head, 92))?,
            instance: Instance(u64_at(head, 104)),
        })
    }

    /// Refuses a frame of another cluster or epoch.
    ///
    /// # Errors
    /// [`FrameError::Cluster`] or [`FrameError::Epoch`].
    pub fn check_cluster(&self, cluster: ClusterId, epoch: Epoch) -> Result<(), FrameError> {
        if self.cluster != cluster {
            return Err(FrameError::Cluster { found: self.cluster });
        }
        if self.epoch != epoch {
            return Err(FrameError::Epoch { found: self.epoch });
        }
        Ok(())
    }

    /// Checks the body, `frame` being the whole frame of `self.size` bytes; returns the bytes in
    /// use.
    ///
    /// # Errors
    /// [`FrameError::BodyChecksum`].
    pub fn check_body<'a>(&self, frame: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let body = frame.get(HEADER_BYTES..self.size as usize).ok_or(FrameError::Body)?;
        let unchecked = crate::mutant!(RottenBodyAccepted) && self.kind == Kind::Value;
        if !unchecked && xxh3_128(body) != self.checksum_body {
            return Err(FrameError::BodyChecksum);
        }
        Ok(&body[..self.length as usize])
    }
}

/// Little-endian u32 at `at`.
///
/// # Panics
/// If `bytes` is too short.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Little-endian u64 at `at`.
///
/// # Panics
/// If `bytes` is too short.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Little-endian u128 at `at`.
///
/// # Panics
/// If `bytes` is too short.
pub fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"))
}

const _: () = {
    assert!(HEADER_BYTES < BLOCK_BYTES_MIN as usize);
    assert!(BLOCK_BYTES_MAX.is_multiple_of(BLOCK_BYTES_MIN));
};

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Header, [u8; 512]) {
        let header = Header {
            checksum_body: 0,
            cluster: ClusterId(7),
            epoch: Epoch(1),
            ring: RingId(0),
            kind: Kind::Value,
            size: 512,
            length: 100,
            origin: NodeId(2),
            session: Session { incarnation: Incarnation(1), start: 3 },
            sequence: Sequence(9),
            ballot: Ballot::ZERO,
            instance: Instance(0),
        };
        let mut frame = [0u8; 512];
        frame[HEADER_BYTES..HEADER_BYTES + 100].fill(0xab);
        header.seal(&mut frame);
        (header, frame)
    }

    #[test]
    fn round_trip() {
        let (header, frame) = sample();
        let read = Header::decode(&frame, 512).unwrap();
        assert_eq!(Header { checksum_body: read.checksum_body, ..header }, read);
        assert_eq!(read.check_body(&frame).unwrap(), &[0xab; 100]);
    }

    /// A lane that opens at such a value would count beyond the last number there is.
    #[test]
    fn impossible_positions_are_refused() {
        let (header, mut frame) = sample();
        Header { sequence: Sequence(u64::MAX), ..header }.seal(&mut frame);
        assert_eq!(Header::decode(&frame, 512), Err(FrameError::Body));
        Header { instance: Instance(u64::MAX), ..header }.seal(&mut frame);
        assert_eq!(Header::decode(&frame, 512), Err(FrameError::Body));
        let ballot = Ballot { round: u32::MAX, ..header.ballot };
        Header { ballot, ..header }.seal(&mut frame);
        assert_eq!(Header::decode(&frame, 512), Err(FrameError::Body));
    }

    /// Every single flipped bit is found: in the header by its checksum, behind it by the body's.
    #[test]
    fn every_bit_counts() {
        let (_, frame) = sample();
        for bit in 0..frame.len() * 8 {
            let mut bad = frame;
            bad[bit / 8] ^= 1 << (bit % 8);
            match Header::decode(&bad, 512) {
                Err(error) => assert_eq!(error, FrameError::HeaderChecksum),
                Ok(header) => {
                    assert!(bit / 8 >= HEADER_BYTES, "bit {bit} of the header went unseen");
                    assert_eq!(header.check_body(&bad), Err(FrameError::BodyChecksum));
                }
            }
        }
    }

    #[test]
    fn sizes_are_bounded_before_anything_is_read() {
        let (_, frame) = sample();
        let error = FrameError::Size { size: 512, limit: 511 };
        assert_eq!(Header::decode(&frame, 511), Err(error));
        assert!(Header::decode(&frame[..127], 512).is_err());
    }
}
