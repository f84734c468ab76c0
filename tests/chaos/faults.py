"""The faults: each strikes, and is healed.

Invariants: `measured` is true only where the coordinator falls silent at one moment and all others
stay up and connected; `able` are the nodes that can go on without the rest; `took_effect` is
judged after the heal by what the kernel counted, where it counts.
"""

import time

import corruption
import errors
import shapes

READY_SECONDS = 30
# A cut that waits for the middle of a change waits so long; one in a start, so long for its end.
CUT_SECONDS, AGAIN_SECONDS = 0.3, 1.0
FULL_SECONDS = 60


class Fault:
    """Nothing goes wrong yet."""

    name = ""
    measured = False
    # Nothing else may be wrong before all nodes are whole again.
    alone = False
    # Longest time that it lasts, seconds, beside what is measured.
    longest = 1.0
    # It lasts so long, and the rate of the others meanwhile is measured.
    lasts = None

    def __init__(self, cluster, random, victim, shape=None):
        self.cluster, self.random, self.victim = cluster, random, victim
        self.took_effect = True
        self.able = [node for node in cluster.nodes if node != victim]
        self.what = f"node {victim}"

    def hits(self, node):
        """True if it is aimed at this node, or at all."""
        return node == self.victim

    def strike(self):
        """Begins it."""

    def heal(self):
        """Ends it."""


class Kill(Fault):
    """kill -9 of one."""

    name, measured = "kill", True

    def strike(self):
        self.cluster.kill([self.victim])

    def heal(self):
        self.cluster.start(self.victim)


class KillAll(Fault):
    """kill -9 of all at once; they come back in any order."""

    name = "kill"
    longest = 0.2

    def __init__(self, *rest):
        super().__init__(*rest)
        self.able, self.what = [], "all nodes"

    def hits(self, node):
        return True

    def strike(self):
        self.cluster.kill(self.cluster.nodes)

    def heal(self):
        for node in self.random.sample(self.cluster.nodes, len(self.cluster.nodes)):
            self.cluster.start(node)


class PowerCut(Fault):
    """The power of one fails: of what its disk did not hold for good, any part is there."""

    name = "powercut"
    longest = 0.3

    def __init__(self, *rest):
        super().__init__(*rest)
        self.victims, self.altered = [self.victim], []

    def strike(self):
        self.cut()
        self.what += f", {sum(filter(None, self.altered))} writes altered"

    def cut(self):
        altered = self.cluster.cut_power(self.victims, self.random, CUT_SECONDS)
        self.took_effect = None not in altered
        self.altered += altered

    def heal(self):
        """Some lose power once more while they start."""
        if self.random.random() < 0.25:
            for node in self.victims:
                self.cluster.start(node, "cut {} after {}".format(
                    self.random.getrandbits(63), self.random.randint(1, 12)))
            self.cluster.await_ends(self.victims, AGAIN_SECONDS)
        for node in self.random.sample(self.victims, len(self.victims)):
            self.cluster.start(node)


class PowerCutAll(PowerCut):
    """The power of all fails at once."""

    longest = 0.2

    def __init__(self, *rest):
        super().__init__(*rest)
        self.victims = self.cluster.nodes
        self.able, self.what = [], "all nodes"

    def hits(self, node):
        return True


class Corruption(Fault):
    """One node ends in good order, and its log holds other bytes when it is started again."""

    name, alone = "corruption", True
    longest = 0.1

    def strike(self):
        # Where a majority is damaged nobody can say what was voted for.
        damaged = self.cluster.damaged()
        self.victim = damaged[0] if damaged else self.victim
        self.what = f"node {self.victim}"
        self.cluster.terminate(self.victim)
        self.told(corruption.minority(self.cluster.folder / str(self.victim), self.random))

    def told(self, done):
        self.took_effect = bool(done)
        self.what += ": " + ", ".join(done[:4]) + (" and more" if len(done) > 4 else "")

    def heal(self):
        self.cluster.start(self.victim)


class Helix(Corruption):
    """All nodes end, and each log is hurt where another one is not."""

    name = "helix"

    def __init__(self, *rest):
        super().__init__(*rest)
        self.able, self.what = [], "all nodes"

    def hits(self, node):
        return True

    def strike(self):
        for node in self.cluster.nodes:
            self.cluster.terminate(node)
        folders = [self.cluster.folder / str(node) for node in self.cluster.nodes]
        self.told(corruption.helix(folders, self.random))

    def heal(self):
        for node in self.random.sample(self.cluster.nodes, len(self.cluster.nodes)):
            self.cluster.start(node)


class InputOutput(Fault):
    """One operation of a node's disk fails: the next cell of the matrix."""

    name, alone = "eio", True
    longest = 0.05

    def __init__(self, cluster, random, victim, chosen):
        super().__init__(cluster, random, victim)
        if not chosen.cells:
            chosen.cells = random.sample(errors.cells(), len(errors.cells()))
        self.trial = errors.Trial(cluster, victim, chosen.cells.pop(), cluster.on_problem)
        self.what += f", {self.trial.told()}"

    def strike(self):
        self.took_effect = self.trial.run()
        self.what += f": {self.trial.code if self.trial.code is not None else 'goes on'}"

    def heal(self):
        self.trial.heal()


class Full(Fault):
    """No disk has room for another segment: appends are refused, until there is room again."""

    name, alone = "full", True
    longest = 0.5

    def __init__(self, *rest):
        super().__init__(*rest)
        self.able, self.what = [], "all disks"

    def hits(self, node):
        return True

    def strike(self):
        for node in self.cluster.nodes:
            self.cluster.order(node, "fail create:segment ENOSPC")
        self.took_effect = errors.fill(self.cluster, FULL_SECONDS)

    def heal(self):
        for node in self.cluster.nodes:
            self.cluster.order(node, "calm")


class Throttle(Fault):
    """The disk of one takes few bytes a second."""

    name = "throttle"
    longest = 4.0

    def __init__(self, *rest):
        super().__init__(*rest)
        self.rate = self.random.choice((20_000, 100_000, 400_000))
        self.what += f" at {self.rate} bytes/s"

    def strike(self):
        self.cluster.order(self.victim, f"fail log rate {self.rate}")

    def heal(self):
        self.took_effect = self.cluster.order(self.victim, "hits") != "hits 0"
        self.cluster.order(self.victim, "calm")


class Stop(Fault):
    """SIGSTOP, and SIGCONT later."""

    name, measured = "stop", True
    longest = 3.0

    def strike(self):
        self.cluster.pause(self.victim)

    def heal(self):
        self.cluster.go_on(self.victim)


class Pause20(Stop):
    """SIGSTOP for 20 seconds: the others are to go on at their rate."""

    name, measured, lasts = "pause20", False, 20.0


class Throttle20(Throttle):
    """The same for 20 seconds: the others are to go on at their rate."""

    name, lasts = "throttle20", 20.0


class Partition(Fault):
    """Ways between nodes drop all packets, without a reset."""

    name = "partition"
    longest = 2.0

    def __init__(self, cluster, random, victim, shape=None):
        super().__init__(cluster, random, victim)
        shape = shape or random.choice(shapes.NAMES)
        ring = random.sample(cluster.nodes, len(cluster.nodes))
        if shape in ("neighbours", "one_way"):
            ring = cluster.ring()
        self.cuts = shapes.SHAPES[shape](victim, ring)
        self.able = shapes.able(cluster.nodes, self.cuts)
        self.measured = shape == "alone"
        self.what = f"{shape}, node {victim}"

    def strike(self):
        self.cluster.lan.cut(self.cuts)

    def heal(self):
        self.took_effect = self.cluster.lan.heal() > 0


class Loss(Fault):
    """Packets between all nodes are lost at random."""

    name = "loss"
    longest = 4.0

    def __init__(self, *rest):
        super().__init__(*rest)
        self.per_mille = self.random.choice((1, 5, 20, 50, 100, 300))
        self.able, self.what = [], f"{self.per_mille / 10} % lost"

    def hits(self, node):
        return False

    def strike(self):
        self.cluster.lan.lose(self.per_mille)

    def heal(self):
        self.took_effect = self.cluster.lan.heal() > 0


class Slow(Fault):
    """All of a node's links are slow."""

    name = "slow"
    longest = 4.0

    def __init__(self, *rest):
        super().__init__(*rest)
        self.kbit = self.random.choice((256, 1000, 4000))
        self.able, self.what = [], f"node {self.victim} at {self.kbit} kbit/s"

    def strike(self):
        self.cluster.lan.slow(self.victim, self.kbit)

    def heal(self):
        self.took_effect = self.cluster.lan.quicken(self.victim) > 0


class Restart(Fault):
    """Rolling restarts: one node after another is told to stop, ends well, and is started."""

    name = "restart"
    longest = 0.0

    def __init__(self, *rest):
        super().__init__(*rest)
        self.able, self.what = [], "all nodes, one by one"
        self.end = self.ready = 0

    def hits(self, node):
        return True

    def strike(self):
        for node in self.random.sample(self.cluster.nodes, len(self.cluster.nodes)):
            began = time.monotonic()
            self.cluster.terminate(node)
            ended = time.monotonic()
            self.cluster.start(node)
            self.cluster.await_ready(node, READY_SECONDS)
            self.end = max(self.end, ended - began)
            self.ready = max(self.ready, time.monotonic() - ended)
        self.what += f", ended within {self.end:.1f} s, ready within {self.ready:.1f} s"


ONE = {fault.name: fault for fault in
       (Kill, PowerCut, Corruption, Helix, InputOutput, Full, Throttle, Throttle20, Stop, Pause20,
        Partition, Loss, Slow, Restart)}
ALL = {"kill": KillAll, "powercut": PowerCutAll}


def draw(name, cluster, random, victim, chosen):
    """A fault of this name; half of all kills and power cuts hit all nodes at once."""
    if name in ALL and chosen.aim == "any" and random.random() < 0.5:
        return ALL[name](cluster, random, victim)
    more = {"eio": chosen, "partition": chosen.shape}
    return ONE[name](cluster, random, victim, more.get(name))
