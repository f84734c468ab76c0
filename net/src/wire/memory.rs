//! What the shard may see and change of the packet memory.
//!
//! Invariant: no reference leads to bytes that the kernel may be writing: of the receive buffers
//! only what was handed out and not released is shown, and the shard changes its own regions only.

use super::Wire;
use crate::kernel::Kernel;
use crate::pool::{Range, Regions};

impl<K: Kernel> Wire<K> {
    /// The bytes of a range.
    ///
    /// # Panics
    /// If it lies outside the arena, or in a part of the receive buffers that was not handed out
    /// or is released: the kernel may be writing there.
    pub fn bytes(&self, range: Range) -> &[u8] {
        self.assert_shown(range);
        self.kernel.arena().bytes(range)
    }

    pub(super) fn assert_shown(&self, range: Range) {
        let regions = self.kernel.arena().regions();
        if range.offset < 2 * regions.receive.bytes {
            assert!(range.end() <= 2 * regions.receive.bytes, "out of the receive buffer");
            assert!(self.data_in.holds(range), "received bytes that are not held");
        } else if range.end() > regions.control_in.offset {
            assert!(self.control_in.holds(range), "control bytes that are not held");
        }
    }

    /// The bytes of a range of own, side or blocks, to be written. Nothing of it may be in flight.
    ///
    /// # Panics
    /// If it lies elsewhere.
    pub fn bytes_mut(&mut self, range: Range) -> &mut [u8] {
        self.assert_ours(range);
        self.kernel.arena_mut().bytes_mut(range)
    }

    /// Copies a range that [`Wire::bytes`] would show to one that [`Wire::bytes_mut`] would.
    ///
    /// # Panics
    /// As those, or if the sizes differ.
    pub fn copy(&mut self, from: Range, to: Range) {
        self.assert_shown(from);
        self.assert_ours(to);
        self.kernel.arena_mut().copy(from, to);
    }

    fn assert_ours(&self, range: Range) {
        let Regions { own, side, blocks, .. } = self.kernel.arena().regions();
        let ours = [own, side, blocks].into_iter().any(|region| region.contains(range));
        assert!(ours, "only own, side and blocks are written by the shard");
    }

    /// Where the regions lie.
    pub fn regions(&self) -> &Regions {
        self.kernel.arena().regions()
    }
}
