//! Frames as they leave: orders, votes and claims, 1A and 1B, values: A2, A6, A7, A8, D3.

use super::Observer;
use super::invariant::Invariant::{A2, A3, A6, A7, A8, D3};
use crate::shard::direct;
use chainring_ring::actions::{Input, PromiseFrom};
use chainring_ring::codec::{CLAIM_BYTES, ORDER_BYTES, VOTE_BYTES, claim_at, order_at, vote_at};
use chainring_ring::core::Core;
use chainring_ring::header::{HEADER_BYTES, Header, Kind};
use chainring_ring::ids::{Ballot, Claim, Durability, Instance, NodeId, Order};
use chainring_ring::votes::Vote;

impl Observer {
    /// A control frame (orders, or votes and claim) leaves.
    pub fn control_frame(&mut self, from: NodeId, header: &Header, body: &[u8]) {
        if self.is_over(from) {
            return;
        }
        match header.kind {
            Kind::Orders => {
                for bytes in body.chunks_exact(ORDER_BYTES) {
                    match order_at(bytes) {
                        Ok(order) => self.order_leaves(from, header, &order),
                        Err(error) => self.verdict.fail(A3, from, || format!("order: {error}")),
                    }
                }
            }
            Kind::Votes => {
                let Ok(claim) = claim_at(body) else {
                    return self.verdict.fail(A7, from, || "no claim in a vote frame".to_owned());
                };
                self.claim_leaves(from, &claim);
                for bytes in body[CLAIM_BYTES..].chunks_exact(VOTE_BYTES) {
                    match vote_at(bytes) {
                        Ok(vote) => self.vote_leaves(from, &vote),
                        Err(error) => self.verdict.fail(A7, from, || format!("vote: {error}")),
                    }
                }
            }
            _ => {}
        }
    }

    fn order_leaves(&mut self, from: NodeId, header: &Header, order: &Order) {
        let same = order.ballot == header.ballot;
        self.verdict.check(A3, from, same, || format!("{order:?} under {:?}", header.ballot));
        self.history.order(&mut self.verdict, from, order, None);
    }

    fn claim_leaves(&mut self, from: NodeId, claim: &Claim) {
        let chosen_to = self.history.chosen_to;
        self.verdict.check(A6, from, claim.position <= chosen_to, || {
            format!("sends {claim:?}, but {chosen_to:?} is decided")
        });
    }

    fn vote_leaves(&mut self, from: NodeId, vote: &Vote) {
        if vote.node == from {
            self.shows(from, vote.ballot);
        }
        let of = self.nodes.get(usize::from(vote.node.0));
        let true_one = of.is_some_and(|node| node.has_published(vote));
        self.verdict.check(A7, from, true_one, || format!("passes on {vote:?}, nobody's"));
    }

    /// Something that rests on the promise leaves the node.
    fn shows(&mut self, node: NodeId, ballot: Ballot) {
        let volatile = self.setup.durability == Durability::Memory;
        let state = &mut self.nodes[usize::from(node.0)];
        let promised = if volatile { state.promised } else { state.stable_promised };
        state.shown = state.shown.max(ballot);
        let what = || format!("shows {ballot:?}, durably promised is {promised:?}");
        self.verdict.check(A2, node, ballot <= promised, what);
    }

    /// A direct frame (1A, 1B, reject) leaves.
    pub fn direct_frame(&mut self, from: NodeId, to: NodeId, frame: &[u8]) {
        if self.is_over(from) {
            return;
        }
        let Ok(header) = Header::decode(frame, direct::DIRECT_MAX) else {
            return self.verdict.fail(A3, from, || format!("no frame leaves for {to:?}"));
        };
        let Some(body) = frame.get(HEADER_BYTES..HEADER_BYTES + header.length as usize) else {
            return self.verdict.fail(A3, from, || format!("half a frame leaves for {to:?}"));
        };
        match direct::input(&header, from, body) {
            Ok(Input::Prepare { ballot }) => {
                let state = &self.nodes[usize::from(from.0)];
                let own = ballot.node == from && ballot.incarnation == state.incarnation;
                self.verdict.check(A2, from, own, || format!("1A of another's {ballot:?}"));
                self.shows(from, ballot);
            }
            Ok(Input::Promise(promise)) => self.promise_leaves(from, &promise),
            Ok(Input::Present { vote, .. }) => self.vote_leaves(from, &vote),
            Ok(Input::Open { ballot, claim, .. }) => {
                self.shows(from, ballot);
                self.claim_leaves(from, &claim);
            }
            _ => {}
        }
    }

    /// 1B: it may leave, and it reports all that the node has.
    fn promise_leaves(&mut self, node: NodeId, promise: &PromiseFrom<'_>) {
        self.shows(node, promise.ballot);
        let state = &self.nodes[usize::from(node.0)];
        let (life, lives) = (promise.incarnation, state.incarnation);
        let named = self.history.governing.is_named(node, life) && life > state.forgotten;
        self.verdict.check(A8, node, named && life == lives, || {
            format!("1B of incarnation {}, lives {}, was it admitted? {named}", life.0, lives.0)
        });
        let chosen_to = self.history.chosen_to;
        let decided = promise.first.max(promise.delivered) <= chosen_to;
        self.verdict.check(A6, node, decided, || {
            format!("1B: {:?} {:?}, decided {chosen_to:?}", promise.first, promise.delivered)
        });
        let voted = state.voted_below(promise.ballot);
        let bounded = promise.before >= voted || promise.before == promise.ballot;
        self.verdict.check(D3, node, bounded, || {
            format!("1B: promised before {:?}, voted at {voted:?}", promise.before)
        });
        let mut reported = Vec::new();
        for bytes in promise.orders.chunks(ORDER_BYTES) {
            match order_at(bytes) {
                Ok(order) => reported.push(order),
                Err(error) => return self.verdict.fail(D3, node, || format!("1B: {error}")),
            }
        }
        for order in &reported {
            self.history.order(&mut self.verdict, node, order, None);
        }
        if !promise.damaged {
            self.reports_all(node, promise, &reported);
        }
    }

    /// A 1B is made: notes what it has to report, which is all that the node voted for and no
    /// higher ballot has overwritten, and what was chosen by its vote, even if its log lost it. It
    /// may leave later; asked again the node has no less.
    pub(super) fn answers(&mut self, node: NodeId, core: &Core, ballot: Ballot) {
        if self.nodes[usize::from(node.0)].answer.0 == ballot {
            return;
        }
        let mut due = std::mem::take(&mut self.nodes[usize::from(node.0)].answer.1);
        due.clear();
        let mended = self.nodes[usize::from(node.0)].mended;
        for index in core.window().first().0..self.history.cells.len() as u64 {
            let at = Instance(index);
            if index < core.delivered().0 {
                // Decided here: at which ballot it is reported does not matter.
                due.push((at, Ballot::ZERO));
            } else if let Some(cell) = self.history.cell(at) {
                let held = cell.held_by(node).filter(|held| held.ballot >= mended);
                // What it voted for below that may be lost: the ballot's barrier answers for it.
                let held = held.filter(|held| cell.is_voted(node, &held.entry, mended));
                let owed = cell.owed(node).map(|(_, ballot)| ballot);
                due.extend(held.map(|held| held.ballot).max(owed).map(|ballot| (at, ballot)));
            }
        }
        self.nodes[usize::from(node.0)].answer = (ballot, due);
    }

    /// What the node had when it was asked is in its answer.
    fn reports_all(&mut self, node: NodeId, promise: &PromiseFrom<'_>, reported: &[Order]) {
        let (ballot, due) = &self.nodes[usize::from(node.0)].answer;
        if *ballot != promise.ballot {
            return; // an older answer, overtaken
        }
        let decided = reported.iter().filter(|order| order.instance < promise.delivered);
        let mut reported = reported.iter().peekable();
        for (at, ballot) in due.iter().filter(|(at, _)| *at >= promise.first) {
            while reported.next_if(|order| order.instance < *at).is_some() {}
            let order = reported.peek().filter(|order| order.instance == *at);
            let right = order.is_some_and(|order| order.ballot >= *ballot);
            let what = || format!("1B without {at:?} at {ballot:?} or above: {order:?}");
            self.verdict.check(D3, node, right, what);
        }
        for order in decided {
            let entry = self.log.get(order.instance.0 as usize).map(|delivered| delivered.entry);
            let what = || format!("1B with {order:?}, delivered {entry:?}");
            self.verdict.check(D3, node, entry == Some(order.entry), what);
        }
    }

    /// A value frame leaves on the data link.
    pub fn value_frame(&mut self, from: NodeId, header: &Header) {
        if self.is_over(from) || header.kind != Kind::Value {
            return;
        }
        let (id, body) = (header.value_id(), header.checksum_body);
        let once = self.setup.fault_free;
        self.values.leaves(&mut self.verdict, from, (&id, body), once);
    }
}
