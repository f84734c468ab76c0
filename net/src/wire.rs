//! A shard's whole input and output: the kernel, the packet memory, four links, writes, the waker.
//!
//! One turn of the shard: [`Wire::poll`] hands everything queued to the kernel in one call and
//! takes in what is done; then [`Wire::next_event`] until None; then the shard acts (forward,
//! control, write, release) and polls again. Nothing here allocates after [`Wire::new`].
//!
//! Invariants:
//! * At most one receive is in flight on each in-link, one send on each out-link.
//! * Every forward and every write that was accepted is reported exactly once.
//! * A link's memory is given on only when the kernel is done with it.
//!
//! Bounds, in operations: 2 receives, 2 sends, 2 hang-up polls, 1 wake poll, [`WRITES_MAX`] writes.

pub use crate::event::{Counters, Event, Wait, WireOptions};
use crate::inbound::{ControlIn, DataIn, Rules};
use crate::kernel::{Kernel, Token};
use crate::link::{Link, again, outcome};
pub use crate::link::{LinkError, LinkKind, Refused};
use crate::mailbox::Waker;
pub use crate::outbound::FORWARDS_MAX;
use crate::outbound::{ControlOut, DataOut};
use crate::pool::{Arena, Range};
use crate::uring::{OPS_MAX, Uring, UringError};
use chainring_ring::header::{HEADER_BYTES, Kind};
use std::collections::VecDeque;
use std::time::Duration;

#[cfg(feature = "chaos")]
mod between;
mod memory;

/// Most writes in flight, done-but-unreported ones included.
pub const WRITES_MAX: usize = 16;

/// Operations, as [`Token::what`].
const RECEIVE: u8 = 0;
const SEND: u8 = 1;
const HANGUP: u8 = 2;
const WRITE: u8 = 3;
const WAKE: u8 = 4;

const _: () = assert!(7 + WRITES_MAX <= OPS_MAX);

/// The shard's I/O over a kernel. Made on the shard's thread, and stays there.
pub struct Wire<K: Kernel = Uring> {
    kernel: K,
    links: [Link<K::Handle>; 4],
    /// By link kind: whether the one receive or send is in flight.
    busy: [bool; 4],
    data_in: DataIn,
    control_in: ControlIn,
    data_out: DataOut,
    control_out: ControlOut,
    writes_in_flight: usize,
    written: VecDeque<(u64, i32)>,
    waker: Waker,
    wake_armed: bool,
    woken: bool,
    spin: Duration,
    counters: Counters,
}

impl Wire {
    /// A wire over a uring of its own. Must be called on the shard's thread.
    ///
    /// # Errors
    /// [`UringError`].
    ///
    /// # Panics
    /// As [`Wire::over`].
    pub fn new(options: WireOptions, arena: Arena, waker: Waker) -> Result<Wire, UringError> {
        Ok(Wire::over(options, Uring::new(options.uring, arena)?, waker))
    }

    /// Whether writes use the registered memory.
    pub fn fixed(&self) -> bool {
        self.kernel.fixed()
    }
}

impl<K: Kernel> Wire<K> {
    /// A wire over `kernel`. `waker` wakes this wire.
    ///
    /// # Panics
    /// If the limits of `options` do not fit the arena or each other.
    pub fn over(options: WireOptions, kernel: K, waker: Waker) -> Wire<K> {
        let regions = *kernel.arena().regions();
        assert!(options.block.is_power_of_two() && options.block as usize > HEADER_BYTES);
        assert!(options.packet_max <= regions.receive.bytes / 4);
        assert!(options.control_max <= regions.control_in.bytes);
        assert!(regions.receive.bytes.is_multiple_of(options.block) && options.forwards > 0);
        let WireOptions { cluster, epoch, .. } = options;
        let data = Rules {
            cluster,
            epoch,
            unit: options.block,
            limit: options.packet_max,
            kinds: [Kind::Value, Kind::Declare],
        };
        let control = Rules {
            unit: 8,
            limit: options.control_max,
            kinds: [Kind::Orders, Kind::Votes],
            ..data
        };
        Wire {
            kernel,
            links: Default::default(),
            busy: [false; 4],
            data_in: DataIn::new(data, regions.receive),
            control_in: ControlIn::new(control, regions.control_in),
            data_out: DataOut::new(options.forwards),
            control_out: ControlOut::new(regions.control_out),
            writes_in_flight: 0,
            written: VecDeque::with_capacity(WRITES_MAX),
            waker,
            wake_armed: false,
            woken: false,
            spin: options.spin,
            counters: Counters::default(),
        }
    }

    /// Takes over a connection, blocking or not, whose handshake is over; replaces an old one of
    /// the kind as [`Wire::detach`] does.
    pub fn attach(&mut self, kind: LinkKind, connection: K::Handle) {
        self.detach(kind);
        let link = &mut self.links[kind as usize];
        link.open(connection);
        if matches!(kind, LinkKind::DataOut | LinkKind::ControlOut) {
            // An idle sender would not learn otherwise that its peer is gone.
            let token = Token { what: HANGUP, value: kind as u64 };
            self.kernel.hang_up(link.start(), token);
        }
    }

    /// Closes a link and returns when the kernel is done with its memory. No LinkDown follows.
    ///
    /// In: what was not handed out yet is dropped, so drain the events first to keep it; the
    /// buffer goes on behind the last packet handed out. Out: what is queued comes back unsent.
    pub fn detach(&mut self, kind: LinkKind) {
        self.links[kind as usize].close(&mut self.kernel);
        while !self.links[kind as usize].down() {
            self.kernel.submit_and_wait(Duration::from_millis(10));
            self.drain();
        }
        self.links[kind as usize].hush();
        self.settled(kind);
        match kind {
            LinkKind::DataIn => self.data_in.cut(),
            LinkKind::ControlIn => self.control_in.cut(),
            LinkKind::DataOut | LinkKind::ControlOut => {}
        }
    }

    /// Whether the link is up.
    pub fn attached(&self, kind: LinkKind) -> bool {
        self.links[kind as usize].up().is_some()
    }

    /// Hands over all that is queued and takes in what the kernel has done. With [`Wait::UpTo`]
    /// it waits for the first event, unless one is there already; it may return without one.
    pub fn poll(&mut self, wait: Wait) {
        self.arm();
        self.kernel.submit();
        self.drain();
        let Wait::UpTo(limit) = wait else { return };
        if limit.is_zero() || self.has_event() {
            return;
        }
        let start = self.kernel.now();
        loop {
            // What was done without an event (a control send, say) may let the next one start.
            self.arm();
            self.kernel.submit();
            self.drain();
            let waited = self.kernel.now().duration_since(start);
            if self.has_event() || waited >= limit {
                return;
            }
            if waited < self.spin {
                std::thread::yield_now();
            } else {
                self.block(limit - waited);
            }
        }
    }

    /// Blocks for the kernel or the waker.
    fn block(&mut self, limit: Duration) {
        if !self.wake_armed {
            self.wake_armed = true;
            self.kernel.woken(&self.waker, Token { what: WAKE, value: 0 });
        }
        if self.kernel.ready() || !self.waker.prepare_sleep() {
            self.waker.awake();
            return;
        }
        self.counters.blocks += 1;
        self.kernel.submit_and_wait(limit);
        self.waker.awake();
        self.drain();
    }

    /// Starts whatever can be started.
    fn arm(&mut self) {
        use LinkKind::{ControlIn, ControlOut, DataIn, DataOut};
        // Control first: small things never wait behind bulk.
        if self.idle(ControlOut)
            && let Some(range) = self.control_out.begin()
        {
            self.counters.control_sends += 1;
            let (link, token) = begin(&mut self.links, &mut self.busy, ControlOut, SEND);
            self.kernel.send(link, std::iter::once(range), token);
        }
        if self.idle(ControlIn)
            && let Some(range) = self.control_in.room(self.kernel.arena_mut())
        {
            let (link, token) = begin(&mut self.links, &mut self.busy, ControlIn, RECEIVE);
            self.kernel.recv(link, range, token);
        }
        if self.idle(DataOut)
            && let Some(count) = self.data_out.begin()
        {
            self.counters.sends += 1;
            let (link, token) = begin(&mut self.links, &mut self.busy, DataOut, SEND);
            self.kernel.send(link, self.data_out.batch(count), token);
        }
        if self.idle(DataIn)
            && let Some(range) = self.data_in.room()
        {
            self.counters.receives += 1;
            let (link, token) = begin(&mut self.links, &mut self.busy, DataIn, RECEIVE);
            self.kernel.recv(link, range, token);
        }
    }

    /// Whether a link is up and has nothing in flight.
    fn idle(&self, kind: LinkKind) -> bool {
        !self.busy[kind as usize] && self.links[kind as usize].up().is_some()
    }

    /// Takes in all completions, and the waker's mark.
    fn drain(&mut self) {
        while let Some((token, result)) = self.kernel.next_completion() {
            match token.what {
                WRITE => {
                    self.writes_in_flight -= 1;
                    self.written.push_back((token.value, result));
                }
                WAKE => {
                    self.wake_armed = false;
                    self.waker.drain();
                }
                what => self.link_done(LinkKind::ALL[token.value as usize], what, result),
            }
        }
        self.woken |= self.waker.take();
    }

    fn link_done(&mut self, kind: LinkKind, what: u8, result: i32) {
        let link = &mut self.links[kind as usize];
        let up = link.up().is_some();
        if what == HANGUP {
            link.fail(&mut self.kernel, LinkError::Closed);
        } else {
            self.busy[kind as usize] = false;
            // A closing in-link takes nothing more; a closing out-link still counts what went.
            match outcome(result) {
                Ok(bytes) if what == SEND => self.sent(kind, bytes),
                Ok(bytes) if up => self.received(kind, bytes),
                Ok(_) => {}
                Err(_) if again(result) => self.sent_nothing(kind, what),
                Err(error) => {
                    link.fail(&mut self.kernel, error);
                    self.sent_nothing(kind, what);
                }
            }
        }
        self.links[kind as usize].done();
        self.settled(kind);
    }

    fn sent_nothing(&mut self, kind: LinkKind, what: u8) {
        if what == SEND {
            self.sent(kind, 0);
        }
    }

    fn sent(&mut self, kind: LinkKind, bytes: u32) {
        if kind == LinkKind::DataOut {
            self.counters.bytes_sent += u64::from(bytes);
            self.counters.packets_sent += self.data_out.sent(bytes);
        } else {
            self.counters.control_bytes_sent += u64::from(bytes);
            self.control_out.sent(bytes);
        }
    }

    fn received(&mut self, kind: LinkKind, bytes: u32) {
        if kind == LinkKind::DataIn {
            self.counters.bytes_received += u64::from(bytes);
            self.data_in.received(bytes);
        } else {
            self.control_in.received(bytes);
        }
    }

    /// Once an out-link is down, what it had queued comes back or is forgotten.
    fn settled(&mut self, kind: LinkKind) {
        if self.links[kind as usize].down() {
            match kind {
                LinkKind::DataOut => self.data_out.drop_all(),
                LinkKind::ControlOut => self.control_out.cut(),
                LinkKind::DataIn | LinkKind::ControlIn => {}
            }
        }
    }

    fn has_event(&self) -> bool {
        self.woken
            || !self.written.is_empty()
            || self.data_in.fresh()
            || self.control_in.fresh()
            || self.data_out.has_reports()
            || self.links.iter().any(Link::has_reason)
    }

    /// The next thing that happened; None when all has been told.
    pub fn next_event(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.woken) {
            return Some(Event::Woken);
        }
        if let Some(event) = self.next_done() {
            return Some(event);
        }
        match self.control_in.next(self.kernel.arena()) {
            Ok(Some((header, range))) => {
                self.counters.control_received += 1;
                return Some(Event::Control { header, range });
            }
            Ok(None) => {}
            Err(error) => self.bad_frame(LinkKind::ControlIn, error),
        }
        match self.data_in.next(self.kernel.arena()) {
            Ok(Some((header, range, position))) => {
                self.counters.packets_received += 1;
                return Some(Event::Packet { header, range, position });
            }
            Ok(None) => {}
            Err(error) => self.bad_frame(LinkKind::DataIn, error),
        }
        self.next_down()
    }

    /// The next write or forward that is done. These bring nothing in and give room back, so they
    /// can be taken while there is no room for anything else.
    pub fn next_done(&mut self) -> Option<Event> {
        if let Some((token, result)) = self.written.pop_front() {
            let result = u32::try_from(result).map_err(|_| -result);
            return Some(Event::Written { token, result });
        }
        let (token, sent) = self.data_out.report()?;
        Some(Event::Forwarded { token, sent })
    }

    fn bad_frame(&mut self, kind: LinkKind, error: LinkError) {
        self.counters.bad_frames += 1;
        self.links[kind as usize].blame(&mut self.kernel, error);
    }

    fn next_down(&mut self) -> Option<Event> {
        for kind in LinkKind::ALL {
            if let Some(reason) = self.links[kind as usize].take_reason() {
                match kind {
                    LinkKind::DataIn => self.data_in.cut(),
                    LinkKind::ControlIn => self.control_in.cut(),
                    LinkKind::DataOut | LinkKind::ControlOut => {}
                }
                return Some(Event::LinkDown { kind, reason });
            }
        }
        None
    }

    /// Gives received bytes below `position` back to the link.
    ///
    /// # Panics
    /// If it lies below an earlier one, or above what was handed out.
    pub fn release_received(&mut self, position: u64) {
        self.data_in.release(position);
    }

    /// Bytes of the receive buffer handed out and not released.
    pub fn received_held(&self) -> u32 {
        self.data_in.held()
    }

    /// Queues a range for the data link. It must stay as it is until its [`Event::Forwarded`].
    ///
    /// # Errors
    /// [`Refused`].
    ///
    /// # Panics
    /// If the range is empty, or [`Wire::bytes`] would not show it.
    pub fn forward(&mut self, range: Range, token: u64) -> Result<(), Refused> {
        assert!(range.bytes > 0);
        self.assert_shown(range);
        if !self.attached(LinkKind::DataOut) {
            return Err(Refused::Down);
        }
        self.data_out.push(range, token)
    }

    /// Forwards that would be accepted now, if the link is up.
    pub fn forward_room(&self) -> usize {
        self.data_out.room()
    }

    /// Lets `fill` append whole frames for the control link: it gets the free rest of the buffer
    /// being filled and returns how much it used, 0 if its frame does not fit. They leave with
    /// the next poll, or when the send before is done.
    ///
    /// # Errors
    /// [`Refused`]; `Full` too if `fill` used nothing.
    ///
    /// # Panics
    /// If `fill` claims more than it got, or no multiple of 8.
    pub fn control(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> Result<(), Refused> {
        if !self.attached(LinkKind::ControlOut) {
            return Err(Refused::Down);
        }
        self.control_out.fill(self.kernel.arena_mut(), fill)
    }

    /// Bytes of control frames that wait for the send before them.
    pub fn control_waiting(&self) -> u32 {
        self.control_out.waiting()
    }

    /// Writes the ranges one after another to `file` at `offset`; if `durable` they are on stable
    /// media when done. `file` stays open and the ranges as they are until [`Event::Written`]; at
    /// most [`crate::uring::RANGES_MAX`] ranges after merging of neighbours.
    ///
    /// # Errors
    /// [`Refused::Full`] while [`WRITES_MAX`] are in flight or untold.
    ///
    /// # Panics
    /// If there are no ranges, too many, or one that [`Wire::bytes`] would not show.
    pub fn write(
        &mut self,
        token: u64,
        file: &K::Handle,
        ranges: &[Range],
        offset: u64,
        durable: bool,
    ) -> Result<(), Refused> {
        if self.writes_in_flight + self.written.len() == WRITES_MAX {
            return Err(Refused::Full);
        }
        ranges.iter().for_each(|range| self.assert_shown(*range));
        self.writes_in_flight += 1;
        self.counters.writes += 1;
        let token = Token { what: WRITE, value: token };
        self.kernel.write(file, ranges, offset, durable, token);
        Ok(())
    }

    /// Writes that are not told as done yet.
    pub fn writes_open(&self) -> usize {
        self.writes_in_flight + self.written.len()
    }

    /// The kernel below.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// Counters since start.
    pub fn counters(&self) -> Counters {
        let (enters, enters_useful) = self.kernel.enters();
        Counters { enters, enters_useful, ..self.counters }
    }
}

/// Begins the one receive or send of a link: where, and its token.
fn begin<'a, H>(
    links: &'a mut [Link<H>; 4],
    busy: &mut [bool; 4],
    kind: LinkKind,
    what: u8,
) -> (&'a H, Token) {
    busy[kind as usize] = true;
    (links[kind as usize].start(), Token { what, value: kind as u64 })
}
