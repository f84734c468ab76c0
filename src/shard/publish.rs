//! Publishing figures, once a tick: for status, metrics and progress.

use super::Shard;
use crate::device::Machine;
use crate::gauges::{Halt, State};
use chainring_net::wire::LinkKind;
use chainring_ring::coordinator::Role;

impl<M: Machine> Shard<M> {
    pub(super) fn publish(&mut self) {
        self.publish_protocol();
        self.publish_log();
        let (gauges, counters) = (&self.gauges, self.machine.counters());
        let (low, high) = self.groups.digest().halves();
        gauges.digest_low.set(low);
        gauges.digest_high.set(high);
        gauges.bytes.set(self.groups.bytes());
        gauges.last_delivery_us.set(self.times.last_us);
        gauges.records.set(self.groups.records());
        gauges.in_flight_bytes.set(self.batcher.bytes_in_flight());
        gauges.data_in_up.set(u64::from(self.machine.attached(LinkKind::DataIn)));
        gauges.data_out_up.set(u64::from(self.machine.attached(LinkKind::DataOut)));
        gauges.control_in_up.set(u64::from(self.machine.attached(LinkKind::ControlIn)));
        gauges.control_out_up.set(u64::from(self.machine.attached(LinkKind::ControlOut)));
        gauges.bad_shard_frames.set(counters.bad_frames + self.bad_frames + self.bad_bodies);
        gauges.data_in_bytes.set(counters.bytes_received);
        gauges.data_out_bytes.set(counters.bytes_sent);
        gauges.warm.set(u64::from(self.warm));
        gauges.enters.set(counters.enters);
        gauges.turn_us_max.set(self.turn_us_max);
        gauges.side_packets.set(self.side.count() as u64);
        gauges.fetched.set(self.fetched);
    }

    fn publish_protocol(&self) {
        let (gauges, core) = (&self.gauges, &self.core);
        let (ballot, settings) = (core.promised(), core.settings());
        let state = match core.role() {
            _ if core.is_forgotten() => State::Halted,
            _ if self.draining => State::Draining,
            Role::Coordinator(_) => State::Coordinator,
            Role::Candidate(_) => State::Candidate,
            Role::Follower if core.delivered() < core.claim().position => State::CatchingUp,
            Role::Follower if ballot.round == 0 => State::Starting,
            Role::Follower => State::Follower,
        };
        gauges.state.set(state as u64);
        let halt = if core.is_forgotten() { Halt::Amnesia } else { Halt::None };
        gauges.halt.set(halt as u64);
        gauges.incarnation.set(u64::from(settings.incarnation.0));
        gauges.start.set(u64::from(settings.session.start));
        gauges.votes.set(u64::from(core.is_voter()));
        gauges.damaged.set(u64::from(core.is_damaged()));
        gauges.coordinator.set(u64::from(ballot.node.0));
        gauges.ballot_round.set(u64::from(ballot.round));
        gauges.ballot_incarnation.set(u64::from(ballot.incarnation.0));
        let circle = if core.is_in_circle() { core.layout().encode() } else { 0 };
        gauges.circle.set(u64::from(circle));
        gauges.ready.set(u64::from(core.is_ready()));
        gauges.received.set(core.received().0);
        gauges.durable.set(core.durable().0);
        gauges.decided.set(core.claim().position.0);
        gauges.delivered.set(core.delivered().0);
        gauges.delivered_everywhere.set(core.delivered_everywhere().0);
        gauges.first.set(core.window().first().0);
        gauges.open.set(u64::from(core.next_own_id().is_some()));
    }

    fn publish_log(&self) {
        let gauges = &self.gauges;
        let Some(journal) = &self.journal else { return };
        let (bytes, oldest) = journal.behind();
        gauges.groups.set(journal.completed);
        gauges.log_bytes.set(journal.bytes);
        gauges.log_behind_bytes.set(bytes);
        let age = oldest.map_or(0, |oldest| self.now_us.saturating_sub(oldest));
        gauges.log_behind_us.set(age);
        gauges.log_full.set(u64::from(journal.full));
    }
}
