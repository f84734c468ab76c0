//! A kernel of one's own between wire and uring, for the device that injects faults.
//!
//! Invariant: without the feature `chaos` nobody but a wire has a uring.

use super::{Wire, WireOptions};
use crate::kernel::Kernel;
use crate::mailbox::Waker;
use crate::pool::Arena;
use crate::uring::{Uring, UringError};

impl<K: Kernel> Wire<K> {
    /// As [`Wire::new`], over what `over` makes of the uring. It hands each operation on once and
    /// as it came, ranges included, or keeps it; a completion it gives is the uring's or its own.
    ///
    /// # Errors
    /// [`UringError`].
    ///
    /// # Panics
    /// As [`Wire::over`].
    pub fn between(
        options: WireOptions,
        arena: Arena,
        waker: Waker,
        over: impl FnOnce(Uring) -> K,
    ) -> Result<Wire<K>, UringError> {
        Ok(Wire::over(options, over(Uring::new(options.uring, arena)?), waker))
    }
}
