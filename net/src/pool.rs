//! Packet memory (skeleton).
/// A place in the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte, from the start of the arena.
    pub offset: u32,
    /// Length in bytes.
    pub bytes: u32,
}
/// How many bytes each region gets. `receive` is a power of two; all are multiples of 4096.
#[derive(Clone, Copy, Debug)]
pub struct ArenaPlan {
    /// Receive buffer of the data link, mapped twice (so it takes twice this of the range).
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
/// Where the regions lie.
#[derive(Clone, Copy, Debug)]
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
        "packet memory: {step} of {bytes} bytes failed: {source}; free memory or lower the windows"
    )]
    Map {
        /// Which call.
        step: &'static str,
        /// How much.
        bytes: u64,
        /// The kernel's answer.
        source: std::io::Error,
    },
}
/// Packet memory: one address range. Owned by the uring.
pub struct Arena {
    _private: *mut u8,
}
impl Arena {
    /// Maps and touches the memory.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub fn new(_plan: &ArenaPlan) -> Result<Arena, ArenaError> {
        todo!()
    }
    /// Where the regions lie.
    pub fn regions(&self) -> &Regions {
        todo!()
    }
}
