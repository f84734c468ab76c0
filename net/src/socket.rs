//! Options of peer sockets. Dialling and listening belong to the control thread.

use rustix::net::sockopt;
use std::io;
use std::os::fd::AsFd;

/// What congestion control peers use, best first. A default of bbr paces, and so halves the speed
/// of a fast local link; cubic and reno are alike there.
pub const CONGESTION: [&str; 2] = ["cubic", "reno"];

/// What was sent over a connection whose other end always reads is acknowledged within so many
/// milliseconds, or it is gone: after a partition the kernel would go on asking at its own, ever
/// longer pauses. Not so on a data link: its reader stops for want of room, and is not dead.
const UNHEARD_MS: u32 = 1000;

/// What [`tune`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// The congestion control in force.
    pub congestion: String,
    /// Whether it is one of [`CONGESTION`]; if not, the kernel has neither, and `status` shows it.
    pub wanted: bool,
}

/// Sets the options of a connected peer socket: no delay, congestion control, and send and
/// receive buffers of `buffers` bytes each if given (otherwise the kernel sizes them as it needs).
///
/// # Errors
/// The kernel's: the socket is no TCP socket, or gone.
pub fn tune(socket: &impl AsFd, buffers: Option<usize>) -> io::Result<Tuned> {
    sockopt::set_tcp_nodelay(socket, true)?;
    if let Some(bytes) = buffers {
        sockopt::set_socket_send_buffer_size(socket, bytes)?;
        sockopt::set_socket_recv_buffer_size(socket, bytes)?;
    }
    let wanted =
        CONGESTION.into_iter().any(|name| sockopt::set_tcp_congestion(socket, name).is_ok());
    Ok(Tuned { congestion: sockopt::tcp_congestion(socket)?, wanted })
}

/// Has the connection end soon once the other side acknowledges nothing.
///
/// # Errors
/// The kernel's: the socket is no TCP socket, or gone.
pub fn end_unheard(socket: &impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_tcp_user_timeout(socket, UNHEARD_MS)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn options_are_set_and_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let tuned = tune(&stream, Some(1 << 16)).unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(tuned.wanted, CONGESTION.contains(&tuned.congestion.as_str()));
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 0, "the kernel's own");
        end_unheard(&stream).unwrap();
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), UNHEARD_MS);
        let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(tune(&other, None).is_err());
    }
}
