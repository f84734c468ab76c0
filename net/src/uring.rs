//! The uring (skeleton).
use crate::pool::Arena;
/// Knobs of the uring.
#[derive(Clone, Copy, Debug)]
pub struct UringOptions {
    /// Register the arena, so that log writes need not pin pages each time. Needs RLIMIT_MEMLOCK.
    pub fixed: bool,
}
/// Why there is no uring. (More variants to come; prints cause and remedy.)
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UringError {
    /// The kernel refused.
    #[error("uring: {source}")]
    Setup {
        /// The kernel's answer.
        source: std::io::Error,
    },
}
/// Most ranges of one write or send.
pub const RANGES_MAX: usize = 1024;
/// One uring and the memory it works on. Must be made on the thread that uses it.
pub struct Uring {
    _arena: Arena,
}
impl Uring {
    /// Makes a uring over `arena`.
    ///
    /// # Errors
    /// [`UringError`].
    pub fn new(_options: UringOptions, _arena: Arena) -> Result<Uring, UringError> {
        todo!()
    }
}
