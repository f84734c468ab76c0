//! What a node's shard and its control thread say to each other.
//!
//! Two bounded mailboxes: commands go to the shard, notices come back. Invariants: whoever sends
//! owns the memory of what is sent until it is received, and a request's buffers come back with
//! its answer, so that the shard neither allocates nor frees them. A full mailbox is
//! back-pressure: the control thread waits with a command, the shard holds back deliveries.

use crate::groups::Groups;
use crate::groups::producers::Fence;
use crate::records::Stamp;
use crate::shard::checks::Check;
use crate::source::Source;
use bytes::Bytes;
use chainring_net::hello::{Purpose as LinkKind, Resume};
use chainring_ring::configuration::{self, Configuration, Step};
use chainring_ring::ids::{Claim, Instance, NodeId, Order, Sequence, Session, ValueId};
use chainring_ring::sequences::Sequences;
use chainring_storage::Start;
use std::os::fd::OwnedFd;

/// Id of a topic: its creation entry's place among all creation entries of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u32);

/// Place of a value frame in the node's log. On disk: `segment << 32 | byte offset`. In the
/// memory log: logical byte position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Where the frame begins.
    pub at: u64,
    /// Bytes of the frame, padding included; 0 for an entry without a value.
    pub bytes: u32,
}

/// Records that a client wants appended, in order, to one topic.
#[derive(Debug)]
pub struct Append {
    /// The control thread's name for the request.
    pub token: u64,
    /// Where to.
    pub topic: TopicId,
    /// All records, one after another.
    pub body: Bytes,
    /// Ends of the records in `body` (exclusive), rising; at least one. Without any it asks for
    /// the id of a new producer.
    pub ends: Vec<u32>,
    /// Of the first record, if they are a producer's.
    pub stamp: Option<Stamp>,
    /// Records put into packets so far; the shard's own note.
    pub taken: u32,
    /// Offset of the first record; set at delivery.
    pub first_offset: Option<u64>,
    /// Offset of the last record; set at delivery.
    pub last_offset: u64,
    /// The id of a new producer; set at delivery.
    pub producer: Option<u64>,
    /// Why records of a producer got no offsets; set at delivery.
    pub fence: Option<Fence>,
    /// All records are delivered; the shard's own note.
    pub finished: bool,
}

impl Append {
    /// A request as it goes to the shard.
    pub fn new(token: u64, topic: TopicId, body: Bytes, ends: Vec<u32>) -> Append {
        Append {
            token,
            topic,
            body,
            ends,
            stamp: None,
            taken: 0,
            first_offset: None,
            last_offset: 0,
            producer: None,
            fence: None,
            finished: false,
        }
    }

    /// A request for the id of a new producer.
    pub fn registration(token: u64) -> Append {
        Append::new(token, TopicId(0), Bytes::new(), Vec::new())
    }

    /// The same with the stamp of its first record.
    #[must_use]
    pub fn stamped(self, stamp: Option<Stamp>) -> Append {
        Append { stamp, ..self }
    }

    /// The next records got offsets from `first` to `last`.
    pub fn number(&mut self, first: u64, last: u64) {
        self.first_offset.get_or_insert(first);
        self.last_offset = last;
    }
}

/// A change of the members that somebody asks for; what the shard says of it is filled in there.
#[derive(Debug)]
pub struct Change {
    /// The control thread's name for the request.
    pub token: u64,
    /// What is to change; `None` only asks who the members are.
    pub step: Option<Step>,
    /// Only say what would come of it.
    pub dry: bool,
    /// The members at the position delivered.
    pub now: Configuration,
    /// What there is after the change; nothing without a step.
    pub after: Option<Result<Configuration, configuration::Refusal>>,
    /// Who coordinates, as far as this node knows; 0 if it knows nobody.
    pub coordinator: NodeId,
}

impl Change {
    /// A request as it goes to the shard.
    pub fn new(token: u64, step: Option<Step>, dry: bool) -> Change {
        let now = Configuration::default();
        Change { token, step, dry, now, after: None, coordinator: NodeId(0) }
    }
}

/// What a state is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What is known to be decided, exactly as far as was delivered.
    pub claim: Claim,
    /// From where the log is replayed by whoever has the state.
    pub start: Start,
}

/// Where a log begins, and its newest checkpoint. Positions and numbers never fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Position and checksum of the newest checkpoint.
    pub checkpoint: (Instance, u128),
    /// Position of the oldest one; 0 for a log that is whole.
    pub base: Instance,
    /// Lowest segment that is needed from there on.
    pub first_segment: u32,
}

/// A peer's state, to go on from.
#[derive(Debug)]
pub struct Arrival {
    /// Under which ballot the peer knows it, and its position.
    pub claim: Claim,
    /// Which occurrence of a value counts.
    pub table: Sequences,
    /// Who votes.
    pub configuration: Configuration,
    /// Offsets and producers.
    pub groups: Groups,
    /// Names of the topics and their next offsets.
    pub topics: Vec<(Box<str>, u64)>,
    /// Checksum of the checkpoint, and the lowest segment that is needed behind it; none in memory
    /// durability.
    pub checkpoint: Option<(u128, u32)>,
}

/// Control thread to shard. `H` is an open connection or file.
#[derive(Debug)]
pub enum Command<H = OwnedFd> {
    /// Append records; answered by [`Notice::Appended`] or [`Notice::Refused`].
    Append(Box<Append>),
    /// Propose a topic. No answer but the [`Notice::Topic`] that its delivery brings.
    CreateTopic {
        /// 1 to 249 bytes.
        name: Box<str>,
    },
    /// A peer wants to open an incoming link: drop the present one of this kind, then say with
    /// [`Notice::Resume`] from where on the peer is to send.
    PrepareIncoming {
        /// [`LinkKind::Data`] or [`LinkKind::Control`].
        kind: LinkKind,
        /// Comes back with the answer.
        token: u64,
    },
    /// An incoming link's handshake is done; answers [`Notice::Resume`].
    Incoming {
        /// [`LinkKind::Data`] or [`LinkKind::Control`].
        kind: LinkKind,
        /// The predecessor.
        from: NodeId,
        /// The connection.
        handle: H,
    },
    /// An outgoing link's handshake is done.
    Outgoing {
        /// [`LinkKind::Data`] or [`LinkKind::Control`].
        kind: LinkKind,
        /// The successor.
        to: NodeId,
        /// The connection.
        handle: H,
        /// From where on the successor wants values or orders.
        resume: Resume,
    },
    /// A verified frame of kind Prepare, Promise or Reject from a peer.
    Direct {
        /// Who sent it.
        from: NodeId,
        /// Header and body.
        frame: Vec<u8>,
    },
    /// Decided entries that a peer sent, contiguous; bodies verified.
    Entries {
        /// What the peer holds decided. Each order carries the ballot that counts for it itself.
        claim: Claim,
        /// The entries, in order of instance.
        orders: Vec<Order>,
        /// Their values' frames one after another, in order of first use; a value that counts
        /// as nothing (a later occurrence) may be absent.
        frames: Vec<u8>,
    },
    /// A value frame that a peer sent; verified.
    Value {
        /// Header, body, padding.
        frame: Vec<u8>,
    },
    /// No peer holds a value that was asked for. The core asks again by itself while it needs it.
    NotHeld {
        /// Which.
        id: ValueId,
    },
    /// Copy a frame of the memory log into `buffer`; answers [`Notice::Read`].
    ReadMemory {
        /// Comes back with the answer.
        token: u64,
        /// From where.
        place: Place,
        /// Has capacity for the frame.
        buffer: Vec<u8>,
    },
    /// Copy an undelivered value that the node holds into `buffer`; answers [`Notice::Read`].
    ReadHeld {
        /// Comes back with the answer.
        token: u64,
        /// Which.
        id: ValueId,
        /// Has capacity for the largest frame.
        buffer: Vec<u8>,
    },
    /// Write the state into `buffer`; answers [`Notice::State`] when the log holds, durably, what
    /// came to it.
    TakeState {
        /// Comes back with the answer.
        token: u64,
        /// Empty.
        buffer: Vec<u8>,
    },
    /// Note in the superblock where the log begins, and its newest checkpoint, which is durable;
    /// answers [`Notice::Noted`].
    Note {
        /// Comes back with the answer.
        token: u64,
        /// What to note.
        note: Note,
    },
    /// Go on from a peer's state, which is durable here; answers [`Notice::Arrived`].
    Arrive {
        /// Comes back with the answer.
        token: u64,
        /// It.
        arrival: Box<Arrival>,
    },
    /// Order that everything below may be let go, if this node is the coordinator.
    Trim {
        /// First instance to be kept.
        position: Instance,
        /// Who holds a checkpoint there, or above: a bit a node, node 1 the lowest.
        held: u8,
    },
    /// A zero-written segment of this number is ready for the log.
    Segment {
        /// Number of the segment.
        number: u32,
        /// The open file.
        handle: H,
    },
    /// No further segment can be had: the disk is full or the log is at its limit.
    NoSegment,
    /// Take records from this source beside those of clients.
    Load(Box<dyn Source>),
    /// A connection to this peer broke: a hint that it may be gone.
    Hint {
        /// Which peer.
        node: NodeId,
    },
    /// Open a ballot.
    Campaign,
    /// Change the members, or tell who they are; answers [`Notice::Changed`].
    Change(Box<Change>),
    /// Take no new records; answer [`Notice::Drained`] when all own ones are delivered and, in
    /// durable modes, the log is sealed.
    Drain,
    /// Write the clean-stop mark if drained, then end the thread.
    Stop,
}

/// Why records were refused. Nothing of them was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node is stopping.
    Draining,
    /// No room in the log.
    LogFull,
    /// The ring halted for good; `status` names the reason.
    Halted,
    /// Too many requests are open.
    Busy,
    /// This node is no member any more.
    Removed,
}

/// Shard to control thread.
#[derive(Debug)]
pub enum Notice {
    /// All records of the request are delivered here, at the offsets set in it; or, of a
    /// producer's, its `fence` says why not all of them got any.
    Appended(Box<Append>),
    /// Nothing of the request was appended.
    Refused(Box<Append>, Refusal),
    /// The records may or may not come out: this node's session was closed under them.
    Unknown(Box<Append>),
    /// Delivered, in order of instance; followed by the [`Notice::Run`]s and [`Notice::Topic`]s
    /// of its value.
    Instance {
        /// The entry, as accepted here.
        order: Order,
        /// Its value's frame, if it is a value and the first occurrence.
        place: Place,
    },
    /// A run of records of the instance before.
    Run {
        /// Whose.
        topic: TopicId,
        /// Offset of its first record.
        first_offset: u64,
        /// Records.
        count: u32,
        /// Records of the run in front of them, which were in the log before.
        skip: u32,
        /// Byte offset of the run's header in the value's frame.
        at: u32,
    },
    /// A topic of the instance before came into being.
    Topic {
        /// Its id.
        id: TopicId,
        /// Its name.
        name: Box<str>,
    },
    /// Everything in the memory log below this position is dropped.
    MemoryFirst {
        /// Logical byte position.
        at: u64,
    },
    /// Answers [`Command::PrepareIncoming`].
    Resume {
        /// Of the command.
        token: u64,
        /// From where on the peer is to send.
        resume: Resume,
    },
    /// A link broke; if it is an outgoing one, dial again.
    LinkDown {
        /// [`LinkKind::Data`] or [`LinkKind::Control`].
        kind: LinkKind,
        /// True for a link to the successor.
        outgoing: bool,
    },
    /// The circle has changed: these are the neighbours now. Links to others are down.
    Neighbours {
        /// Who sends to this node.
        predecessor: Option<NodeId>,
        /// Whom this node sends to.
        successor: Option<NodeId>,
    },
    /// Send this frame to a peer. If it cannot be sent soon, drop it.
    Direct {
        /// To whom.
        to: NodeId,
        /// Header and body.
        frame: Vec<u8>,
    },
    /// Tell all peers how this node's digest stands.
    Check(Check),
    /// Find this value at any peer.
    FetchValue {
        /// Which.
        id: ValueId,
    },
    /// Find the decided entries from here on at any peer and send them as
    /// [`Command::Entries`], until told otherwise.
    CatchUp {
        /// First one missing here.
        from: Instance,
    },
    /// Answers [`Command::ReadMemory`] and [`Command::ReadHeld`].
    Read {
        /// Of the command.
        token: u64,
        /// Of the command, filled if found.
        buffer: Vec<u8>,
        /// False if the frame is not there (any more).
        found: bool,
    },
    /// Answers [`Command::TakeState`].
    State {
        /// Of the command.
        token: u64,
        /// What the buffer holds the state of; of an empty one what it has to hold.
        taken: Result<Taken, usize>,
        /// Of the command.
        buffer: Vec<u8>,
    },
    /// Answers [`Command::Note`].
    Noted {
        /// Of the command.
        token: u64,
    },
    /// Answers [`Command::Arrive`]; what follows is delivered behind that state.
    Arrived {
        /// Of the command.
        token: u64,
        /// Of the command.
        arrival: Box<Arrival>,
        /// False if the node was as far already: nothing has changed.
        done: bool,
    },
    /// The log needs another segment of this number.
    NeedSegment {
        /// Number of the segment.
        number: u32,
    },
    /// Answers [`Command::Change`].
    Changed(Box<Change>),
    /// The node's own session was closed and it took this one.
    Session(Session),
    /// Answers [`Command::Drain`].
    Drained,
}

impl Notice {
    /// The token of the command that it answers, of those that concern the state.
    pub fn state_token(&self) -> Option<u64> {
        match self {
            Notice::State { token, .. }
            | Notice::Noted { token }
            | Notice::Arrived { token, .. } => Some(*token),
            _ => None,
        }
    }
}

/// What a data link's resume names for one origin.
pub type Held = (NodeId, Session, Sequence);
