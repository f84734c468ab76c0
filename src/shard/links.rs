//! What goes to the successor on the control link: orders by a cursor, votes as a vector.
//!
//! Orders are sent out of the window, so that going on and resuming are one mechanism: a
//! reconnect sets the cursor, a new ballot sets it to the ballot's base. Invariants: orders leave
//! in order of instance, only those accepted at the ballot in force; at most one send per turn,
//! and votes wait while one is under way.
//!
//! ```text
//! Orders frame: header (ballot, first instance), orders 48 bytes each
//! Votes frame:  header (ballot, sequence = coordinator's newest sign of life),
//!               claim 24 bytes, votes 48 bytes each
//! ```

use crate::device::Port;
use crate::shard::direct::Sender;
use chainring_net::wire::LinkKind;
use chainring_ring::actions::Input;
use chainring_ring::codec::{
    CLAIM_BYTES, ORDER_BYTES, VOTE_BYTES, claim_at, order_at, put_claim, put_order, put_vote,
    vote_at,
};
use chainring_ring::core::Core;
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind};
use chainring_ring::ids::{Ballot, Instance, NODES_MAX, Sequence};
use chainring_ring::mark;

/// Orders of one frame.
const ORDERS_PER_FRAME: usize = 1024;
/// Largest control frame, bytes.
pub const CONTROL_MAX: u32 = (HEADER_BYTES + ORDERS_PER_FRAME * ORDER_BYTES) as u32;
/// After so long with nothing to relay although later orders are here, the cursor goes on: the
/// predecessor does not have them either.
const CURSOR_STUCK_US: u64 = 300_000;

/// The sending side of the control link.
#[derive(Debug, Default)]
pub struct ControlOut {
    ballot: Ballot,
    next: Instance,
    votes_due: bool,
    stuck_since: Option<u64>,
}

impl ControlOut {
    /// The link is up: the successor holds orders of `ballot` to `received`.
    pub fn resume(&mut self, core: &Core, ballot: Ballot, received: Instance) {
        self.ballot = core.promised();
        self.next = core.window().first();
        if ballot == self.ballot {
            mark!(ControlResumesInBallot);
            self.next = self.next.max(received);
        }
        self.votes_due = true;
        self.stuck_since = None;
    }

    /// The vector or the claim changed.
    pub fn votes_changed(&mut self) {
        self.votes_due = true;
    }

    /// Queues what is to be sent now.
    pub fn flush<P: Port>(&mut self, core: &Core, sender: &Sender, port: &mut P, now_us: u64) {
        if !port.attached(LinkKind::ControlOut) {
            return;
        }
        while self.send_orders(core, sender, port, now_us) {}
        if self.votes_due && port.control_waiting() == 0 {
            let sent = port.control(&mut |out| votes_frame(core, sender, out));
            self.votes_due = sent.is_err();
        }
    }

    fn send_orders<P: Port>(
        &mut self,
        core: &Core,
        sender: &Sender,
        port: &mut P,
        now_us: u64,
    ) -> bool {
        let ballot = core.promised();
        if self.ballot != ballot {
            (self.ballot, self.next) = (ballot, core.window().first());
        }
        self.next = self.next.max(core.window().first());
        let Some(successor) = core.successor().filter(|node| *node != ballot.node) else {
            return false;
        };
        let delivered = core.votes().of(successor).map_or(Instance(0), |vote| vote.delivered);
        let end = Instance(delivered.0 + core.window().span());
        self.skip_unheld(core, now_us);
        let sendable = |at: Instance| at < end && core.window().holds_at(at, ballot);
        if !sendable(self.next) {
            return false;
        }
        let first = self.next;
        let mut next = first;
        let sent = port.control(&mut |out| {
            next = first;
            let room = (out.len().saturating_sub(HEADER_BYTES) / ORDER_BYTES).min(ORDERS_PER_FRAME);
            let mut length = 0;
            while length < room * ORDER_BYTES && sendable(next) {
                let slot = core.window().get(next).expect("sendable");
                put_order(&slot.order, &mut out[HEADER_BYTES + length..]);
                length += ORDER_BYTES;
                next = next.next();
            }
            if length == 0 {
                return 0;
            }
            let size = (HEADER_BYTES + length) as u32;
            let header = sender.header(Kind::Orders, size, length as u32);
            Header { ballot, instance: first, ..header }.seal(&mut out[..size as usize]);
            size as usize
        });
        self.next = if sent.is_ok() { next } else { first };
        sent.is_ok()
    }

    /// Orders below the ballot's base are of another ballot, and none come for them. Orders
    /// between base and delivered may still come; after a time they will not.
    fn skip_unheld(&mut self, core: &Core, now_us: u64) {
        let (window, ballot) = (core.window(), self.ballot);
        if window.holds_at(self.next, ballot) {
            self.stuck_since = None;
            return;
        }
        let later = (self.next.0 + 1..core.received().0.max(self.next.0 + 1))
            .find(|instance| window.holds_at(Instance(*instance), ballot))
            .and_then(|instance| window.get(Instance(instance)));
        let Some(later) = later else { return };
        let since = *self.stuck_since.get_or_insert(now_us);
        if self.next < later.order.base || now_us >= since + CURSOR_STUCK_US {
            match self.next < later.order.base {
                true => mark!(CursorSkipsToBase),
                false => mark!(CursorSkipsHole),
            }
            self.next = later.order.instance.min(later.order.base.max(self.next.next()));
        }
    }
}

fn votes_frame(core: &Core, sender: &Sender, out: &mut [u8]) -> usize {
    let most = HEADER_BYTES + CLAIM_BYTES + NODES_MAX * VOTE_BYTES;
    if out.len() < most {
        return 0;
    }
    put_claim(&core.claim(), &mut out[HEADER_BYTES..]);
    let mut length = CLAIM_BYTES;
    for vote in core.votes().iter() {
        put_vote(vote, &mut out[HEADER_BYTES + length..]);
        length += VOTE_BYTES;
    }
    let size = (HEADER_BYTES + length) as u32;
    let (ballot, beat) = core.newest_beat();
    let header = sender.header(Kind::Votes, size, length as u32);
    Header { ballot, sequence: Sequence(beat), ..header }.seal(&mut out[..size as usize]);
    size as usize
}

/// Takes a verified control frame apart into inputs.
///
/// # Errors
/// [`FrameError`] if the body is not what its kind demands; inputs before that stand.
pub fn inputs(
    header: &Header,
    body: &[u8],
    mut step: impl FnMut(Input<'_>),
) -> Result<(), FrameError> {
    match header.kind {
        Kind::Orders => {
            for bytes in body.chunks(ORDER_BYTES) {
                step(Input::Order(order_at(bytes)?));
            }
        }
        Kind::Votes => {
            let claim = claim_at(body)?;
            for bytes in body[CLAIM_BYTES..].chunks(VOTE_BYTES) {
                step(Input::Vote(vote_at(bytes)?));
            }
            step(Input::Claim(claim));
            step(Input::Beat { ballot: header.ballot, beat: header.sequence.0 });
        }
        _ => return Err(FrameError::Body),
    }
    Ok(())
}
