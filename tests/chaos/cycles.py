"""Cycles: load, a fault at a drawn moment, its end, and all nodes taking records again.

Invariants: a cycle counts only if its fault took effect and `ENOUGH` records were acknowledged
since the strike before; others are made and told apart. What is measured begins right before the
strike, so it is never told too short.
"""

import random
import time

import faults
from clients import Wait, end, fire

# Records that have to be acknowledged between two strikes.
ENOUGH = 500
# How long the load may take for them, the ring to go on without who was struck, and all to take
# records again.
LOAD_SECONDS, CUT_SECONDS, WHOLE_SECONDS = 30, 10, 30
# What takes longer is told one by one.
CUT_SLOW, HEAL_SLOW, WHOLE_SLOW = 0.5, 1, 10
# What the others are to come back to, of the rate in the seconds before, and within which time.
ENOUGH_RATE, RATE_SECONDS, PACE_SLOW = 0.8, 2.0, 2.0
# A strike into a recovery comes within this.
HURRY_SECONDS = 0.6


class Cycles:
    """The cycles of one cluster."""

    def __init__(self, chosen, cluster, clients, found, stop, seed):
        self.chosen, self.cluster, self.clients, self.found = chosen, cluster, clients, found
        self.book, self.stop = clients.book, stop
        self.random = random.Random(seed)
        self.at_strike = 0
        self.kinds = []
        self.early = False
        # Since when nothing is wrong and all nodes take records.
        self.calm = time.monotonic()

    def one(self):
        """One cycle."""
        coordinator = None if self.early else self.load()
        if self.stop.is_set():
            return
        fault = self.draw(coordinator)
        if fault.alone and self.early:
            coordinator = self.load()
            if self.stop.is_set():
                return
        fresh = self.book.acknowledged() - self.at_strike
        self.at_strike = self.book.acknowledged()
        hit = fault.hits(coordinator or self.coordinator())
        measured = fault.measured and fault.victim == coordinator
        # Some strike into the recovery of the one before. Then nothing is measured.
        hurried = self.chosen.aim == "any" and self.random.random() < 0.25
        self.early = hurried and not fault.alone
        took = self.strike(fault, measured)
        took |= self.hurry(fault) if self.early else self.heal(fault)
        counts = fault.took_effect and fresh >= ENOUGH
        self.found.cycle(fault, counts, hit, took)
        self.cluster.mind()

    def load(self):
        """Records enough, all nodes whole, and a drawn moment more: the coordinator then."""
        deadline = time.monotonic() + LOAD_SECONDS
        while self.book.acknowledged() - self.at_strike < ENOUGH:
            self.cluster.mind()
            if time.monotonic() > deadline:
                self.found.problem(f"hardly any record in {LOAD_SECONDS} s without a fault")
                break
            if self.pause(0.01):
                return None
        whole = self.cluster.await_whole(WHOLE_SECONDS, self.stop)
        if whole is None and not self.stop.is_set():
            self.found.problem(f"not whole {WHOLE_SECONDS} s behind the last fault")
        before = self.ballot()
        self.pause(self.random.uniform(0, 1))
        coordinator = self.coordinator()
        for node, seconds in self.clients.pulse.since(self.calm).items():
            excuse = self.cluster.calm.worst(self.calm)
            self.found.pause(node, seconds, excuse)
        if before != self.ballot() and not self.stop.is_set():
            self.found.needless += 1
        return coordinator if whole is not None else None

    def ballot(self):
        """The highest ballot that any node knows."""
        told = [status["ballot"] for status in self.cluster.statuses().values() if status]
        return max(((one["round"], one["node"]) for one in told), default=None)

    def coordinator(self):
        """The node that calls itself coordinator, of two the one with the higher ballot."""
        said = self.cluster.statuses().items()
        told = [(status["ballot"]["round"], node) for node, status in said
                if status and status["state"] == "coordinator"]
        return max(told)[1] if told else None

    def draw(self, coordinator):
        """Each kind as often as any other; a third of the victims is the coordinator."""
        if not self.kinds:
            self.kinds = self.random.sample(self.chosen.only, len(self.chosen.only))
        kind = self.kinds.pop()
        coordinator = coordinator or self.coordinator()
        victim = self.random.choice(self.cluster.nodes)
        aimed = self.chosen.aim == "coordinator" or self.random.random() < 1 / 3
        if aimed and coordinator in self.cluster.nodes:
            victim = coordinator
        return faults.draw(kind, self.cluster, self.random, victim, self.chosen)

    def strike(self, fault, measured):
        """The fault, for a while: milliseconds until the others went on."""
        took = {}
        probes = self.clients.aim(fault.able)
        since = time.monotonic()
        fault.strike()
        fire(probes)
        if probes and (measured or fault.name == "partition"):
            phase = "failover" if measured else "cut"
            took[phase] = self.measure(Wait(probes, since, CUT_SLOW), fault, phase,
                                       CUT_SECONDS)
        end(probes)
        if fault.lasts is not None:
            took["pace"] = self.pace(fault, since)
        else:
            self.pause(self.random.uniform(0, fault.longest))
        return took

    def pace(self, fault, since):
        """Milliseconds until the nodes that were not struck acknowledge, for a second, at
        `ENOUGH_RATE` of their rate before; what they did from then on is told."""
        self.pause(fault.lasts - (time.monotonic() - since))
        rates, able = self.clients.pulse.rates, fault.able
        before = rates(able, since - RATE_SECONDS, since, RATE_SECONDS)[0]
        width = 0.5
        behind = rates(able, since, time.monotonic(), width)
        quick = (at for at in range(len(behind) - 1)
                 if sum(behind[at:at + 2]) >= 2 * ENOUGH_RATE * before)
        seconds = next(quick, len(behind)) * width
        rest = behind[int(PACE_SLOW / width):] or [0]
        share = sum(rest) / len(rest) / max(1, before)
        fault.what += f", the others at {share:.0%} of {before:.0f} requests/s from 2 s on"
        if seconds > PACE_SLOW or share < ENOUGH_RATE:
            told = " ".join(f"{rate:.0f}" for rate in behind)
            self.found.slow(fault, f"{seconds:.1f} s below {ENOUGH_RATE:.0%}: {told}")
        return seconds * 1000

    def heal(self, fault):
        """The fault's end: milliseconds until any node, and until each, took records."""
        probes = self.clients.aim(self.cluster.nodes)
        since = time.monotonic()
        fault.heal()
        fire(probes)
        some, each = Wait(probes, since, HEAL_SLOW), Wait(probes, since, WHOLE_SLOW, everyone=True)
        took = {"heal": self.measure(some, fault, "heal", WHOLE_SECONDS),
                "whole": self.measure(each, fault, "whole", WHOLE_SECONDS)}
        end(probes)
        self.calm = time.monotonic()
        return took

    def hurry(self, fault):
        """The fault's end, and no waiting for what comes of it."""
        fault.heal()
        self.pause(self.random.uniform(0, HURRY_SECONDS))
        return {}

    def measure(self, wait, fault, phase, limit):
        """In milliseconds; what came late or not at all is told."""
        seconds = wait.run(limit, self.stop, self.cluster.statuses)
        if self.stop.is_set() and seconds is None:
            return None
        if seconds is None or seconds > wait.slow:
            excuse = self.cluster.calm.worst(wait.since)
            self.found.late(fault, phase, seconds, limit, excuse, wait)
        return (seconds or limit) * 1000

    def pause(self, seconds):
        """True if the run is to end."""
        return self.stop.wait(seconds)
