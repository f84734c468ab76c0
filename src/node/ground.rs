//! What a node stands on: the file system and the kernel of this machine; with the feature `chaos`
//! both behind a device that injects faults.

use chainring_net::mailbox::Waker;
use chainring_net::pool::Arena;
use chainring_net::uring::UringError;
use chainring_net::wire::{Wire, WireOptions};
use chainring_storage::SharedDisk;
use std::io;
use std::path::Path;

#[cfg(not(feature = "chaos"))]
pub use chainring_net::uring::Uring as ShardKernel;

#[cfg(feature = "chaos")]
pub use crate::chaos::ChaosKernel as ShardKernel;

/// The ground of one node; clones are the same.
#[cfg(not(feature = "chaos"))]
#[derive(Clone, Debug)]
pub struct Ground;

#[cfg(not(feature = "chaos"))]
impl Ground {
    /// The ground of the store in `dir`.
    ///
    /// # Errors
    /// None: this machine is there.
    pub fn new(_dir: &Path, _development: bool) -> io::Result<Ground> {
        Ok(Ground)
    }

    /// The file system.
    pub fn disk(&self) -> SharedDisk {
        chainring_storage::FileSystem::shared()
    }

    /// A wire for the shard; to be made on its thread.
    pub fn wire(
        &self,
        options: WireOptions,
        arena: Arena,
        waker: Waker,
    ) -> Result<Wire<ShardKernel>, UringError> {
        Wire::new(options, arena, waker)
    }

    /// What an operator should know of it.
    pub fn remark(&self) -> Option<String> {
        None
    }
}

/// The ground of one node; clones are the same.
#[cfg(feature = "chaos")]
#[derive(Clone, Debug)]
pub struct Ground(crate::chaos::Device);

#[cfg(feature = "chaos")]
impl Ground {
    /// The ground of the store in `dir`.
    ///
    /// # Errors
    /// As [`crate::chaos::Device::start`].
    pub fn new(dir: &Path, development: bool) -> io::Result<Ground> {
        Ok(Ground(crate::chaos::Device::start(dir, development)?))
    }

    /// The file system.
    pub fn disk(&self) -> SharedDisk {
        self.0.disk()
    }

    /// A wire for the shard; to be made on its thread.
    pub fn wire(
        &self,
        options: WireOptions,
        arena: Arena,
        waker: Waker,
    ) -> Result<Wire<ShardKernel>, UringError> {
        Wire::between(options, arena, waker, |uring| self.0.kernel(uring))
    }

    /// What an operator should know of it.
    pub fn remark(&self) -> Option<String> {
        Some(
            "THIS BUILD INJECTS FAULTS (feature chaos): whoever can write to the socket `chaos` in \
             the data directory makes the disk fail and the process end. For tests only"
                .to_owned(),
        )
    }
}
