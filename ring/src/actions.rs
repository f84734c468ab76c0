//! What goes into the core and what comes out of it.
//!
//! [`Actions`] is bounded and owned by the caller. Invariant: a step that finds less than
//! [`STEP_ROOM`] left is not taken; loops inside a step stop before the room ends and go on at
//! the next [`Input::Continue`].

use crate::configuration::{Configuration, Step};
use crate::ids::{Ballot, Claim, Instance, NodeId, Order, Sequence, Session, ValueId};
use crate::layout::Layout;
use crate::sequences::Sequences;
use crate::votes::Vote;
use alloc::vec::Vec;

/// What happened to a node. Bytes stay outside: the core sees ids.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Ten milliseconds have passed.
    Tick,
    /// Nothing that others said was taken in since the last tick, for want of room: that is no
    /// silence of theirs. Comes before the tick.
    Deaf,
    /// More room for actions: go on with what the last step left.
    Continue,
    /// Open a ballot. Who is told, and when, is policy outside the safety code.
    Campaign,
    /// A whole, verified value packet lies in this node's memory: it came on the data link, was
    /// fetched, or was filled here. Answered first of all by [`Action::Keep`] or
    /// [`Action::Drop`].
    Value(ValueId),
    /// The same for a value that was asked for with [`Action::Fetch`].
    Fetched(ValueId),
    /// The predecessor does not hold what of this session lies below `to` and has not come.
    Missing {
        /// Whose values.
        origin: NodeId,
        /// Of which session.
        session: Session,
        /// Exclusive.
        to: Sequence,
    },
    /// An order from the predecessor on the control link.
    Order(Order),
    /// One vote of a vector, by any path.
    Vote(Vote),
    /// A decided claim, by any path.
    Claim(Claim),
    /// The sign of life of a ballot's coordinator, rising.
    Beat {
        /// Whose.
        ballot: Ballot,
        /// Counts up.
        beat: u64,
    },
    /// Everything up to this many [`Action::Keep`]s and [`Action::AppendOrder`]s is durable.
    Persisted(u64),
    /// The promise is durable in the superblock.
    Promised(Ballot),
    /// 1A.
    Prepare {
        /// The candidate's ballot.
        ballot: Ballot,
    },
    /// 1B.
    Promise(PromiseFrom<'a>),
    /// Somebody promised a higher ballot.
    Reject {
        /// That ballot.
        promised: Ballot,
    },
    /// A decided entry that a peer sent. If it is a value that counts, its packet lies in this
    /// node's memory already. Answered first of all by [`Action::Keep`] or [`Action::Drop`] if
    /// it is a value.
    Decided {
        /// The entry.
        order: Order,
        /// The ballot under whose quorum the peer knows it.
        ballot: Ballot,
    },
    /// A new session of this node is durable: it may be opened.
    Session(Session),
    /// The coordinator's word that its ballot is open.
    Open {
        /// Its ballot.
        ballot: Ballot,
        /// The circle of that ballot.
        layout: Layout,
        /// What the coordinator knows to be decided.
        claim: Claim,
        /// Where the barrier of its ballot is.
        barrier: Instance,
    },
    /// The own vote of a node that is outside the circle, or does not know it; or the answer.
    Present {
        /// Its vote.
        vote: Vote,
        /// Whom it hears, a bit a node, node 1 the lowest.
        hears: u8,
        /// It asks for the same, to see who hears it.
        asks: bool,
        /// Part of its log is damaged: it needs the barrier of another ballot.
        damaged: bool,
    },
    /// A node of the circle misses its predecessor.
    Missed {
        /// Who misses.
        from: NodeId,
        /// The ballot of that circle.
        ballot: Ballot,
        /// Whom.
        node: NodeId,
    },
    /// A node has lost the coordinator of this ballot and asks whether others have.
    Ask {
        /// Who asks.
        from: NodeId,
        /// What it has promised.
        ballot: Ballot,
    },
    /// Yes: the answer to [`Input::Ask`].
    Lost {
        /// Who has lost it too.
        from: NodeId,
        /// The ballot of the question.
        ballot: Ballot,
    },
    /// A connection to this node broke, or it refuses one.
    Hint(NodeId),
    /// Order that everything below may be let go; only a coordinator heeds it.
    Trim {
        /// First instance to be kept.
        position: Instance,
        /// Who holds the state there, or later, durably: a bit a node, node 1 the lowest.
        held: u8,
    },
    /// The state at the position of `claim` lies here, durably, in place of what is delivered;
    /// `table` is the part of it that the core keeps.
    Jump {
        /// The ballot under which the peer knows the position, and it.
        claim: Claim,
        /// The table there.
        table: &'a Sequences,
        /// Who votes there.
        configuration: &'a Configuration,
    },
    /// Somebody asks for this change. One that [`Core::judge`](crate::core::Core::judge) would
    /// refuse is none.
    Change(Step),
}

/// The answer to a [`Input::Prepare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromiseFrom<'a> {
    /// The acceptor: node and incarnation.
    pub from: NodeId,
    /// Its incarnation.
    pub incarnation: crate::ids::Incarnation,
    /// The ballot that is promised.
    pub ballot: Ballot,
    /// What was promised before.
    pub before: Ballot,
    /// Part of the log that could hold orders or values is damaged: what is not listed is
    /// unknown instead of never had.
    pub damaged: bool,
    /// First instance that it still answers for; everything below is decided.
    pub first: Instance,
    /// Position up to which it has delivered.
    pub delivered: Instance,
    /// Orders held with their values, encoded one after another by [`crate::codec::put_order`].
    pub orders: &'a [u8],
}

/// What the node has to do, and what must be true before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hold this packet until it is delivered and write it to the log; if `forward`, pass it on
    /// at once: dissemination, never a vote. Takes the next log ticket.
    Keep {
        /// Which packet.
        id: ValueId,
        /// True if the successor is to get it.
        forward: bool,
    },
    /// This packet is not needed.
    Drop(ValueId),
    /// Put the order into the log. Takes the next log ticket.
    AppendOrder(Order),
    /// Make the promise durable in the superblock, then answer [`Input::Promised`].
    WritePromise(Ballot),
    /// Deliver the entry; all before it were delivered.
    Deliver {
        /// The entry.
        order: Order,
        /// True if it is a value that counts; its packet is held.
        counts: bool,
    },
    /// Values of these sessions that were not delivered will never be: free them.
    Free {
        /// Whose.
        origin: NodeId,
        /// Sessions lower than this.
        below: Session,
    },
    /// Send 1A of the own ballot, which is durable.
    Prepare {
        /// To whom.
        to: NodeId,
    },
    /// Send 1B for `ballot`: the promise and all that is listed are durable. To oneself too.
    Answer {
        /// To whom.
        to: NodeId,
        /// Its ballot.
        ballot: Ballot,
    },
    /// Tell what was promised.
    Reject {
        /// To whom.
        to: NodeId,
        /// The promise.
        promised: Ballot,
    },
    /// Tell that the own ballot is open: its layout, and the claim.
    Open {
        /// To whom.
        to: NodeId,
    },
    /// Send the own vote, and whom this node hears.
    Present {
        /// To whom.
        to: NodeId,
        /// Whether it is to answer.
        asks: bool,
    },
    /// Tell the coordinator that the predecessor is missed.
    Missed {
        /// To whom.
        to: NodeId,
        /// Who is missed.
        node: NodeId,
    },
    /// Ask whether the coordinator of the ballot promised is lost.
    Ask {
        /// To whom.
        to: NodeId,
    },
    /// Answer that it is.
    Lost {
        /// To whom.
        to: NodeId,
        /// The ballot of the question.
        ballot: Ballot,
    },
    /// The circle has changed: take down links to who is no neighbour any more, and have those to
    /// the new ones made.
    Relink,
    /// A value is needed that did not come: fetch it from any peer.
    Fetch(ValueId),
    /// Decided entries are needed that no link brings: fetch them from any peer.
    CatchUp {
        /// From here on.
        from: Instance,
    },
    /// Tell the successor that values will not come.
    Declare {
        /// Whose values.
        origin: NodeId,
        /// Of which session.
        session: Session,
        /// Exclusive.
        to: Sequence,
    },
    /// The incoming data link lost something: close it, so that it resumes.
    ResetData,
    /// The incoming control link lost something: close it, so that it resumes.
    ResetControl,
    /// Values may never have reached the successor: close the outgoing data link, so that it
    /// resumes.
    Resend,
    /// All that the log had lost is there again, durably: note it in the superblock.
    Mended,
    /// The own session was closed: make a higher start number durable, then answer
    /// [`Input::Session`].
    NewSession,
}

/// Most actions that wait for the caller.
pub const ACTIONS_MAX: usize = 1024;
/// Room that a step needs at its start.
pub const STEP_ROOM: usize = 128;

/// A bounded list of actions.
#[derive(Debug)]
pub struct Actions {
    list: Vec<Action>,
}

impl Actions {
    /// An empty list with all its memory.
    pub fn new() -> Actions {
        Actions { list: Vec::with_capacity(ACTIONS_MAX) }
    }

    /// Room left.
    pub fn room(&self) -> usize {
        ACTIONS_MAX - self.list.len()
    }

    /// Adds an action.
    ///
    /// # Panics
    /// If there is no room: a broken invariant of the core.
    pub fn push(&mut self, action: Action) {
        assert!(self.room() > 0);
        self.list.push(action);
    }

    /// The actions so far, in the order in which they are to be carried out.
    pub fn as_slice(&self) -> &[Action] {
        &self.list
    }

    /// Empties the list.
    pub fn clear(&mut self) {
        self.list.clear();
    }
}

impl Default for Actions {
    fn default() -> Actions {
        Actions::new()
    }
}
