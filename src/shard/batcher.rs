//! The batcher: puts records into own packets, and knows whose they are.
//!
//! A lone record leaves at the end of its turn; under load packets fill up. The one copy of a
//! record in user space happens here. Invariants: at most a window of own bytes is on its way,
//! counted until every node has delivered them (a packet larger than that goes alone); records of
//! a request keep their order; a request is answered once.

use crate::config::Config;
use crate::gauges::Queue;
use crate::groups::producers::Fence;
use crate::mail::{Append, Refusal};
use crate::records::{RECORD_PREFIX_BYTES, RUN_HEADER_BYTES, RunWriter, STAMP_BYTES};
use crate::shard::direct::Sender;
use crate::shard::pools::OwnPool;
use crate::source::{Filling, Source, Supply};
use chainring_net::pool::Range;
use chainring_ring::header::{HEADER_BYTES, Header, Kind, round_up};
use chainring_ring::ids::{Instance, ValueId};
use chainring_ring::lanes::LANE_PACKETS_MAX;
use chainring_ring::mark;
use std::collections::VecDeque;

/// Requests that wait for room, or for their records to be delivered.
pub const APPENDS_MAX: usize = 4096;
/// Topics waiting to be proposed.
const CREATIONS_MAX: usize = 1024;
/// While so many own packets are on their way, the next one waits until it is full.
const EAGER_PACKETS: usize = 2;

/// Limits of a batcher.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// A packet is filled up to here, bytes of the frame.
    pub packet_bytes: u32,
    /// The largest packet: one record of the limit.
    pub packet_max: u32,
    /// Own bytes on their way.
    pub window_bytes: u32,
    /// Unit of alignment.
    pub block: u32,
}

impl BatchLimits {
    /// As configured.
    pub fn of(config: &Config) -> BatchLimits {
        BatchLimits {
            packet_bytes: config.limits.packet_bytes,
            packet_max: config.packet_max(),
            window_bytes: config.limits.window_bytes,
            block: config.cluster.block,
        }
    }
}

/// Records of one request in one packet.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The packet.
    pub id: ValueId,
    /// How many; a registration is one.
    pub count: u32,
    /// Ends the request.
    pub last: bool,
}

/// An own packet that not every node has delivered.
#[derive(Clone, Copy, Debug)]
struct Sent {
    bytes: u32,
    /// Instance at which it was delivered here.
    instance: Option<Instance>,
    /// When its first record was taken.
    since_us: u64,
    records: u32,
}

#[derive(Debug)]
struct Open {
    peeked: Range,
    writer: RunWriter,
    since_us: u64,
    records: u32,
    full: bool,
}

/// A packet ready to be proposed.
#[derive(Clone, Copy, Debug)]
pub struct Sealed {
    /// Its frame.
    pub range: Range,
    /// Offset in the own pool by which it goes back.
    pub behind: u32,
}

/// Lends the bytes of a range to be written.
pub type Memory<'a> = &'a mut dyn FnMut(Range, &mut dyn FnMut(&mut [u8]));

/// The batcher.
#[derive(Debug)]
pub struct Batcher {
    limits: BatchLimits,
    open: Option<Open>,
    /// Requests whose records are not all in packets; the first may be partly.
    waiting: VecDeque<Box<Append>>,
    /// Requests whose records are all in packets, not all delivered.
    pub(crate) underway: VecDeque<Box<Append>>,
    /// In order of packet: whose records lie where.
    pub(crate) spans: VecDeque<Span>,
    creations: VecDeque<Box<str>>,
    source: Option<Box<dyn Source>>,
    sent: VecDeque<Sent>,
    sent_bytes: u64,
    /// No new records.
    pub draining: bool,
}

impl Batcher {
    /// An empty batcher.
    pub fn new(limits: BatchLimits) -> Batcher {
        Batcher {
            limits,
            open: None,
            waiting: VecDeque::with_capacity(APPENDS_MAX),
            underway: VecDeque::with_capacity(APPENDS_MAX),
            spans: VecDeque::with_capacity(2 * APPENDS_MAX + LANE_PACKETS_MAX as usize),
            creations: VecDeque::with_capacity(CREATIONS_MAX),
            source: None,
            sent: VecDeque::with_capacity(LANE_PACKETS_MAX as usize),
            sent_bytes: 0,
            draining: false,
        }
    }

    /// Takes a request, or gives it back.
    ///
    /// # Errors
    /// The request, with the reason.
    pub fn append(&mut self, append: Box<Append>) -> Result<(), (Box<Append>, Refusal)> {
        if self.draining {
            mark!(AppendMeetsDrain);
            return Err((append, Refusal::Draining));
        }
        if self.waiting.len() + self.underway.len() >= APPENDS_MAX {
            return Err((append, Refusal::Busy));
        }
        self.waiting.push_back(append);
        Ok(())
    }

    /// Takes a topic to propose; dropped if too many wait: whoever wants it asks again.
    pub fn create(&mut self, name: Box<str>) {
        if self.creations.len() < CREATIONS_MAX {
            self.creations.push_back(name);
        }
    }

    /// Takes a source of records.
    pub fn load(&mut self, source: Box<dyn Source>) {
        self.source = Some(source);
    }

    /// The source, to tell it of topics.
    pub fn source(&mut self) -> Option<&mut Box<dyn Source>> {
        self.source.as_mut()
    }

    /// True if nothing waits and nothing own is undelivered here.
    pub fn is_idle(&self) -> bool {
        let undelivered = self.sent.iter().any(|sent| sent.instance.is_none());
        self.waiting.is_empty() && self.underway.is_empty() && self.open.is_none() && !undelivered
    }

    /// How full it is.
    pub fn queues(&self) -> [Queue; 4] {
        let lane = LANE_PACKETS_MAX as usize;
        [
            ("requests", self.waiting.len() + self.underway.len(), APPENDS_MAX),
            ("spans", self.spans.len(), 2 * APPENDS_MAX + lane),
            ("topics to create", self.creations.len(), CREATIONS_MAX),
            ("own packets under way", self.sent.len(), lane),
        ]
    }

    /// Own bytes that not every node has delivered.
    pub fn bytes_in_flight(&self) -> u64 {
        self.sent_bytes
    }

    /// Fills the open packet. True if it is to be sealed and proposed now.
    pub fn fill(&mut self, pool: &OwnPool, id: ValueId, memory: Memory<'_>, now_us: u64) -> bool {
        if self.open.is_none() && !self.open_packet(pool, now_us) {
            return false;
        }
        let peeked = self.open.as_ref().expect("just opened").peeked;
        memory(peeked, &mut |frame| {
            let body = &mut frame[HEADER_BYTES..];
            self.fill_creations(body);
            self.fill_appends(body, id);
            self.fill_from_source(body);
        });
        let open = self.open.as_ref().expect("opened above");
        if open.writer.bytes() == 0 {
            self.open = None; // nothing to send: the pool was only peeked at
            return false;
        }
        open.full || self.sent.len() < EAGER_PACKETS
    }

    /// Bytes that the next packet must be able to take.
    fn open_packet(&mut self, pool: &OwnPool, now_us: u64) -> bool {
        let next = match (self.waiting.front(), &mut self.source) {
            (Some(append), _) => record_of(append).len(),
            (None, Some(source)) => source.next_bytes(),
            (None, None) => 0,
        };
        let overhead = HEADER_BYTES + RUN_HEADER_BYTES + STAMP_BYTES + RECORD_PREFIX_BYTES;
        let need = round_up(next + overhead, self.limits.block) as u32;
        let bytes = need.max(self.limits.packet_bytes).min(self.limits.packet_max);
        let nothing = self.waiting.is_empty() && self.creations.is_empty();
        let fits = self.sent_bytes + u64::from(bytes) <= u64::from(self.limits.window_bytes);
        if nothing && self.source.is_none()
            || !(fits || self.sent.is_empty())
            || self.sent.len() >= LANE_PACKETS_MAX as usize
        {
            return false;
        }
        let Some(peeked) = pool.peek(bytes) else {
            mark!(OwnPoolFull);
            return false;
        };
        if !fits {
            mark!(LargePacketGoesAlone);
        }
        let writer = RunWriter::new();
        self.open = Some(Open { peeked, writer, since_us: now_us, records: 0, full: false });
        true
    }

    fn fill_creations(&mut self, body: &mut [u8]) {
        let open = self.open.as_mut().expect("called with an open packet");
        while let Some(name) = self.creations.front() {
            if !open.writer.create(body, name) {
                open.full = true;
                return;
            }
            self.creations.pop_front();
        }
    }

    fn fill_appends(&mut self, body: &mut [u8], id: ValueId) {
        let open = self.open.as_mut().expect("called with an open packet");
        while let Some(append) = self.waiting.front_mut() {
            let mut count = 0;
            if append.ends.is_empty() {
                if !open.writer.register(body) {
                    open.full = true;
                    return;
                }
                count = 1;
            }
            if append.stamp.is_some() {
                open.writer.end_run();
            }
            while (append.taken as usize) < append.ends.len() {
                let stamp = append.stamp.map(|first| first.after(append.taken));
                if !open.writer.push_as(body, append.topic, stamp, record_of(append)) {
                    mark!(RequestTakesTwoPackets);
                    open.full = true;
                    break;
                }
                append.taken += 1;
                count += 1;
            }
            open.records += count;
            let last = append.taken as usize == append.ends.len();
            if count > 0 {
                self.spans.push_back(Span { id, count, last });
            }
            if !last {
                return;
            }
            let append = self.waiting.pop_front().expect("the front");
            self.underway.push_back(append);
        }
    }

    fn fill_from_source(&mut self, body: &mut [u8]) {
        let open = self.open.as_mut().expect("called with an open packet");
        let Some(source) = self.source.as_mut() else { return };
        if open.full || !self.waiting.is_empty() {
            return;
        }
        let mut filling = Filling { body, writer: &mut open.writer, records: 0 };
        let supply = source.fill(&mut filling);
        open.records += filling.records;
        match supply {
            Supply::More => open.full = true,
            Supply::Idle => {}
            Supply::Exhausted => self.source = None,
        }
    }

    /// Seals the open packet as the value `id`.
    pub fn seal(
        &mut self,
        pool: &mut OwnPool,
        id: ValueId,
        sender: &Sender,
        memory: Memory<'_>,
    ) -> Sealed {
        let open = self.open.take().expect("filled before");
        let length = open.writer.bytes();
        let size = round_up(HEADER_BYTES + length, self.limits.block) as u32;
        let behind = pool.take(open.peeked, size);
        let range = Range { offset: open.peeked.offset, bytes: size };
        let header = sender.header(Kind::Value, size, length as u32);
        let header = Header { session: id.session, sequence: id.sequence, ..header };
        memory(range, &mut |frame| {
            frame[HEADER_BYTES + length..].fill(0);
            header.seal(frame);
        });
        let (since_us, records) = (open.since_us, open.records);
        self.sent.push_back(Sent { bytes: size, instance: None, since_us, records });
        self.sent_bytes += u64::from(size);
        Sealed { range, behind }
    }

    /// The oldest own packet that was not delivered is delivered now: since when it was under way
    /// and how many records it holds.
    pub fn delivered(&mut self, instance: Instance) -> Option<(u64, u32)> {
        let sent = self.sent.iter_mut().find(|sent| sent.instance.is_none())?;
        sent.instance = Some(instance);
        Some((sent.since_us, sent.records))
    }

    /// `count` records of the own value `id` got these offsets, or none; notes it in the requests
    /// they belong to. A producer's run is all of one request.
    pub fn number(&mut self, id: ValueId, count: u32, offsets: Result<(u64, u64), Fence>) {
        let mut left = count;
        while left > 0 {
            let noted = self.note(id, left, |append, taken| match offsets {
                Ok((first, last)) => {
                    let first = first + u64::from(count - left);
                    left -= taken;
                    append
                        .number(first, if left == 0 { last } else { first + u64::from(taken) - 1 });
                }
                Err(fence) => {
                    left -= taken;
                    append.fence.get_or_insert(fence);
                }
            });
            if !noted {
                return;
            }
        }
    }

    /// A registration in the own value `id` gave this id.
    pub fn registered(&mut self, id: ValueId, producer: u64) {
        self.note(id, 1, |append, _| append.producer = Some(producer));
    }

    /// Notes something in the request whose records come next in the own value `id`, at most
    /// `most` of them; false if none of that value is left.
    fn note(&mut self, id: ValueId, most: u32, note: impl FnOnce(&mut Append, u32)) -> bool {
        let Some(span) = self.spans.front_mut().filter(|span| span.id == id) else { return false };
        let taken = span.count.min(most);
        let (last, over) = (span.last, taken == span.count);
        span.count -= taken;
        let append = match self.underway.iter_mut().find(|append| !append.finished) {
            Some(append) => append,
            None => self.waiting.front_mut().expect("its other records wait"),
        };
        note(append, taken);
        append.finished = last && over;
        if over {
            self.spans.pop_front();
        }
        true
    }

    /// The next request whose records are all delivered.
    pub fn answered(&mut self) -> Option<Box<Append>> {
        if !self.underway.front()?.finished {
            return None;
        }
        self.underway.pop_front()
    }

    /// Every node has delivered to here: own packets below give their part of the window back.
    pub fn settled(&mut self, everywhere: Instance) {
        while let Some(sent) = self.sent.front() {
            if sent.instance.is_none_or(|instance| instance >= everywhere) {
                break;
            }
            self.sent_bytes -= u64::from(sent.bytes);
            self.sent.pop_front();
        }
    }

    /// The oldest `own` of the packets under way were delivered below a state that came: which
    /// offsets their records got was not seen. What was in packets is handed to `unknown`.
    pub fn passed(&mut self, own: u64, position: Instance, mut unknown: impl FnMut(Box<Append>)) {
        let undelivered = self.sent.iter_mut().filter(|sent| sent.instance.is_none());
        undelivered.take(own as usize).for_each(|sent| sent.instance = Some(position));
        // What is in it is of requests that are told nothing more.
        self.open = None;
        self.spans.clear();
        self.underway.drain(..).for_each(&mut unknown);
        if self.waiting.front().is_some_and(|append| append.taken > 0) {
            unknown(self.waiting.pop_front().expect("just seen"));
        }
    }

    /// The own session was closed: nothing under way will be delivered. What was in packets is
    /// handed to `unknown`.
    pub fn session_closed(&mut self, mut unknown: impl FnMut(Box<Append>)) {
        self.open = None;
        self.sent.clear();
        self.sent_bytes = 0;
        self.spans.clear();
        self.underway.drain(..).for_each(&mut unknown);
        if self.waiting.front().is_some_and(|append| append.taken > 0) {
            unknown(self.waiting.pop_front().expect("just seen"));
        }
    }
}

/// The next record of a request that is not in a packet.
fn record_of(append: &Append) -> &[u8] {
    let at = append.taken as usize;
    let start = if at == 0 { 0 } else { append.ends[at - 1] as usize };
    append.ends.get(at).map_or(&[], |end| &append.body[start..*end as usize])
}
