//! The bound: one bare TCP stream over loopback, as fast as it goes.
//!
//! Invariants: time is taken from the first write to the last byte read; congestion control is one
//! that does not pace, as between nodes, and what was in force is told.

use rustix::net::sockopt;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Of one write, and of one read at most: 1 MiB.
pub const WRITE_BYTES: usize = 1 << 20;
/// Congestion control, best first: those that nodes use on their links.
const CONGESTION: [&str; 2] = ["cubic", "reno"];

/// What a stream came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Carried {
    /// Its rate.
    pub bits_per_s: f64,
    /// The congestion control in force.
    pub congestion: String,
}

/// Carries so many bytes, one at least.
///
/// # Errors
/// The system's; [`ErrorKind::Interrupted`] once `signal` is set.
pub fn carry(bytes: u64, signal: &AtomicBool) -> Result<Carried> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut out = TcpStream::connect(listener.local_addr()?)?;
    let (mut inn, from) = listener.accept()?;
    if from != out.local_addr()? {
        return Err(Error::other("a stranger connected to the stream's port; measure again"));
    }
    out.set_nodelay(true)?;
    // The default may be bbr, which paces and halves a fast local link.
    let _ = CONGESTION.iter().any(|name| sockopt::set_tcp_congestion(&out, name).is_ok());
    let congestion = sockopt::tcp_congestion(&out)?;
    // Written to beforehand: no page of it is touched for the first time while time is taken.
    let (packet, mut buffer) = (vec![0x5a; WRITE_BYTES], vec![0xa5; WRITE_BYTES]);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || write(&mut out, &packet, bytes, signal));
        let read = read(&mut inn, &mut buffer);
        // If reading failed, this end must be gone before the writer can be waited for.
        drop(inn);
        let written = writer.join().expect("the writer does not panic");
        // A failed read is the reason of a failed write, not the other way round.
        let missing = bytes.abs_diff(read?);
        written?;
        if missing != 0 {
            return Err(Error::other(format!("{missing} bytes of the stream were lost")));
        }
        Ok(())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Carried { bits_per_s: bytes as f64 * 8.0 / seconds, congestion })
}

fn write(out: &mut TcpStream, packet: &[u8], bytes: u64, signal: &AtomicBool) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        if signal.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
        }
        let part = left.min(packet.len() as u64);
        out.write_all(&packet[..part as usize])?;
        left -= part;
    }
    out.shutdown(std::net::Shutdown::Write)
}

/// Reads to the end; how many bytes came.
fn read(inn: &mut TcpStream, buffer: &mut [u8]) -> Result<u64> {
    let mut total = 0;
    loop {
        match inn.read(buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => total += read as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_carried() {
        let signal = AtomicBool::new(false);
        for bytes in [1, WRITE_BYTES as u64, 3 * WRITE_BYTES as u64 + 7] {
            let carried = carry(bytes, &signal).unwrap();
            assert!(carried.bits_per_s > 0.0 && carried.bits_per_s.is_finite(), "{carried:?}");
            assert!(!carried.congestion.is_empty());
        }
    }

    #[test]
    fn a_signal_ends_it() {
        let error = carry(1 << 50, &AtomicBool::new(true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
}
