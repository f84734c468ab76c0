//! Socket options (skeleton).
use std::os::fd::AsFd;
/// Options of a peer connection: no delay, congestion control cubic (else reno). Says what is set.
///
/// # Errors
/// The kernel's.
pub fn tune(_socket: &impl AsFd, _buffers: Option<u32>) -> std::io::Result<&'static str> {
    todo!()
}
