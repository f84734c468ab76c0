"""Clients: the load on every node, and probes that tell when a node takes records again.

Invariants: no record is sent twice, whatever became of it; a probe's record is begun after the
moment that it measures from. A client's wait for an answer ends when the run does.
"""

import collections
import random
import threading
import time

import network
import web
from book import TOPICS

PER_NODE = 2
# Load on every node, and a log that grows by no more than a few MB a second, since a node that
# starts reads all of it.
PAUSE = 0.024
REFUSED_PAUSE = 0.02
PROBE_PAUSE = 0.002


class Pulse:
    """When each node last acknowledged, and the pauses that were longer than `LONG`."""

    LONG = 1.0

    def __init__(self, nodes):
        self.last = dict.fromkeys(nodes, time.monotonic())
        # (node, begin, end)
        self.pauses = []
        # When which node acknowledged a request: of the last seconds, at most so many.
        self.acks = collections.deque(maxlen=200_000)

    def beat(self, node):
        """Clients of one node may come at once: then a pause counts once or twice."""
        now, before = time.monotonic(), self.last[node]
        self.last[node] = now
        self.acks.append((now, node))
        if now - before > self.LONG:
            self.pauses.append((node, before, now))

    def rates(self, nodes, begin, end, width=0.5):
        """Requests a second that these acknowledged, one piece of time after another."""
        acks = [at for at, node in list(self.acks) if node in nodes and begin <= at < end]
        pieces = max(1, int((end - begin) / width))
        counts = [0] * pieces
        for at in acks:
            counts[min(pieces - 1, int((at - begin) / width))] += 1
        return [count / width for count in counts]

    def since(self, calm):
        """The longest pause of each node that began after a moment, those that last included."""
        now = time.monotonic()
        lasting = [(node, before, now) for node, before in self.last.items()
                   if now - before > self.LONG]
        longest = {}
        for node, begin, end in self.pauses + lasting:
            if begin >= calm:
                longest[node] = max(longest.get(node, 0), end - begin)
        return longest


class Writer(threading.Thread):
    """One client of one node; `records` is how many a request has at most."""

    def __init__(self, node, page, seed, pulse, on_problem, records=16):
        super().__init__(daemon=True)
        self.node, self.page, self.pulse, self.records = node, page, pulse, records
        self.random = random.Random(seed)
        self.client = web.Client(network.address(node))
        self.on_problem = on_problem
        self.ended = threading.Event()
        self.first = None

    def append(self):
        """One append; what became of it."""
        count, topic = self.random.randint(1, self.records), self.random.randrange(len(TOPICS))
        first, records = self.page.begin(topic, count)
        outcome, offsets = self.client.append(TOPICS[topic], records)
        if outcome == web.REFUSED:
            self.page.refuse(first, count)
        elif outcome == web.ACKNOWLEDGED:
            self.pulse.beat(self.node)
            if self.first is None:
                self.first = time.monotonic()
            if not self.page.acknowledge(first, count, *offsets):
                raise web.Unexpected(f"{count} records were told the offsets {offsets}")
        return outcome

    def run(self):
        try:
            while not self.ended.is_set():
                outcome = self.append()
                refused = outcome != web.ACKNOWLEDGED
                self.ended.wait(self.random.uniform(0, PAUSE) + refused * REFUSED_PAUSE)
        except web.Unexpected as error:
            self.on_problem(f"a client of node {self.node}: {error}")

    def end(self):
        """Asks it to end; what is under way is let go, its outcome unknown."""
        self.ended.set()

    def cease(self, seconds):
        """Waits for its end, and makes one after a while."""
        self.join(seconds)
        self.client.interrupt()
        self.join()


class Probe(Writer):
    """Sends one record after another from a moment on, until one is acknowledged."""

    def __init__(self, *rest):
        super().__init__(*rest, records=1)
        self.go = threading.Event()
        self.outcomes = []

    def run(self):
        self.client.connect()
        self.go.wait()
        try:
            while not self.ended.is_set():
                began = time.monotonic()
                outcome = self.append()
                self.outcomes.append((outcome, time.monotonic() - began))
                if outcome == web.ACKNOWLEDGED:
                    return
                self.ended.wait(PROBE_PAUSE)
        except web.Unexpected as error:
            self.on_problem(f"a probe of node {self.node}: {error}")


class Clients:
    """All clients of one cluster."""

    def __init__(self, book, nodes, seed, on_problem):
        self.book, self.seed, self.on_problem = book, seed, on_problem
        self.pulse = Pulse(nodes)
        self.writers = [self.make(Writer, node) for node in nodes for _ in range(PER_NODE)]
        self.probes = []
        for writer in self.writers:
            writer.start()

    def make(self, kind, node):
        page = self.book.page()
        return kind(node, page, f"{self.seed} {page.writer}", self.pulse, self.on_problem)

    def aim(self, nodes):
        """Probes that stand ready."""
        probes = [self.make(Probe, node) for node in nodes]
        for probe in probes:
            probe.start()
        self.probes = [probe for probe in self.probes if probe.is_alive()] + probes
        return probes

    def end(self):
        """Ends them all; every outcome is in the book then."""
        everyone = self.writers + self.probes
        for writer in everyone:
            writer.end()
            if isinstance(writer, Probe):
                writer.go.set()
        deadline = time.monotonic() + web.APPEND_SECONDS
        for writer in everyone:
            writer.cease(max(0.0, deadline - time.monotonic()))


def fire(probes):
    """The moment from which they count."""
    for probe in probes:
        probe.go.set()


def end(probes):
    """No more records of theirs."""
    for probe in probes:
        probe.end()


class Wait:
    """For the first record that any of some probes, or each of them, was acknowledged."""

    def __init__(self, probes, since, slow, everyone=False):
        self.probes, self.since, self.everyone = probes, since, everyone
        # What takes longer is looked at while it lasts.
        self.slow, self.seen = slow, None

    def run(self, seconds, stop, look):
        """Seconds since the moment; `None` if it did not come in time."""
        while (took := self.took()) is None:
            passed = time.monotonic() - self.since
            if passed > seconds or stop.is_set():
                break
            if passed > self.slow and self.seen is None:
                self.seen = look()
            time.sleep(0.001)
        return took

    def took(self):
        firsts = [probe.first for probe in self.probes if probe.first is not None]
        if len(firsts) < (len(self.probes) if self.everyone else 1):
            return None
        return (max(firsts) if self.everyone else min(firsts)) - self.since

    def told(self):
        """Of each probe: how many appends it made, what became of the last one, and when it was
        acknowledged one."""
        return {probe.node: {"appends": len(probe.outcomes), "last": probe.outcomes[-1:],
                             "after": probe.first and probe.first - self.since}
                for probe in self.probes}
