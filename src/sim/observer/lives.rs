//! Lives and stable media: what a node must still know when it comes back: A2, A8, D3, D4.

use super::invariant::Invariant::{A2, A3, A6, A8, B2, B4, D1, D3, D4, D5, L2};
use super::node::{Group, Node, Written};
use super::{Observer, Stopped};
use chainring_ring::core::Core;
use chainring_ring::ids::{Ballot, Durability, Entry, Instance, NodeId, Order, Sequence, ValueId};
use chainring_storage::{Damage, DamageState, Superblock};

impl Observer {
    /// Recovery is over. `settled` if all that it read, and wrote, is on stable media: what it
    /// found may be spoken of from now on.
    pub fn recovered(&mut self, node: NodeId, settled: bool) {
        if !self.is_over(node) {
            self.verdict.check(D1, node, settled, || "what it recovered is volatile".to_owned());
        }
    }

    /// A new life begins: after recovery, before the first step. `superblock` as it is on stable
    /// media; `next_group` is the number of the first group that this life will write
    /// (`LogWriter::durable() + 1`; anything in memory durability).
    /// `whole` if it walked over the whole log.
    pub fn started(
        &mut self,
        node: NodeId,
        core: &Core,
        superblock: &Superblock,
        (next_group, whole): (u64, bool),
    ) {
        if self.is_over(node) {
            return;
        }
        let state = &mut self.nodes[usize::from(node.0)];
        let incarnation = core.settings().incarnation;
        let verdict = &mut self.verdict;
        verdict.check(A8, node, incarnation > state.forgotten, || {
            format!("starts as incarnation {}, which is forgotten", incarnation.0)
        });
        verdict.check(A8, node, incarnation == superblock.incarnation, || {
            format!("starts as incarnation {}, not {}", incarnation.0, superblock.incarnation.0)
        });
        if incarnation != state.incarnation {
            (state.shown, state.stable_promised) = (Ballot::ZERO, Ballot::ZERO);
            state.mended = Ballot::ZERO;
            self.history.lives(node, incarnation);
        }
        let misread = std::mem::take(&mut state.misread);
        let honest = !core.is_damaged() || state.harmed || misread;
        let what = || format!("starts damaged on a whole disk: {:?}", superblock.damage);
        verdict.check(D3, node, honest, what);
        // A recovery that reads all: what it takes for whole is whole.
        // But for holes that peers filled: from an older checkpoint on they are unknown again.
        let filled = |damage: &Damage| damage.state == DamageState::Repaired;
        state.harmed &= core.is_damaged() || !whole || superblock.damage.iter().any(filled);
        verdict.check(A2, node, core.promised() >= state.shown, || {
            format!("promise {:?} forgotten, is {:?}", state.shown, core.promised())
        });
        state.alive = true;
        state.life += 1;
        state.incarnation = incarnation;
        state.failed = false;
        state.promised = core.promised();
        state.neighbours = [core.predecessor(), core.successor()];
        (state.vote, state.noticed) = (Default::default(), core.delivered());
        (state.delivered, state.settled) = (core.delivered(), core.delivered());
        state.claimed = core.delivered();
        state.ends.clear();
        state.answer.0 = Ballot::ZERO;
        state.next_group = next_group;
        self.wrote_superblock(node, superblock);
        self.replayed(node, core);
        self.found(node, core);
        self.own_vote(node, core, core.promised(), &[]);
        self.own_settled(node, core);
    }

    /// A node started on what is another's: it would speak with that one's votes.
    pub fn started_as_another(&mut self, node: NodeId) {
        if !self.is_over(node) {
            self.verdict.fail(A8, node, || "starts on what is another node's".to_owned());
        }
    }

    /// An entry below the position that recovery came to is what all deliver.
    pub fn replayed_as(&mut self, node: NodeId, order: &Order) {
        if self.is_over(node) {
            return;
        }
        let all = self.log.get(order.instance.0 as usize).map(|delivered| delivered.entry);
        let same = all == Some(order.entry);
        self.verdict.check(B2, node, same, || format!("{order:?} again, others {all:?}"));
    }

    /// What was delivered from the log is a prefix of what all deliver.
    fn replayed(&mut self, node: NodeId, core: &Core) {
        let Observer { nodes, log, verdict, .. } = self;
        let state = &mut nodes[usize::from(node.0)];
        let delivered = core.delivered();
        let known = delivered.0 as usize <= log.len();
        verdict.check(A6, node, known, || format!("recovers {delivered:?}, beyond all that is"));
        state.counting = Default::default();
        for entry in log.iter().take(delivered.0 as usize) {
            state.counting.apply(&entry.entry);
        }
        state.counting.judge(verdict, node, core);
    }

    /// What the log gave back is what it was given, and nothing of it is missing.
    fn found(&mut self, node: NodeId, core: &Core) {
        let state = &mut self.nodes[usize::from(node.0)];
        let lied = std::mem::take(&mut state.lied);
        let excused = core.is_damaged() || lied == Some(0);
        let (delivered, mended) = (core.delivered(), state.mended);
        if !excused {
            for index in delivered.0 as usize..self.history.cells.len() {
                let cell = &self.history.cells[index];
                let kept = cell.held_by(node);
                let kept = kept.filter(|kept| cell.is_voted(node, &kept.entry, mended));
                let kept = kept.map(|kept| (kept.entry, kept.ballot));
                let at = Instance(index as u64);
                let slot = core.window().get(at);
                for (entry, ballot) in [kept, cell.owed(node)].into_iter().flatten() {
                    // A higher ballot may have taken the place of the order, not of the value.
                    let order = slot.is_some_and(|slot| slot.order.ballot >= ballot);
                    let value = !self.is_had(node, &entry) || has(core, &entry);
                    self.verdict.check(D3, node, order && value, || {
                        format!("{entry:?} of {ballot:?} at {at:?} was not found again: {slot:?}")
                    });
                }
            }
        }
        // What recovery found lies on the disk, also where no completion was seen; the rest is
        // gone.
        self.history.lose(node, delivered, lied == Some(0));
        self.values.lose(node, |id| self.nodes[usize::from(node.0)].counting.is_past(id));
        for index in delivered.0..core.window().end().0 {
            let Some(slot) = core.window().get(Instance(index)) else { continue };
            let order = slot.order;
            let proposal = self.history.cell(order.instance).and_then(|c| c.at(order.ballot));
            let genuine = proposal.is_some_and(|proposal| proposal.entry == order.entry);
            self.verdict.check(A3, node, genuine, || format!("recovers {order:?}, {proposal:?}"));
            self.history.keep(node, &order);
            self.history.hold(node, &order);
        }
        for origin in &self.setup.nodes {
            let Some(lane) = core.lanes().of(*origin) else { continue };
            for sequence in (lane.first().0..lane.next().0).map(Sequence) {
                if lane.ticket(sequence).is_some() {
                    let id = ValueId { origin: *origin, session: lane.session(), sequence };
                    self.values.keep(&mut self.verdict, node, &id);
                    self.values.hold(&mut self.verdict, node, &id, false);
                }
            }
        }
    }

    /// True if the node holds what the entry needs to be voted for.
    pub(super) fn is_had(&self, node: NodeId, entry: &Entry) -> bool {
        let state = &self.nodes[usize::from(node.0)];
        match entry {
            Entry::Value(id) => self.values.is_held(id, node) || state.counting.is_past(id),
            _ => true,
        }
    }

    /// A life is over.
    pub fn stopped(&mut self, node: NodeId, how: Stopped) {
        if self.is_over(node) {
            return;
        }
        let (durability, window) = (self.setup.durability, self.setup.window);
        let state = &mut self.nodes[usize::from(node.0)];
        let lost = how == Stopped::DiskLost;
        let sealed = how == Stopped::Clean && state.failed;
        self.verdict.check(D4, node, !sealed, || "ends well behind an I/O error".to_owned());
        let forgets = match durability {
            Durability::Memory => true,
            Durability::Async => how != Stopped::Clean,
            Durability::Sync => lost,
        };
        if forgets && (state.alive || lost) {
            state.forgotten = state.forgotten.max(state.incarnation);
        }
        state.alive = false;
        if lost {
            state.checkpoint = Instance(0);
            // A new disk has not lied yet.
            (state.lied, state.harmed) = (None, false);
        }
        while let Some(group) = state.groups.pop() {
            recycle(state, group);
        }
        for group in std::mem::take(&mut state.doubtful) {
            group.orders.iter().for_each(|order| self.history.doubt(node, order));
            group.values.iter().for_each(|id| self.values.doubt(node, id));
        }
        if how == Stopped::Clean && state.lied.is_none() {
            return; // all that it held lies on its disk: the mark says so
        }
        let from = Instance(state.delivered.0.saturating_sub(2 * window));
        self.history.stop(node, from, lost);
        self.values.stop(node, lost);
    }

    /// A write of this group was reported as done and is not there: if no later group says that it
    /// was complete, recovery takes it for torn and ends the log before it.
    pub fn group_lied(&mut self, node: NodeId, number: u64) {
        self.doubts(node, |lied| lied.map_or(number, |first| first.min(number)));
    }

    /// What was written last is spoilt: nobody can know what was there.
    pub fn disk_lied(&mut self, node: NodeId) {
        self.doubts(node, |_| 0);
    }

    fn doubts(&mut self, node: NodeId, from: impl FnOnce(Option<u64>) -> u64) {
        if !self.is_over(node) {
            let state = &mut self.nodes[usize::from(node.0)];
            (state.lied, state.harmed) = (Some(from(state.lied)), true);
        }
    }

    /// The node's disk lost something that it says itself was complete: its recovery is bound to
    /// notice, unless it lied about that as well.
    pub fn disk_harmed(&mut self, node: NodeId) {
        if !self.is_over(node) {
            let state = &mut self.nodes[usize::from(node.0)];
            (state.lied, state.harmed) = (state.lied.map(|_| 0), true);
        }
    }

    /// A start of the node could not read all that is there: this once it may call it damaged.
    pub fn misread(&mut self, node: NodeId) {
        if !self.is_over(node) {
            self.nodes[usize::from(node.0)].misread = true;
        }
    }

    /// A commit group or seal is on stable media now, in any order of numbers.
    pub fn wrote_group(&mut self, node: NodeId, written: Written<'_>) {
        if self.is_over(node) {
            return;
        }
        let state = &mut self.nodes[usize::from(node.0)];
        if written.number != state.next_group {
            let mut group = state.spare.pop().unwrap_or_default();
            group.take(written);
            return state.groups.push(group);
        }
        self.stable(node, written);
        loop {
            let state = &mut self.nodes[usize::from(node.0)];
            state.next_group += 1;
            let is_next = |group: &Group| group.written().number == state.next_group;
            let Some(next) = state.groups.iter().position(is_next) else { return };
            let group = state.groups.swap_remove(next);
            self.stable(node, group.written());
            recycle(&mut self.nodes[usize::from(node.0)], group);
        }
    }

    /// A group is on stable media, with all before it; or its node cannot know that it is not.
    fn stable(&mut self, node: NodeId, written: Written<'_>) {
        let state = &mut self.nodes[usize::from(node.0)];
        if state.lied.is_some_and(|first| first <= written.number) {
            let mut group = Group::default();
            group.take(written);
            state.doubtful.push(group);
        }
        for order in written.orders {
            self.history.keep(node, order);
        }
        for id in written.values {
            self.values.keep(&mut self.verdict, node, id);
        }
        self.claims(node, written.claimed);
    }

    /// A restart delivers what a block says is delivered, by its word alone: at whatever ballot the
    /// log holds it. So the log up to the block holds what all deliver.
    fn claims(&mut self, node: NodeId, claimed: Instance) {
        let state = &mut self.nodes[usize::from(node.0)];
        let from = state.claimed;
        state.claimed = from.max(claimed);
        for instance in (from.0..claimed.0).map(Instance) {
            let written = self.is_written(node, instance);
            self.verdict.check(B2, node, written, || {
                format!("the log says that {instance:?} is delivered, and does not hold it")
            });
        }
    }

    /// Three copies of this superblock are on stable media.
    pub fn wrote_superblock(&mut self, node: NodeId, superblock: &Superblock) {
        if self.is_over(node) {
            return;
        }
        let state = &mut self.nodes[usize::from(node.0)];
        let same = superblock.incarnation == state.stable_session.incarnation;
        let falls = same && superblock.promised < state.stable_promised;
        self.verdict.check(A2, node, !falls, || {
            format!("promise {:?} overwritten by {:?}", state.stable_promised, superblock.promised)
        });
        let session = superblock.session();
        self.verdict.check(B4, node, session >= state.stable_session, || {
            format!("session {:?} overwritten by {session:?}", state.stable_session)
        });
        (state.stable_promised, state.stable_session) = (superblock.promised, session);
        self.names_checkpoint(node, superblock);
    }

    /// This superblock, in three copies on stable media, may name a checkpoint: by its life, or
    /// already by its recovery. (Where it lies is judged by whoever tells this.)
    pub fn names_checkpoint(&mut self, node: NodeId, superblock: &Superblock) {
        let state = &mut self.nodes[usize::from(node.0)];
        // One that rots gives way to an older one: what was trimmed was trimmed with it at hand.
        let named = superblock.checkpoint.map_or(Instance(0), |named| named.0);
        state.checkpoint = state.checkpoint.max(named);
    }

    /// Its superblock names a checkpoint that is not on stable media.
    pub fn checkpoint_volatile(&mut self, node: NodeId, position: Instance) {
        if !self.is_over(node) {
            let what = || format!("names the checkpoint of {position:?}, which is volatile");
            self.verdict.fail(D5, node, what);
        }
    }

    /// The node is told that a write or sync of its log or superblock failed.
    pub fn io_failed(&mut self, node: NodeId) {
        if !self.is_over(node) {
            self.nodes[usize::from(node.0)].failed = true;
        }
    }

    /// A turn of the node's loop is over and another is to come: one that was told of an error
    /// before or in it would have ended.
    #[inline]
    pub fn turned(&mut self, node: NodeId) {
        let failed = self.nodes[usize::from(node.0)].failed;
        if failed && !self.is_over(node) {
            self.verdict.fail(D4, node, || "goes on behind an I/O error".to_owned());
        }
    }

    /// The node raises its promise.
    pub(super) fn promises(&mut self, node: NodeId, ballot: Ballot) {
        let state = &mut self.nodes[usize::from(node.0)];
        self.verdict.check(A2, node, ballot > state.promised, || {
            format!("promises {ballot:?} after {:?}", state.promised)
        });
        state.promised = ballot;
        // One of another life is none that it opens: who comes back with an empty store meets those
        // of its lives before in the log. Its 1A would break A2.
        let own = ballot.node == node && ballot.incarnation == state.incarnation;
        if own && let Some(left) = &mut self.ballots_left {
            self.verdict.check(L2, node, *left > 0, || format!("one more ballot: {ballot:?}"));
            *left = left.saturating_sub(1);
        }
    }

    /// A value packet lies in the node's memory.
    pub(super) fn keeps(&mut self, node: NodeId, id: &ValueId) {
        let state = &self.nodes[usize::from(node.0)];
        let own = id.origin == node && id.session == state.stable_session;
        let ahead = id.origin == node && id.session > state.stable_session;
        self.verdict.check(B4, node, !ahead, || {
            format!("{id:?} of a session that is not durable, {:?} is", state.stable_session)
        });
        self.values.hold(&mut self.verdict, node, id, own);
    }

    /// True if nothing more is judged: something was found, or that is no node of the cluster.
    pub(super) fn is_over(&mut self, node: NodeId) -> bool {
        self.verdict.violation.is_some() || !self.setup.nodes.contains(&node)
    }
}

/// True if the core holds what the entry needs, or no occurrence of it can count any more.
fn has(core: &Core, entry: &Entry) -> bool {
    match entry {
        Entry::Value(id) => core.table().is_past(id) || core.lanes().ticket(id).is_some(),
        _ => true,
    }
}

fn recycle(state: &mut Node, mut group: Group) {
    group.orders.clear();
    group.values.clear();
    state.spare.push(group);
}
