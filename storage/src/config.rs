//! Where bytes lie, whose they are, and the limits of a log.
//!
//! Invariant: an address on disk is `(segment << 32) | offset`, so addresses of one log are ordered
//! as its bytes are, over all segments.

use crate::block::{ORDER_BLOCK_BYTES_MAX, order_block_bytes};
use crate::disk::{FileSystem, SharedDisk};
use crate::error::LogError;
use chainring_ring::header::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use chainring_ring::ids::{ClusterId, Epoch, NodeId, RingId};

/// Groups and headers start at multiples of this, whatever the block: the sector of every disk in
/// use, so that a torn write never touches the bytes of another group.
pub const GROUP_ALIGN: u32 = 4096;
/// Largest segment, bytes. Offsets are 32 bits wide; half of that leaves room for sums.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 31;
/// Most groups in flight: one bit each in the writer.
pub const GROUPS_IN_FLIGHT_MAX: u32 = 16;
/// Most segments made ahead of need.
pub const PREALLOCATE_MAX: usize = 8;

/// Where a frame lies: an address on disk or a position in the memory log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// On disk `(segment << 32) | byte offset` of the frame; in the memory log its position.
    pub at: u64,
    /// The whole frame.
    pub bytes: u32,
}

impl Place {
    /// A frame in a segment.
    pub fn on_disk(segment: u32, offset: u32, bytes: u32) -> Place {
        Place { at: address(segment, offset), bytes }
    }

    /// The segment, of a place on disk.
    pub fn segment(&self) -> u32 {
        segment_of(self.at)
    }

    /// The byte offset in the segment, of a place on disk.
    pub fn offset(&self) -> u32 {
        offset_of(self.at)
    }
}

/// The address of a byte of a segment.
pub fn address(segment: u32, offset: u32) -> u64 {
    u64::from(segment) << 32 | u64::from(offset)
}

/// The segment of an address.
pub fn segment_of(at: u64) -> u32 {
    (at >> 32) as u32
}

/// The byte offset of an address in its segment.
pub fn offset_of(at: u64) -> u32 {
    (at & 0xffff_ffff) as u32
}

/// Whose log it is: carried by every frame of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The node.
    pub node: NodeId,
    /// The ring.
    pub ring: RingId,
}

impl core::fmt::Display for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (cluster, epoch) = (self.cluster.0, self.epoch.0);
        write!(f, "cluster {cluster:032x} epoch {epoch} ring {} node {}", self.ring.0, self.node.0)
    }
}

/// Limits and identity of one log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Whose log.
    pub identity: Identity,
    /// Unit of alignment of value frames and order blocks, 512 to 4096, a power of two.
    pub block: u32,
    /// A segment file, bytes: a multiple of 4096, at least its header and a largest group. With
    /// few groups in it much stays unused: what a group that does not fit leaves behind.
    pub segment_bytes: u32,
    /// Largest commit group: its order block, the cap on values and one packet beyond the cap.
    pub group_bytes_max: u32,
    /// Groups that may be written at the same time, 2 to 16.
    pub groups_in_flight: u32,
    /// Segments made ahead of need, 1 to 8.
    pub preallocate: usize,
    /// Do without O_DIRECT. For development only: what is acknowledged may be lost.
    pub development: bool,
    /// Where its files are.
    pub disk: SharedDisk,
}

impl LogConfig {
    /// The defaults: 64 MiB segments, groups to 4 MiB, two in flight, one segment ahead, on the
    /// file system of this machine.
    pub fn new(identity: Identity, block: u32) -> LogConfig {
        LogConfig {
            identity,
            block,
            segment_bytes: 64 << 20,
            // 16 of them and the header block fill a segment.
            group_bytes_max: (4 << 20) - GROUP_ALIGN,
            groups_in_flight: 2,
            preallocate: 1,
            development: false,
            disk: FileSystem::shared(),
        }
    }

    /// Refuses limits that do not fit each other.
    ///
    /// # Errors
    /// [`LogError::Config`], naming the rule that is broken.
    pub fn check(&self) -> Result<(), LogError> {
        let block = self.block.is_power_of_two()
            && (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&self.block);
        let group = self.group_bytes_max.div_ceil(GROUP_ALIGN).saturating_mul(GROUP_ALIGN);
        let least = group.saturating_add(GROUP_ALIGN);
        // The block may be nonsense; that is reported first.
        let smallest = order_block_bytes(1, BLOCK_BYTES_MIN).max(self.block as usize) as u32;
        let rules = [
            (block, "block must be 512, 1024, 2048 or 4096"),
            (self.segment_bytes.is_multiple_of(GROUP_ALIGN), "segment_bytes: a multiple of 4096"),
            (self.segment_bytes <= SEGMENT_BYTES_MAX, "segment_bytes must be at most 2 GiB"),
            (self.segment_bytes >= least, "segment_bytes: at least one group of group_bytes_max"),
            (
                self.group_bytes_max >= smallest.saturating_add(self.block),
                "group_bytes_max: at least one order and value",
            ),
            (
                (2..=GROUPS_IN_FLIGHT_MAX).contains(&self.groups_in_flight),
                "2 to 16 groups in flight",
            ),
            ((1..=PREALLOCATE_MAX).contains(&self.preallocate), "preallocate 1 to 8 segments"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(LogError::Config { rule }),
            None => Ok(()),
        }
    }
}

const _: () = assert!(ORDER_BLOCK_BYTES_MAX.is_multiple_of(BLOCK_BYTES_MAX));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_to_fit_each_other() {
        let identity = crate::segment::tests::identity();
        let good = LogConfig::new(identity, 512);
        good.check().unwrap();
        let break_one: [fn(&mut LogConfig); 7] = [
            |c| c.block = 1000,
            |c| c.segment_bytes += 512,
            |c| c.group_bytes_max = c.segment_bytes - GROUP_ALIGN + 1,
            |c| c.group_bytes_max = 512,
            |c| c.groups_in_flight = 1,
            |c| c.groups_in_flight = 17,
            |c| c.preallocate = 0,
        ];
        for spoil in break_one {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(matches!(bad.check(), Err(LogError::Config { .. })), "{bad:?}");
        }
    }

    #[test]
    fn addresses_split_and_order() {
        let place = Place::on_disk(7, 0xffff_f000, 512);
        assert_eq!((place.segment(), place.offset()), (7, 0xffff_f000));
        assert!(place.at < address(8, 0));
    }
}
