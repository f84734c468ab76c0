"""The matrix of I/O errors: which operation fails how and when, and what the node has to do then.

The policy (docs/TESTING.md, "Chaos"): a write or flush of log or superblock that fails ends the
process with 1, and nothing that rests on it is told to anybody; a file that is made ahead is tried
again; one bad copy of the superblock, and a read that fails, end nothing while the node can go on
without. Invariant: a cell counts only if its operation was met.
"""

import subprocess
import time
from collections import namedtuple

import device
import network
import web

# `when`: "load", a running node; "start", from its start on; "stop", while it is told to stop;
# "roll", while its log fills segments; "read", while it is read from.
# `must`: "end", with 1; "run", go on; "any" of both, never wrongly.
Cell = namedtuple("Cell", "what how when must")

END_SECONDS, MET_SECONDS = 10, 20
# A roll writes so many records of so many bytes, at most so often.
BULK_RECORDS, BULK_BYTES, BULKS = 64, 16 << 10, 40
ALL = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "ENODATA", "ETIMEDOUT", "EILSEQ", "ENOLINK",
       "ECANCELED", "EAGAIN", "ENOMEM", "EFBIG", "short")


def cells():
    """All of them."""
    found = [Cell("log", how, "load", "end") for how in ALL]
    found += [Cell("log", how, when, "end") for when in ("start", "stop")
              for how in ("EIO", "ENOSPC", "ECANCELED", "short")]
    found += [Cell("write:superblock", how, "start", "end")
              for how in ("EIO", "ENOSPC", "EROFS", "ENODATA")]
    found += [Cell("write:superblock", how, "start", "run") for how in ("EIO times 1", "short")]
    found += [Cell("write:superblock", how, "stop", "end") for how in ("EIO", "ENOSPC")]
    found += [Cell("write:superblock", "EIO times 1", "stop", "run")]
    found += [Cell("sync:superblock", how, "start", "end") for how in ("EIO times 1", "ENOSPC")]
    found += [Cell("read:superblock", how, "start", "end") for how in ("EIO", "ENODATA")]
    found += [Cell("read:superblock", "EIO times 1", "start", "run")]
    found += [Cell("open:superblock", how, "start", "end") for how in ("EIO", "EROFS")]
    found += [Cell("open:segment", how, "start", "end") for how in ("EIO", "EROFS")]
    found += [Cell("read:segment", how, "start", "any")
              for how in ("EIO", "EIO times 1", "ENODATA times 3")]
    found += [Cell("write:segment", how, "start", "end")
              for how in ("EIO times 1", "ENOSPC times 1", "EROFS")]
    found += [Cell("sync:segment", how, "start", "end") for how in ("EIO times 1", "ENOSPC")]
    found += [Cell("dir", how, "start", "end") for how in ("EIO times 1", "ENOSPC")]
    found += [Cell(what, f"{how} times 2", "roll", "run") for how in ("EIO", "ENOSPC") for what in
              ("create:segment", "write:segment", "sync:segment", "rename:segment", "dir")]
    found += [Cell("read:segment", f"{how} times 2", "read", "run")
              for how in ("EIO", "ENODATA", "ETIMEDOUT")]
    return found


class Trial:
    """One cell at one node."""

    def __init__(self, cluster, node, cell, on_problem):
        self.cluster, self.node, self.cell, self.on_problem = cluster, node, cell, on_problem
        self.code = None
        self.met = False

    def run(self):
        """True if the operation was met; what must not be is told."""
        order = f"fail {self.cell.what} {self.cell.how}"
        if self.cell.when == "start":
            self.cluster.kill([self.node])
            self.cluster.start(self.node, order)
        else:
            self.cluster.order(self.node, order)
        getattr(self, self.cell.when)()
        self.judge()
        return self.met

    def load(self):
        self.await_met(MET_SECONDS)

    def start(self):
        self.await_met(MET_SECONDS)

    def stop(self):
        process = self.cluster.processes[self.node]
        process.terminate()
        self.code = process.wait(60)
        # Who ended well did without; whether it had to is not known any more.
        self.met = self.code == 1 or self.cell.must == "run"

    def roll(self):
        record = b"x" * (BULK_BYTES - 1) + b"\n"
        client = web.Client(network.address(self.node))
        for _ in range(BULKS):
            if self.look() or client.append("bulk", [record] * BULK_RECORDS)[0] is None:
                break
        self.await_met(1)

    def read(self):
        for offset in range(0, 3000, 50):
            if self.look():
                break
            answer = web.get(network.address(self.node), f"/v1/logs/alpha?offset={offset}&limit=1")
            if answer is not None and answer[0] not in (200, 404, 500, 503):
                self.on_problem(f"{self.told()}: {answer[0]} to a reader")

    def await_met(self, seconds):
        deadline = time.monotonic() + seconds
        while not self.look() and time.monotonic() < deadline:
            time.sleep(0.02)

    def look(self):
        """True if it is decided: the process ended, or the rule is used up and it did not."""
        process = self.cluster.processes[self.node]
        if self.code is None and process.poll() is not None:
            self.code = process.poll()
            self.met |= self.code == 1
        elif self.code is None and not self.met:
            try:
                self.met = self.cluster.order(self.node, "hits") != "hits 0"
            except device.NoDevice:
                return False
            if self.met and self.cell.must != "run":
                # It has to end now; beside "any" it may.
                try:
                    self.code = process.wait(END_SECONDS if self.cell.must == "end" else 1)
                except subprocess.TimeoutExpired:
                    pass
        return self.met or self.code is not None

    def judge(self):
        if self.code is None and self.cluster.processes[self.node].poll() is not None:
            self.code = self.cluster.processes[self.node].poll()
        if self.code not in (None, 0, 1):
            self.on_problem(f"{self.told()}: node {self.node} ended with {self.code}")
        elif self.met and self.cell.must == "end" and self.code != 1:
            self.on_problem(f"{self.told()}: node {self.node} went on, or ended with {self.code}")
        elif self.met and self.cell.must == "run" and self.code == 1:
            said = self.cluster.said(self.node, 1)
            self.on_problem(f"{self.told()}: node {self.node} ended with 1: {said}")

    def told(self):
        return f"{self.cell.what} {self.cell.how}, {self.cell.when}"

    def heal(self):
        """It runs again, and nothing fails."""
        process = self.cluster.processes[self.node]
        if process.poll() is None and self.code is None:
            self.cluster.order(self.node, "calm")
        else:
            process.wait()
            self.cluster.start(self.node)


def fill(cluster, seconds):
    """Writes until no node takes records any more: true if all refuse."""
    record, deadline = b"x" * (BULK_BYTES - 1) + b"\n", time.monotonic() + seconds
    refused = set()
    while time.monotonic() < deadline and len(refused) < len(cluster.nodes):
        for node in cluster.nodes:
            client = web.Client(network.address(node))
            outcome, _ = client.append("bulk", [record] * BULK_RECORDS)
            client.connection.close()
            if outcome == web.REFUSED:
                refused.add(node)
            else:
                refused.discard(node)
    return len(refused) == len(cluster.nodes)
