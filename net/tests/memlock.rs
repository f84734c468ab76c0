//! Packet memory beyond RLIMIT_MEMLOCK is refused with the limit, the need and the remedy.
//! A file of its own: the limit holds for the whole process.

mod common;

use chainring_net::mailbox::Waker;
use chainring_net::uring::UringError;
use chainring_net::wire::Wire;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::time::Duration;

#[test]
fn memlock_is_named() {
    // Enough for the queues, which count too, and not for the packet memory.
    let limit = 2 << 20;
    let hard = getrlimit(Resource::Memlock).maximum;
    setrlimit(Resource::Memlock, Rlimit { current: Some(limit), maximum: hard }).unwrap();
    // Root is not limited while it has this capability; it is the thread's own.
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
    let made = |fixed| {
        let mut options = common::options(1 << 14, Duration::ZERO);
        options.uring.fixed = fixed;
        Wire::new(options, common::arena(1 << 20, 1 << 20), Waker::new().unwrap())
    };
    let error = match made(true) {
        Err(error) => error,
        Ok(wire) => {
            assert!(!wire.fixed(), "registered beyond the limit");
            println!("skipped: this kernel has no WRITEV_FIXED, nothing is registered");
            return;
        }
    };
    let UringError::Memlock { needed, limit: told } = error else { panic!("{error}") };
    assert_eq!(told, limit);
    assert!(needed > 3 << 20);
    assert!(error.to_string().contains("ulimit -l"), "{error}");
    assert!(made(false).is_ok(), "it runs unregistered");
}
