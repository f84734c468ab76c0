//! The io_uring of a shard, and the only door between packet memory and the kernel.
//!
//! Invariants:
//! * The uring owns the [`Arena`]; drop cancels and awaits every operation before the memory goes.
//! * At most [`OPS_MAX`] operations are in flight; each has a slot with room for its ranges, so
//!   nothing is allocated after [`Uring::new`] and neither queue can overflow.
//! * A token comes back exactly once, with the kernel's result.
//! * Whoever starts an operation keeps its ranges as they are until the token is back: a range
//!   that is received into is read by nobody, a range that is sent or written changes not.
#![allow(unsafe_code)]

use crate::kernel::Token;
use crate::pool::{Arena, Range};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, squeue};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Most operations in flight.
pub const OPS_MAX: usize = 32;
/// Most ranges of one write or send, after merging of neighbours: the kernel's IOV_MAX.
pub const RANGES_MAX: usize = 1024;
/// Submission queue: every operation and a cancel for each, twice over.
const ENTRIES: u32 = 256;
/// A cancel's own completion; a slot index otherwise.
const CANCELLED: u64 = u64::MAX;

/// Knobs of the uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringOptions {
    /// Register the packet memory, so that log writes need not pin its pages each time. Needs
    /// RLIMIT_MEMLOCK of the arena's size, or CAP_IPC_LOCK.
    pub fixed: bool,
}

/// Why there is no uring.
#[derive(Debug, thiserror::Error)]
pub enum UringError {
    /// Switched off by the administrator.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = {value}); \
         run `sysctl kernel.io_uring_disabled=0`"
    )]
    Disabled {
        /// The sysctl's value: 1 for the unprivileged, 2 for all.
        value: u8,
    },
    /// Not switched off, and yet forbidden.
    #[error(
        "io_uring is forbidden to this process: a seccomp filter, as of most container runtimes, \
         or a security module denies it; allow io_uring_setup, io_uring_enter and \
         io_uring_register, or run outside the container"
    )]
    Forbidden,
    /// The kernel knows no io_uring.
    #[error("this kernel has no io_uring; use Linux 6.1 or later with CONFIG_IO_URING")]
    Missing,
    /// The kernel refuses the flags.
    #[error("this kernel's io_uring lacks deferred task work; use Linux 6.1 or later")]
    TooOld,
    /// The kernel found no memory for the queues.
    #[error(
        "no memory for the queues of io_uring: free memory, raise the memory cgroup's limit, or \
         RLIMIT_MEMLOCK (`ulimit -l`), which counts them too"
    )]
    Memory,
    /// Pinning the packet memory exceeds the limit.
    #[error(
        "packet memory of {needed} bytes cannot be registered: RLIMIT_MEMLOCK is {limit} bytes, \
         counted over all processes of the user; raise it (`ulimit -l`, LimitMEMLOCK=infinity in \
         systemd, --ulimit memlock=-1 in a container) or lower the windows"
    )]
    Memlock {
        /// What has to be pinned.
        needed: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Anything else.
    #[error("io_uring: {step} failed: {source}")]
    Setup {
        /// Which step.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// One uring and the memory it works on. Made on the thread that uses it, and not `Send`.
pub struct Uring {
    uring: IoUring,
    arena: Arena,
    tokens: Box<[Option<Token>]>,
    free: Vec<u8>,
    /// [`RANGES_MAX`] for each slot; the kernel reads them until the operation is done.
    ranges: Box<[libc::iovec]>,
    /// One for each slot, for the same time.
    messages: Box<[libc::msghdr]>,
    fixed: bool,
    queued: u32,
    enters: u64,
    enters_useful: u64,
}

impl Uring {
    /// Makes a uring over `arena`. Only a wire has one: what [`crate::kernel::Kernel`] lets its
    /// owner do is sound by the wire's rules.
    ///
    /// # Errors
    /// [`UringError`], which names cause and remedy.
    pub(crate) fn new(options: UringOptions, arena: Arena) -> Result<Uring, UringError> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .build(ENTRIES)
            .map_err(|source| setup_error(source, sysctl_disabled()))?;
        let fixed = options.fixed && has_fixed_writes(&uring)?;
        if fixed {
            let all = Range { offset: 0, bytes: arena.total() as u32 };
            let buffer =
                libc::iovec { iov_base: arena.pointer(all).cast(), iov_len: arena.total() };
            // SAFETY: the memory lives in `self`, and drop awaits all operations before it goes.
            let done = unsafe { uring.submitter().register_buffers(&[buffer]) };
            done.map_err(|source| register_error(source, arena.total() as u64))?;
        }
        // Saves a table look-up per call; a kernel without it works as well.
        let _ = uring.submitter().register_ring_fd();
        let no_range = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a msghdr is plain numbers and pointers; all zero is an empty one.
        let no_message: libc::msghdr = unsafe { std::mem::zeroed() };
        Ok(Uring {
            uring,
            arena,
            tokens: vec![None; OPS_MAX].into(),
            free: (0..OPS_MAX as u8).rev().collect(),
            ranges: vec![no_range; OPS_MAX * RANGES_MAX].into(),
            messages: vec![no_message; OPS_MAX].into(),
            fixed,
            queued: 0,
            enters: 0,
            enters_useful: 0,
        })
    }

    /// The memory.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The memory, to be written.
    pub fn arena_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }

    /// Whether log writes use the registered memory.
    pub fn fixed(&self) -> bool {
        self.fixed
    }

    /// Operations in flight.
    pub fn in_flight(&self) -> usize {
        OPS_MAX - self.free.len()
    }

    /// Calls into the kernel, and those of them that brought completions.
    pub fn enters(&self) -> (u64, u64) {
        (self.enters, self.enters_useful)
    }

    /// Receives what is there, at most `into.bytes`.
    pub(crate) fn recv(&mut self, fd: RawFd, into: Range, token: Token) {
        let pointer = self.arena.pointer(into);
        self.start(opcode::Recv::new(Fd(fd), pointer, into.bytes).build(), token);
    }

    /// Sends the ranges one after another; a short result is possible if the link breaks.
    ///
    /// # Panics
    /// If there are none, or more than [`RANGES_MAX`] after merging.
    pub(crate) fn send(&mut self, fd: RawFd, from: impl Iterator<Item = Range>, token: Token) {
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let (first, count) = self.gather(from);
        let entry = if count == 1 {
            let range = self.ranges[first];
            let pointer = range.iov_base.cast_const().cast();
            opcode::Send::new(Fd(fd), pointer, range.iov_len as u32).flags(flags).build()
        } else {
            let message = &mut self.messages[first / RANGES_MAX];
            message.msg_iov = self.ranges[first..].as_mut_ptr();
            message.msg_iovlen = count as _;
            opcode::SendMsg::new(Fd(fd), message).flags(flags as u32).build()
        };
        self.start(entry, token);
    }

    /// Writes the ranges one after another at `offset`; with `dsync` the completion says that they
    /// are on stable media.
    ///
    /// # Panics
    /// If there are none, or more than [`RANGES_MAX`] after merging.
    pub(crate) fn write(
        &mut self,
        fd: RawFd,
        from: impl Iterator<Item = Range>,
        offset: u64,
        dsync: bool,
        token: Token,
    ) {
        let (first, count) = self.gather(from);
        let ranges = self.ranges[first..].as_ptr();
        let flags = if dsync { libc::RWF_DSYNC } else { 0 };
        let entry = if self.fixed {
            let write = opcode::WritevFixed::new(Fd(fd), ranges, count as u32, 0);
            write.offset(offset).rw_flags(flags).build()
        } else {
            let write = opcode::Writev::new(Fd(fd), ranges, count as u32);
            write.offset(offset).rw_flags(flags as _).build()
        };
        self.start(entry, token);
    }

    /// Completes once `fd` shows any of `events` (POLLIN and so on), an error or a hang-up.
    pub(crate) fn poll(&mut self, fd: RawFd, events: i16, token: Token) {
        self.start(opcode::PollAdd::new(Fd(fd), events as u32).build(), token);
    }

    /// Puts the ranges into the next slot's list, neighbours merged into one: also across the end
    /// of the receive buffer, by way of the mirror. Returns the first one's index, and how many.
    fn gather(&mut self, from: impl Iterator<Item = Range>) -> (usize, usize) {
        let slot = usize::from(*self.free.last().expect("at most OPS_MAX operations"));
        let receive = self.arena.regions().receive.bytes;
        let list = &mut self.ranges[slot * RANGES_MAX..][..RANGES_MAX];
        let (mut count, mut end) = (0, u32::MAX);
        for range in from {
            let mirrored = range.offset + receive;
            let in_mirror = end == mirrored && mirrored + range.bytes <= 2 * receive;
            if count > 0 && (end == range.offset || in_mirror) {
                list[count - 1].iov_len += range.bytes as usize;
                end += range.bytes;
            } else {
                let iov_base = self.arena.pointer(range).cast();
                list[count] = libc::iovec { iov_base, iov_len: range.bytes as usize };
                end = range.end();
                count += 1;
            }
        }
        assert!(count > 0, "an operation without ranges");
        (slot * RANGES_MAX, count)
    }

    fn start(&mut self, entry: squeue::Entry, token: Token) {
        let slot = self.free.pop().expect("at most OPS_MAX operations");
        assert!(self.tokens[usize::from(slot)].replace(token).is_none());
        self.push(entry.user_data(u64::from(slot)));
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: ranges lie in the arena, lists in the slot's boxes; both stay until completion.
        unsafe { self.uring.submission().push(&entry) }.expect("the queue holds all slots twice");
        self.queued += 1;
    }

    /// Hands over what was started, if anything was, and lets the kernel finish deferred work, if
    /// there is any; otherwise it costs no call.
    pub(crate) fn submit(&mut self) {
        let (deferred, overflow) = {
            let queue = self.uring.submission();
            (queue.taskrun(), queue.cq_overflow())
        };
        if self.queued > 0 || deferred || overflow {
            let result = self.uring.submit();
            self.entered(result);
        }
    }

    /// Hands over what was started and blocks until something completes, or for `timeout`.
    pub(crate) fn submit_and_wait(&mut self, timeout: Duration) {
        let timespec = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timespec);
        let result = self.uring.submitter().submit_with_args(1, &args);
        self.entered(result);
    }

    fn entered(&mut self, result: io::Result<usize>) {
        self.enters += 1;
        if !self.uring.completion().is_empty() {
            self.enters_useful += 1;
        }
        match result.map_err(|error| error.raw_os_error().unwrap_or(0)) {
            // The queue's own length is the truth; the count may be cut short by a timeout.
            Ok(_) | Err(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {
                self.queued = self.uring.submission().len() as u32;
            }
            Err(errno) => {
                panic!("io_uring_enter failed with error {errno}: the shard cannot go on")
            }
        }
    }

    /// Whether a completion lies ready, or would after a [`Uring::submit`].
    pub(crate) fn ready(&mut self) -> bool {
        !self.uring.completion().is_empty() || self.uring.submission().taskrun()
    }

    /// The next completion that has arrived: the token, and bytes or a negative error number.
    pub(crate) fn next_completion(&mut self) -> Option<(Token, i32)> {
        loop {
            let entry = self.uring.completion().next()?;
            if entry.user_data() == CANCELLED {
                continue;
            }
            let slot = entry.user_data() as usize;
            let token = self.tokens[slot].take().expect("one completion for each operation");
            self.free.push(slot as u8);
            return Some((token, entry.result()));
        }
    }

    /// Cancels every operation in flight; their tokens come back all the same.
    fn cancel_all(&mut self) {
        for slot in 0..OPS_MAX {
            if self.tokens[slot].is_some() {
                self.push(opcode::AsyncCancel::new(slot as u64).build().user_data(CANCELLED));
            }
        }
    }
}

impl Drop for Uring {
    /// Awaits every operation: the kernel may touch the memory until then.
    fn drop(&mut self) {
        self.cancel_all();
        while self.in_flight() > 0 {
            self.submit_and_wait(Duration::from_millis(100));
            while self.next_completion().is_some() {}
        }
    }
}

fn has_fixed_writes(uring: &IoUring) -> Result<bool, UringError> {
    let mut probe = Probe::new();
    let done = uring.submitter().register_probe(&mut probe);
    done.map_err(|source| UringError::Setup { step: "asking for its operations", source })?;
    Ok(probe.is_supported(opcode::WritevFixed::CODE))
}

/// The sysctl that switches io_uring off, if it does.
fn sysctl_disabled() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok().filter(|value| *value > 0)
}

fn setup_error(source: io::Error, disabled: Option<u8>) -> UringError {
    match (source.raw_os_error(), disabled) {
        (Some(libc::EPERM), Some(value)) => UringError::Disabled { value },
        (Some(libc::EPERM | libc::EACCES), _) => UringError::Forbidden,
        (Some(libc::ENOSYS), _) => UringError::Missing,
        (Some(libc::EINVAL), _) => UringError::TooOld,
        (Some(libc::ENOMEM), _) => UringError::Memory,
        _ => UringError::Setup { step: "making the queues", source },
    }
}

fn register_error(source: io::Error, needed: u64) -> UringError {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    match (source.raw_os_error(), limits.current) {
        (Some(libc::ENOMEM), Some(limit)) => UringError::Memlock { needed, limit },
        _ => UringError::Setup { step: "registering the packet memory", source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::ArenaPlan;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn uring(fixed: bool) -> Uring {
        let plan = ArenaPlan {
            receive: 1 << 16,
            own: 1 << 16,
            side: 0,
            blocks: 0,
            control_in: 1 << 12,
            control_out: 1 << 12,
        };
        Uring::new(UringOptions { fixed }, Arena::new(&plan).unwrap()).unwrap()
    }

    fn complete(uring: &mut Uring) -> (Token, i32) {
        for _ in 0..50 {
            if let Some(done) = uring.next_completion() {
                return done;
            }
            uring.submit_and_wait(Duration::from_millis(100));
        }
        panic!("nothing completed in 5 s");
    }

    fn token(value: u64) -> Token {
        Token { what: 7, value }
    }

    #[test]
    fn ranges_merge_across_the_mirror_too() {
        let mut uring = uring(false);
        let range = |offset, bytes| Range { offset, bytes };
        let (end, own) = (1u32 << 16, 2u32 << 16);
        let ranges =
            [range(end - 512, 1024), range(512, 512), range(own, 512), range(own + 512, 9)];
        let (first, count) = uring.gather(ranges.into_iter());
        assert_eq!(count, 2);
        assert_eq!(uring.ranges[first].iov_len, 1536);
        assert_eq!(uring.ranges[first + 1].iov_len, 521);
        // Through the mirror, but not out of it.
        let long = [range(end - 512, 1024), range(512, end - 1024), range(end - 512, 1024)];
        let (_, count) = uring.gather(long.into_iter());
        assert_eq!(count, 2);
        // Without the wrap they are no neighbours.
        let (_, count) = uring.gather([range(1024, 512), range(0, 512)].into_iter());
        assert_eq!(count, 2);
    }

    #[test]
    fn bytes_go_out_and_come_in() {
        let mut uring = uring(false);
        let (near, far) = UnixStream::pair().unwrap();
        let own = uring.arena.regions().own;
        uring.arena.bytes_mut(own).fill(9);
        let half = |offset| Range { offset, bytes: 100 };
        let ranges = [half(own.offset), half(own.offset + 200)];
        uring.send(near.as_raw_fd(), ranges.into_iter(), token(1));
        uring.recv(far.as_raw_fd(), Range { offset: (1 << 16) - 50, bytes: 1000 }, token(2));
        let mut results = [complete(&mut uring), complete(&mut uring)];
        results.sort_by_key(|(token, _)| token.value);
        assert_eq!(results, [(token(1), 200), (token(2), 200)]);
        assert!(uring.arena.bytes(Range { offset: 0, bytes: 150 }).iter().all(|byte| *byte == 9));
        assert_eq!(uring.in_flight(), 0);
        assert!(uring.enters().1 > 0);
    }

    /// Drop returns though an operation can never complete by itself.
    #[test]
    fn drop_cancels_what_is_in_flight() {
        let mut uring = uring(false);
        let (near, _far) = UnixStream::pair().unwrap();
        uring.recv(near.as_raw_fd(), Range { offset: 0, bytes: 1000 }, token(1));
        uring.poll(near.as_raw_fd(), libc::POLLIN, token(2));
        uring.submit();
        drop(uring);
    }

    #[test]
    fn errors_name_cause_and_remedy() {
        let said = |errno, disabled| {
            setup_error(io::Error::from_raw_os_error(errno), disabled).to_string()
        };
        assert!(said(libc::EPERM, Some(2)).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(said(libc::EPERM, None).contains("seccomp"));
        assert!(said(libc::ENOSYS, None).contains("Linux 6.1"));
        assert!(said(libc::EINVAL, None).contains("Linux 6.1"));
        assert!(said(libc::ENOMEM, None).contains("memory"));
        assert!(said(libc::EMFILE, None).contains("making the queues"));
        let error = register_error(io::Error::from_raw_os_error(libc::EFAULT), 1);
        assert!(error.to_string().contains("registering"));
    }
}
