"""A cluster of real `chainring node` processes, each in its namespace.

Invariants: only processes started here get signals, by their handles; none outlives this one, not
even if it is killed. A node that ends unasked is a finding, and is started again.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import device
import network
import web
from calm import Calm

# Small ones, so that the log goes from one segment to the next between faults.
LIMITS = {"record_bytes": 64 << 10, "packet_bytes": 64 << 10, "group_bytes": 256 << 10,
          "segment_bytes": 8 << 20}
END_SECONDS = 30


def binary(device):
    """The release binary: `CHAINRING_BIN`, or this checkout's, made now; with the device if some
    fault needs it."""
    named = os.environ.get("CHAINRING_BIN")
    if named:
        version = network.tool(named, "--version")
        if device and "chaos" not in version.partition("features:")[2]:
            sys.exit(f"{named} has no device for these faults: build it with `cargo build "
                     "--profile chaos --features chaos`, or leave CHAINRING_BIN out")
        return named
    root = pathlib.Path(__file__).resolve().parents[2]
    profile = "chaos" if device else "release"
    features = ["--features", "chaos"] if device else []
    subprocess.run(["cargo", "build", "--profile", profile, "--locked", "--quiet", "--package",
                    "chainring", "--bin", "chainring", *features], cwd=root, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", root / "target")
    return str(pathlib.Path(target) / profile / "chainring")


class Cluster:
    """One log, from its first record to its last."""

    def __init__(self, program, lan, parent, on_problem):
        self.program, self.lan, self.nodes, self.on_problem = program, lan, lan.nodes, on_problem
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="chainring-chaos-", dir=parent))
        self.calm = Calm(self.folder / "calm")
        self.processes = {}
        self.keep = False

    def __enter__(self):
        try:
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.calm.end()
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        if not self.keep:
            shutil.rmtree(self.folder)

    def make(self):
        members = [word for node in self.nodes
                   for word in ("--node", f"{node}={network.address(node)}:7000,{web.PORT}")]
        network.tool(self.program, "init", "--dir", str(self.folder), "--durability", "sync",
                     *members)
        for node in self.nodes:
            path = self.config(node)
            lines = path.read_text().splitlines()
            for key, value in LIMITS.items():
                at = next(i for i, line in enumerate(lines) if line.startswith(f"{key} = "))
                lines[at] = f"{key} = {value}"
            path.write_text("\n".join(lines) + "\n")

    def config(self, node):
        return self.folder / str(node) / "chainring.toml"

    def start(self, node, orders=""):
        """Starts a node that does not run. What it says goes to a file beside its directory.
        `orders` are for its device, from the first moment on."""
        command = ["ip", "netns", "exec", self.lan.space(node), "setpriv", "--pdeathsig", "KILL",
                   self.program, "node", "--config", str(self.config(node))]
        with open(self.folder / f"{node}.out", "ab") as out:
            out.write(f"-- start, {time.strftime('%H:%M:%S')}\n".encode())
            out.flush()
            # A session of its own: Ctrl-C is for this process alone.
            self.processes[node] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                env={**os.environ, device.VARIABLE: device.always() + orders})

    def signal(self, node, number):
        self.processes[node].send_signal(number)

    def kill(self, nodes):
        """kill -9 of all these at once."""
        for node in nodes:
            self.signal(node, signal.SIGKILL)
        for node in nodes:
            self.processes.pop(node).wait()

    def cut_power(self, nodes, random, waits):
        """The power of these fails at once; how many writes and names that altered, `None` for a
        node that was not there to be cut. Half of the cuts come in the middle of a change."""
        seeds = [random.getrandbits(63) for _ in nodes]
        afters = [random.choice((0, random.randint(1, 30))) for _ in nodes]
        folders = [self.folder / str(node) for node in nodes]
        altered = device.cut_all(folders, seeds, afters, waits)
        for node in nodes:
            process = self.processes.pop(node)
            process.kill()
            process.wait()
        return altered

    def await_ends(self, nodes, seconds):
        """Waits for the end of nodes that may end by themselves, and makes one after a while."""
        deadline = time.monotonic() + seconds
        for node in nodes:
            process = self.processes.pop(node)
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def order(self, node, line):
        """Gives an order to a node's device; the answer."""
        return device.order(self.folder / str(node), line)

    def terminate(self, node):
        """SIGTERM, and its end, which has to be a good one."""
        process = self.processes.pop(node)
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = f"kill -9, {END_SECONDS} s after SIGTERM: {process.wait()}"
        if code != 0:
            self.on_problem(f"node {node} was told to stop and ended with {code}")

    def pause(self, node):
        """SIGSTOP; back when the node stands still."""
        self.signal(node, signal.SIGSTOP)
        state = f"/proc/{self.processes[node].pid}/stat"
        while pathlib.Path(state).read_text().rpartition(")")[2].split()[0] not in "TZX":
            time.sleep(0.0002)

    def go_on(self, node):
        self.signal(node, signal.SIGCONT)

    def mind(self):
        """Tells of nodes that ended by themselves, and starts them again."""
        for node, process in list(self.processes.items()):
            code = process.poll()
            if code is not None:
                self.on_problem(f"node {node} ended by itself with {code}")
                self.start(node)

    def statuses(self):
        """What each node says of itself, or `None`."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            return dict(zip(self.nodes, pool.map(web.status, map(network.address, self.nodes))))

    def ring(self):
        """The nodes in the order of the ring, as its coordinator tells it."""
        for status in self.statuses().values():
            if status and status["state"] == "coordinator":
                if sorted(status["layout"]) == self.nodes:
                    return status["layout"]
        return self.nodes

    def await_whole(self, seconds, stop):
        """Waits until all are ready and agree on their coordinator: that node, or `None`."""
        deadline = time.monotonic() + seconds
        while True:
            self.mind()
            statuses = list(self.statuses().values())
            if all(status and status["ready"] for status in statuses):
                coordinators = {status["coordinator"] for status in statuses}
                if len(coordinators) == 1:
                    return coordinators.pop()
            if time.monotonic() > deadline or stop.is_set():
                return None
            time.sleep(0.02)

    def damaged(self):
        """The nodes that may have forgotten votes with a damaged part of their log."""
        return [node for node, status in self.statuses().items() if status
                and any(reason["code"] == "damaged" for reason in status["reasons"])]

    def await_ready(self, node, seconds):
        """Waits until a node takes records, as an operator would before the next one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.mind()
            answer = web.get(network.address(node), "/readyz")
            if answer and answer[0] == 200:
                return
            time.sleep(0.02)
        self.on_problem(f"node {node} was not ready {seconds} s after its start")

    def said(self, node, lines=5):
        """The last lines of what a node said."""
        path = self.folder / f"{node}.out"
        return path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []

    def note(self, line, **more):
        """Keeps what is known at the moment of a finding, for a look."""
        self.keep = True
        told = {"time": time.strftime("%H:%M:%S"), "what": line, **more,
                "status": self.statuses(), "said": {node: self.said(node) for node in self.nodes}}
        with open(self.folder / "findings.jsonl", "a") as file:
            file.write(json.dumps(told) + "\n")
