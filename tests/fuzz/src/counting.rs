//! The system's allocator, and how much of it the current thread holds.
//!
//! Invariant: counting allocates nothing and keeps no lock.
#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes held, since the last reset; below zero if older ones were freed.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most at a time since then.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts and hands on to the system's.
#[derive(Debug)]
pub struct Counting;

fn count(by: isize) {
    let held = HELD.get() + by;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

/// Begins to count anew on this thread.
pub fn reset() {
    HELD.set(0);
    PEAK.set(0);
}

/// Most bytes held at a time on this thread since [`reset`]; 0 where another allocator is used.
pub fn peak() -> usize {
    PEAK.get().unsigned_abs()
}

// SAFETY: every call is handed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises are the system's demands.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promises are the system's demands.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    // SAFETY: the caller's promises are the system's demands.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    // SAFETY: the caller's promises are the system's demands.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may be held at the same time while bytes move.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}
