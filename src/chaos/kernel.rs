//! The device as the kernel below a shard: its writes to the log.
//!
//! Invariants: a write goes to the uring once, at its time, or is answered here; when the power
//! fails every write under way has come back from the uring before the first byte is put back, and
//! the shard is told of none of them.

use super::desk::{Device, Until, Verdict};
use super::drive::{Key, Write, key_behind};
use super::medium::RealFile;
use super::orders::Op;
use crate::sim::disk::image::Medium;
use chainring_net::kernel::{Kernel, Token};
use chainring_net::mailbox::Waker;
use chainring_net::pool::{Arena, Range};
use chainring_net::uring::Uring;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// What is cut short is cut at a multiple of this, bytes.
const SECTOR: usize = 512;
/// How long a look at the uring takes at most.
const LOOK: Duration = Duration::from_millis(1);

/// A write that waits.
struct Held {
    until: Until,
    file: OwnedFd,
    from: Vec<Range>,
    offset: u64,
    durable: bool,
    token: Token,
}

/// A uring behind the device.
pub struct ChaosKernel {
    device: Device,
    uring: Uring,
    /// Completions of its own.
    own: VecDeque<(Token, i32)>,
    held: Vec<Held>,
    /// Files of such writes, open until they are done.
    lent: Vec<(Token, OwnedFd)>,
    /// Under way in the uring.
    writes: Vec<(Token, Write)>,
    /// The files that the shard writes to, for the device's own use.
    files: BTreeMap<Key, RealFile>,
}

impl ChaosKernel {
    pub(super) fn new(device: Device, uring: Uring) -> ChaosKernel {
        ChaosKernel {
            device,
            uring,
            own: VecDeque::new(),
            held: Vec::new(),
            lent: Vec::new(),
            writes: Vec::new(),
            files: BTreeMap::new(),
        }
    }

    /// Ends the process if the power has failed.
    fn look(&mut self) {
        if !self.device.is_dark() {
            return;
        }
        let waits = |token| self.held.iter().any(|held| held.token == token);
        let mut left: Vec<Token> =
            self.writes.iter().map(|(token, _)| *token).filter(|token| !waits(*token)).collect();
        while !left.is_empty() {
            Kernel::submit_and_wait(&mut self.uring, LOOK);
            while let Some((token, _)) = Kernel::next_completion(&mut self.uring) {
                left.retain(|under_way| *under_way != token);
            }
        }
        self.device
            .cut(std::mem::take(&mut self.writes).into_iter().map(|(_, write)| write).collect())
    }

    /// Hands over what has waited long enough.
    fn go_on(&mut self) {
        let (now, mut at) = (Instant::now(), 0);
        while at < self.held.len() {
            let over = match self.held[at].until {
                Until::Time(due) => now >= due,
                Until::Calm => self.device.is_calm(),
            };
            if over {
                let Held { file, from, offset, durable, token, .. } = self.held.remove(at);
                Kernel::write(&mut self.uring, &file, &from, offset, durable, token);
                self.lent.push((token, file));
            } else {
                at += 1;
            }
        }
    }

    /// What the device knows the file of a write by.
    fn file(&mut self, file: &OwnedFd) -> Key {
        let key = key_behind(file).expect("an open segment");
        if !self.files.contains_key(&key) {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let open = || self.device.open(Path::new(&path));
            let mine = open().expect("a segment can be opened again");
            self.device.drive().file(key, open).expect("a segment can be opened again");
            self.files.insert(key, mine);
        }
        key
    }

    /// A write that goes to the uring, now or later; kept until it is done.
    fn keep(&mut self, file: Key, at: u64, bytes: Vec<u8>, token: Token) {
        let mut before = vec![0; bytes.len()];
        self.files[&file].read(at, &mut before);
        self.writes.push((token, Write { file, at, bytes, before }));
    }
}

/// The first `bytes` of some ranges.
fn first(from: &[Range], mut bytes: u32) -> Vec<Range> {
    let mut ranges = Vec::new();
    for range in from {
        let length = range.bytes.min(bytes);
        if length > 0 {
            ranges.push(Range { bytes: length, ..*range });
        }
        bytes -= length;
    }
    ranges
}

impl Drop for ChaosKernel {
    fn drop(&mut self) {
        self.look();
        self.device.without_kernel();
    }
}

impl Kernel for ChaosKernel {
    type Handle = OwnedFd;

    fn arena(&self) -> &Arena {
        self.uring.arena()
    }
    fn arena_mut(&mut self) -> &mut Arena {
        self.uring.arena_mut()
    }
    fn now(&self) -> Instant {
        Kernel::now(&self.uring)
    }
    fn submit(&mut self) {
        self.look();
        self.go_on();
        Kernel::submit(&mut self.uring);
    }
    fn submit_and_wait(&mut self, timeout: Duration) {
        self.look();
        self.go_on();
        match (self.own.is_empty(), self.held.is_empty()) {
            (false, _) => Kernel::submit(&mut self.uring),
            (true, false) => Kernel::submit_and_wait(&mut self.uring, timeout.min(LOOK)),
            (true, true) => Kernel::submit_and_wait(&mut self.uring, timeout),
        }
    }
    fn ready(&mut self) -> bool {
        !self.own.is_empty() || Kernel::ready(&mut self.uring)
    }
    fn next_completion(&mut self) -> Option<(Token, i32)> {
        self.look();
        if let Some(done) = self.own.pop_front() {
            return Some(done);
        }
        let (token, result) = Kernel::next_completion(&mut self.uring)?;
        self.writes.retain(|(under_way, _)| *under_way != token);
        self.lent.retain(|(under_way, _)| *under_way != token);
        Some((token, result))
    }
    fn enters(&self) -> (u64, u64) {
        Kernel::enters(&self.uring)
    }

    fn recv(&mut self, link: &OwnedFd, into: Range, token: Token) {
        Kernel::recv(&mut self.uring, link, into, token);
    }
    fn send(&mut self, link: &OwnedFd, from: impl Iterator<Item = Range>, token: Token) {
        Kernel::send(&mut self.uring, link, from, token);
    }
    fn write(&mut self, file: &OwnedFd, from: &[Range], offset: u64, durable: bool, token: Token) {
        let key = self.file(file);
        let mut bytes = Vec::new();
        from.iter().for_each(|range| bytes.extend_from_slice(self.uring.arena().bytes(*range)));
        let length = bytes.len();
        let (verdict, until) = self.device.judge(Op::Log, Path::new("segment"), length as u64);
        let mut from = from.to_vec();
        match verdict {
            Verdict::Pass if !durable => {
                self.device.drive().write(key, offset, &bytes, false, false);
                return self.own.push_back((token, length as i32));
            }
            Verdict::Pass => {}
            Verdict::Short => {
                let half = (length / 2).next_multiple_of(SECTOR);
                bytes.truncate(half);
                from = first(&from, half as u32);
            }
            Verdict::Fail(errno) => {
                self.device.drive().write_fails(key, offset, &bytes);
                return self.own.push_back((token, -errno.raw_os_error()));
            }
            // The shard is told nothing more.
            Verdict::Dead => return,
            Verdict::Dark => self.device.darken(),
        }
        self.keep(key, offset, bytes, token);
        match until {
            None => Kernel::write(&mut self.uring, file, &from, offset, durable, token),
            Some(until) => {
                let file = file.try_clone().expect("a descriptor more");
                self.held.push(Held { until, file, from, offset, durable, token });
            }
        }
    }
    fn hang_up(&mut self, link: &OwnedFd, token: Token) {
        Kernel::hang_up(&mut self.uring, link, token);
    }
    fn woken(&mut self, waker: &Waker, token: Token) {
        Kernel::woken(&mut self.uring, waker, token);
    }
    fn shutdown(&mut self, link: &OwnedFd) {
        Kernel::shutdown(&mut self.uring, link);
    }
}
