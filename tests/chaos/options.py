"""What the command takes.

Invariant: what this version cannot do is refused with 2, never passed over in silence.
"""

import argparse
import os
import time

# They need the device in the binary (feature `chaos`).
DEVICE = ("powercut", "eio", "full", "throttle", "throttle20")
# Only if asked for: the ring stands still after it, for all its nodes are damaged; it takes long.
ASKED = ("helix", "pause20", "throttle20")
KINDS = ("kill", "stop", "partition", "loss", "slow", "restart", "corruption") + tuple(
    kind for kind in DEVICE if kind not in ASKED)

ABOUT = """\
tests/chaos/run: real nodes in network namespaces of their own, clients that remember every
record, and one fault after another: kill -9 of one node or of all at once, SIGSTOP, partitions
of eight shapes, random loss, slow links, rolling restarts, corruption of closed files; and by a
device in the binary power cuts, I/O errors, full and slow disks. At the end of each cluster the
whole log is read from every node: acknowledged means present, once, at its offset, everywhere.
Needs root, Linux with nft, ip and tc, and Python 3. Not part of .ci/run."""

ENDING = """\
exit codes: 0 nothing found; 1 a record lost, doubled or moved, a refused or foreign one there,
logs that differ, a node that ended by itself or did not come back; 2 called wrongly; 130 ended
by a signal, nothing found. A first signal ends the run in good order, a second one at once.
example: tests/chaos/run --minutes 0.2 --nodes 3"""


def parse(arguments):
    """The options; ends the process with 2 if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="tests/chaos/run", description=ABOUT, epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True, metavar="M",
                        help="when the last cycle may begin")
    parser.add_argument("--nodes", type=int, choices=(3, 5), default=3)
    parser.add_argument("--only", type=kinds, default=KINDS, metavar="KIND,...",
                        help="of " + ", ".join(KINDS + ASKED))
    parser.add_argument("--cycles", type=int, metavar="N", help="at most so many that count")
    parser.add_argument("--aim", choices=("any", "coordinator"), default="any",
                        help="coordinator: each fault of one node hits it, alone and in good "
                        "order; for failover_ms")
    parser.add_argument("--shape", metavar="NAME", help="partitions of this shape only")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, metavar="N",
                        help="draws the same faults and moments again; what they meet may differ")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR", "/var/tmp"),
                        help="where a folder for the logs is made; needs O_DIRECT")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    chosen = parser.parse_args(arguments)
    if not 0 < chosen.minutes < 10_000:
        parser.error("--minutes: more than 0")
    if chosen.cycles is not None and chosen.cycles < 1:
        parser.error("--cycles: 1 or more")
    import shapes
    if chosen.shape not in (None, *shapes.NAMES):
        parser.error("--shape: one of " + ", ".join(shapes.NAMES))
    # Of the matrix of errors those that are still to come.
    chosen.cells = []
    return chosen


def kinds(text):
    """A list of faults by name."""
    names = tuple(text.split(","))
    for name in names:
        if name not in KINDS + ASKED:
            raise argparse.ArgumentTypeError(
                f"no fault {name!r}; there is: {', '.join(KINDS + ASKED)}")
    return names
