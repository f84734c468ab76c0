//! Packet memory: one address range, at most [`ARENA_BYTES_MAX`], registered as one buffer.
//!
//! ```text
//! 0         C         2C                                                       total
//! │ receive │ mirror  │ own │ side │ blocks │ control_in │ control_out 0 │ 1 │
//! ```
//! `receive` and its mirror are the same pages, so a packet that passes the end of the first goes
//! on in the second and never wraps.
//!
//! Invariants: the whole range is mapped, readable and writable from [`Arena::new`] to drop, with
//! no hole (the kernel pins it as one buffer). Code never writes to `receive`: the compiler may
//! take two addresses for two places, and there they are one. Only the kernel writes there, and
//! the wire hands out only ranges that no receive in flight covers.
#![allow(unsafe_code)]

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

/// Largest arena, mirror included: the kernel registers no larger buffer.
pub const ARENA_BYTES_MAX: u64 = 1 << 30;
/// Every region starts and ends at a multiple of it, so that any disk can be written from it.
pub const PAGE_BYTES: u32 = 4096;

/// A place in the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte, from the start of the arena.
    pub offset: u32,
    /// Length in bytes.
    pub bytes: u32,
}

impl Range {
    /// The first offset behind it.
    pub fn end(&self) -> u32 {
        self.offset + self.bytes
    }

    /// Whether `inner` lies in it. Empty ranges lie nowhere.
    pub fn contains(&self, inner: Range) -> bool {
        inner.bytes > 0
            && inner.offset >= self.offset
            && u64::from(inner.offset) + u64::from(inner.bytes) <= u64::from(self.end())
    }
}

/// How many bytes each region gets. `receive` is a power of two, all are multiples of
/// [`PAGE_BYTES`]; `own`, `side` and `blocks` may be 0.
#[derive(Clone, Copy, Debug)]
pub struct ArenaPlan {
    /// Receive buffer of the data link; takes twice this of the range, once this of memory.
    pub receive: u32,
    /// Own packets.
    pub own: u32,
    /// Side pool.
    pub side: u32,
    /// Order blocks, seals, superblocks.
    pub blocks: u32,
    /// Receive buffer of the control link.
    pub control_in: u32,
    /// Each of the two send buffers of the control link.
    pub control_out: u32,
}

impl ArenaPlan {
    /// Bytes of the whole range, mirror included.
    pub fn total(&self) -> u64 {
        let single = [self.own, self.side, self.blocks, self.control_in];
        let twice = u64::from(self.receive) + u64::from(self.control_out);
        2 * twice + single.into_iter().map(u64::from).sum::<u64>()
    }

    fn check(&self) -> Result<(), ArenaError> {
        let plan = |what, bytes, remedy| Err(ArenaError::Plan { what, bytes, remedy });
        let all = [
            ("receive", self.receive),
            ("own", self.own),
            ("side", self.side),
            ("blocks", self.blocks),
            ("control_in", self.control_in),
            ("control_out", self.control_out),
        ];
        for (what, bytes) in all {
            if !bytes.is_multiple_of(PAGE_BYTES) {
                return plan(what, u64::from(bytes), "take a multiple of 4096 bytes");
            }
        }
        for (what, bytes) in [all[0], all[4], all[5]] {
            if bytes == 0 {
                return plan(what, 0, "take at least 4096 bytes");
            }
        }
        if !self.receive.is_power_of_two() {
            return plan("receive", u64::from(self.receive), "take a power of two");
        }
        if self.total() > ARENA_BYTES_MAX {
            return plan("sum", self.total(), "lower the windows or the side pool: 1 GiB at most");
        }
        Ok(())
    }

    /// Where the regions will lie.
    pub fn regions(&self) -> Regions {
        let mut offset = 2 * self.receive;
        let mut next = |bytes| {
            let range = Range { offset, bytes };
            offset += bytes;
            range
        };
        Regions {
            receive: Range { offset: 0, bytes: self.receive },
            own: next(self.own),
            side: next(self.side),
            blocks: next(self.blocks),
            control_in: next(self.control_in),
            control_out: [next(self.control_out), next(self.control_out)],
        }
    }
}

/// Where the regions lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regions {
    /// Receive buffer, first copy; packets that wrap reach into the mirror behind it.
    pub receive: Range,
    /// Own packets.
    pub own: Range,
    /// Side pool.
    pub side: Range,
    /// Order blocks, seals, superblocks.
    pub blocks: Range,
    /// Receive buffer of the control link.
    pub control_in: Range,
    /// Send buffers of the control link.
    pub control_out: [Range; 2],
}

/// Why there is no packet memory.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// A size of the plan that cannot be.
    #[error("packet memory: {what} of {bytes} bytes is not possible: {remedy}")]
    Plan {
        /// Which size.
        what: &'static str,
        /// Its value.
        bytes: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// The kernel refused.
    #[error(
        "packet memory: {step} of {bytes} bytes failed: {source}; \
         free memory, raise the limits of address space and shared memory, or lower the windows"
    )]
    Map {
        /// Which step.
        step: &'static str,
        /// How much.
        bytes: u64,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// Packet memory. It belongs to one thread; the uring that works on it owns it.
pub struct Arena {
    base: NonNull<u8>,
    /// Bytes from there on; the regions may take fewer.
    mapped: usize,
    regions: Regions,
}

impl Arena {
    /// Maps and touches the memory, so that nothing has to be found for it later.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub fn new(plan: &ArenaPlan) -> Result<Arena, ArenaError> {
        plan.check()?;
        let total = plan.total();
        let failed = |step, bytes| {
            move |errno: rustix::io::Errno| ArenaError::Map { step, bytes, source: errno.into() }
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing of ours.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                total as usize,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        let base = base.map_err(failed("reserving the range", total))?;
        let base = NonNull::new(base.cast::<u8>()).expect("the kernel maps nothing at 0");
        // From here on the drop unmaps it, whatever fails.
        let arena = Arena { base, mapped: total as usize, regions: plan.regions() };
        let receive = u64::from(plan.receive);
        let memory = memfd_create("chainring-receive", MemfdFlags::CLOEXEC)
            .map_err(failed("making the receive buffer", receive))?;
        ftruncate(&memory, receive).map_err(failed("sizing the receive buffer", receive))?;
        for copy in 0..2 {
            arena
                .map_fixed(copy * plan.receive as usize, plan.receive as usize, Some(&memory))
                .map_err(failed("mapping the receive buffer", receive))?;
        }
        let rest = total - 2 * receive;
        arena
            .map_fixed(2 * plan.receive as usize, rest as usize, None)
            .map_err(failed("mapping the pools", rest))?;
        Ok(arena)
    }

    /// Puts memory (of `file`, or anonymous) over a part of the reserved range.
    fn map_fixed(
        &self,
        at: usize,
        bytes: usize,
        file: Option<&OwnedFd>,
    ) -> Result<(), rustix::io::Errno> {
        assert!(at + bytes <= self.mapped);
        let (read_write, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::FIXED | MapFlags::POPULATE);
        // SAFETY: inside the range that this arena reserved; nothing refers to it yet.
        unsafe {
            let address = self.base.as_ptr().add(at).cast();
            match file {
                Some(file) => mmap(address, bytes, read_write, flags | MapFlags::SHARED, file, 0),
                None => mmap_anonymous(address, bytes, read_write, flags | MapFlags::PRIVATE),
            }
        }?;
        Ok(())
    }

    /// Lays other regions into the same memory, whatever it holds: for who makes many arenas, one
    /// after another. False, and nothing is changed, unless the receive buffer stays as large,
    /// where its mirror is, and the rest has room.
    pub fn lay(&mut self, plan: &ArenaPlan) -> bool {
        let same = plan.receive == self.regions.receive.bytes;
        let fits = same && plan.check().is_ok() && plan.total() <= self.mapped as u64;
        if fits {
            self.regions = plan.regions();
        }
        fits
    }

    /// Where the regions lie.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// Bytes of all regions, mirror included.
    pub fn total(&self) -> usize {
        self.regions.control_out[1].end() as usize
    }

    /// The bytes of a range.
    ///
    /// # Panics
    /// If it does not lie in the arena.
    pub fn bytes(&self, range: Range) -> &[u8] {
        let pointer = self.pointer(range);
        // SAFETY: `pointer` asserts the bounds; the memory is mapped as long as `self` lives, and
        // written through `&mut self` only, or by receives that cover other ranges (file head).
        unsafe { std::slice::from_raw_parts(pointer, range.bytes as usize) }
    }

    /// Lets a kernel that is simulated `fill` a range as the real one fills it: the one way to
    /// write to the receive buffer.
    ///
    /// # Panics
    /// If the range does not lie in the arena.
    pub fn receive_into<T>(&mut self, range: Range, fill: impl FnOnce(&mut [u8]) -> T) -> T {
        // SAFETY: `pointer` asserts the bounds; the memory is writable, and `&mut self` says that
        // nobody looks at any of the arena while it is filled.
        let result = fill(unsafe {
            std::slice::from_raw_parts_mut(self.pointer(range), range.bytes as usize)
        });
        // SAFETY: no instruction; the compiler has to take all memory for changed, the mirror too.
        unsafe { std::arch::asm!("", options(nostack, preserves_flags)) };
        result
    }

    /// The bytes of a range outside the receive buffer, to be written.
    ///
    /// # Panics
    /// If it does not lie in the arena, or in the receive buffer or its mirror.
    pub fn bytes_mut(&mut self, range: Range) -> &mut [u8] {
        assert!(range.offset >= 2 * self.regions.receive.bytes, "the receive buffer is read-only");
        let pointer = self.pointer(range);
        // SAFETY: `pointer` asserts the bounds; `&mut self` excludes other references; the range
        // is no mirrored one, so each byte has one address.
        unsafe { std::slice::from_raw_parts_mut(pointer, range.bytes as usize) }
    }

    /// Copies `from` (anywhere) to `to` (outside the receive buffer), both of the same size.
    ///
    /// # Panics
    /// If sizes differ, or a range lies elsewhere.
    pub fn copy(&mut self, from: Range, to: Range) {
        assert_eq!(from.bytes, to.bytes);
        assert!(to.offset >= 2 * self.regions.receive.bytes, "the receive buffer is read-only");
        let (source, target) = (self.pointer(from), self.pointer(to));
        // SAFETY: both in bounds; `copy` allows overlap; no reference into the arena is alive.
        unsafe { std::ptr::copy(source, target, from.bytes as usize) };
    }

    /// Address of a range, for the kernel.
    ///
    /// # Panics
    /// If it does not lie in the arena.
    pub(crate) fn pointer(&self, range: Range) -> *mut u8 {
        assert!(range.offset as usize + range.bytes as usize <= self.total(), "outside the arena");
        // SAFETY: in bounds of the one mapping.
        unsafe { self.base.as_ptr().add(range.offset as usize) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the range is ours alone; the uring waits for all its operations before it drops
        // the arena. A failure would mean that it was not mapped; there is nothing to do then.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> ArenaPlan {
        let page = PAGE_BYTES;
        ArenaPlan {
            receive: 2 * page,
            own: page,
            side: 0,
            blocks: page,
            control_in: page,
            control_out: page,
        }
    }

    #[test]
    fn what_passes_the_end_appears_at_the_start() {
        let arena = Arena::new(&plan()).unwrap();
        let receive = arena.regions().receive;
        let across = Range { offset: receive.bytes - 8, bytes: 16 };
        let pointer = arena.pointer(across);
        for byte in 0..16u8 {
            // SAFETY: in bounds; volatile, as the kernel's writes are opaque to the compiler too.
            unsafe { pointer.add(usize::from(byte)).write_volatile(byte + 1) };
        }
        assert_eq!(arena.bytes(across), (1..=16).collect::<Vec<u8>>());
        let start = Range { offset: 0, bytes: 9 };
        assert_eq!(arena.bytes(start), [9, 10, 11, 12, 13, 14, 15, 16, 0]);
        let end = Range { offset: 2 * receive.bytes - 8, bytes: 8 };
        assert_eq!(arena.bytes(end), (1..=8).collect::<Vec<u8>>());
    }

    #[test]
    fn regions_do_not_overlap_and_are_writable() {
        let mut arena = Arena::new(&plan()).unwrap();
        let regions = *arena.regions();
        let [first, second] = regions.control_out;
        let all = [regions.own, regions.blocks, regions.control_in, first, second];
        for (fill, range) in all.into_iter().enumerate() {
            arena.bytes_mut(range).fill(fill as u8 + 1);
        }
        for (fill, range) in all.into_iter().enumerate() {
            assert!(arena.bytes(range).iter().all(|byte| usize::from(*byte) == fill + 1));
        }
        assert!(arena.bytes(regions.receive).iter().all(|byte| *byte == 0));
        assert_eq!(second.end() as usize, arena.total());
        arena.copy(regions.own, regions.blocks);
        assert!(arena.bytes(regions.blocks).iter().all(|byte| *byte == 1));
    }

    #[test]
    fn smaller_regions_are_laid_into_the_same_memory() {
        let mut arena = Arena::new(&plan()).unwrap();
        let before = arena.regions().own.offset;
        let other = ArenaPlan { own: 0, side: PAGE_BYTES, blocks: 0, ..plan() };
        assert!(arena.lay(&other));
        assert_eq!((arena.total() as u64, *arena.regions()), (other.total(), other.regions()));
        assert_eq!(arena.regions().side.offset, before);
        let outside = Range { offset: other.total() as u32, bytes: 1 };
        assert!(std::panic::catch_unwind(|| arena.bytes(outside)[0]).is_err());
        for no in [
            ArenaPlan { receive: PAGE_BYTES, ..plan() },
            ArenaPlan { side: PAGE_BYTES, ..plan() },
            ArenaPlan { control_in: 0, ..plan() },
        ] {
            assert!(!arena.lay(&no));
            assert_eq!(*arena.regions(), other.regions());
        }
        assert!(arena.lay(&plan()), "there is as much memory as before");
    }

    #[test]
    #[should_panic(expected = "read-only")]
    fn nobody_writes_the_receive_buffer() {
        let mut arena = Arena::new(&plan()).unwrap();
        arena.bytes_mut(Range { offset: 0, bytes: 1 });
    }

    #[test]
    #[should_panic(expected = "outside the arena")]
    fn nothing_lies_outside() {
        let arena = Arena::new(&plan()).unwrap();
        arena.bytes(Range { offset: arena.total() as u32 - 1, bytes: 2 });
    }

    #[test]
    fn impossible_plans_are_refused_with_the_remedy() {
        for (bad, remedy) in [
            (ArenaPlan { receive: 3 * PAGE_BYTES, ..plan() }, "power of two"),
            (ArenaPlan { own: 100, ..plan() }, "multiple of 4096"),
            (ArenaPlan { control_in: 0, ..plan() }, "at least 4096"),
            (ArenaPlan { receive: 1 << 29, ..plan() }, "1 GiB at most"),
        ] {
            let error = Arena::new(&bad).err().unwrap().to_string();
            assert!(error.contains(remedy), "{error}");
        }
    }
}
