"""A network of its own: a bridge, a namespace for each node, and what goes wrong between them.

Invariants: names carry this process's id, and all are removed at the end; what a dead run left is
swept at the next start. All cuts lie on the bridge and change in one transaction; they drop, so
nobody is told. Clients sit on the bridge itself: no cut lies between them and a node.
"""

import ctypes
import json
import os
import subprocess

PREFIX = "chainring-chaos-"
CLONE_NEWNET = 0x40000000


def tool(*words, check=True, text=None):
    """Runs a tool to its end; what it printed."""
    ended = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if check and ended.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {ended.stderr.strip()}")
    return ended.stdout


def address(node):
    return f"10.77.0.{node}"


def enter(name):
    """Moves this thread, and all that it starts, into a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(name) as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {name}")


class Network:
    """A bridge with so many nodes."""

    def __init__(self, nodes):
        self.nodes = list(range(1, nodes + 1))
        self.lan = f"{PREFIX}{os.getpid()}-lan"
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)

    def space(self, node):
        """The name of a node's namespace."""
        return f"{PREFIX}{os.getpid()}-{node}"

    def __enter__(self):
        try:
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        enter(f"/proc/self/fd/{self.home}")
        for name in [self.lan, *map(self.space, self.nodes)]:
            tool("ip", "netns", "del", name, check=False)

    def make(self):
        sweep()
        tool("ip", "netns", "add", self.lan)
        for node in self.nodes:
            tool("ip", "netns", "add", self.space(node))
        enter(f"/run/netns/{self.lan}")
        tool("ip", "link", "set", "lo", "up")
        tool("ip", "link", "add", "bridge0", "type", "bridge")
        tool("ip", "address", "add", address(254) + "/24", "dev", "bridge0")
        tool("ip", "link", "set", "bridge0", "up")
        for node in self.nodes:
            self.join(node)
        tool("nft", "add table bridge chaos")

    def join(self, node):
        space, port = self.space(node), f"node{node}"
        tool("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        tool("ip", "link", "set", port, "master", "bridge0", "up")
        tool("ip", "-n", space, "link", "set", "lo", "up")
        tool("ip", "-n", space, "address", "add", address(node) + "/24", "dev", "eth0")
        tool("ip", "-n", space, "link", "set", "eth0", "up")

    def rules(self, rule):
        """Puts one rule, or none, in the place of what was there."""
        chain = "type filter hook forward priority 0;"
        tool("nft", "-f", "-", text=f"""
            add table bridge chaos
            delete table bridge chaos
            table bridge chaos {{
                chain cuts {{
                    {chain if rule else ""}
                    {rule}
                }}
            }}
            """)

    def cut(self, pairs):
        """Drops all that goes these ways."""
        ways = ", ".join(f"{address(a)} . {address(b)}" for a, b in sorted(pairs))
        self.rules(f"ip saddr . ip daddr {{ {ways} }} counter drop")

    def lose(self, per_mille):
        """Drops at random between all nodes."""
        self.rules(f"ip saddr 10.77.0.0/24 numgen random mod 1000 < {per_mille} counter drop")

    def heal(self):
        """Nothing is dropped any more; how many packets were."""
        listed = json.loads(tool("nft", "-j", "list", "table", "bridge", "chaos"))
        rules = [entry["rule"]["expr"] for entry in listed["nftables"] if "rule" in entry]
        dropped = sum(part["counter"]["packets"]
                      for rule in rules for part in rule if "counter" in part)
        self.rules("")
        return dropped

    def slow(self, node, kbit):
        """All of a node's traffic, each way, at so many kbit/s."""
        shape = ("root", "tbf", "rate", f"{kbit}kbit", "burst", "16k", "latency", "100ms")
        tool("tc", "qdisc", "replace", "dev", f"node{node}", *shape)
        tool("tc", "-n", self.space(node), "qdisc", "replace", "dev", "eth0", *shape)

    def quicken(self, node):
        """Its full speed again; how many packets had to wait or were dropped."""
        ends = (("dev", f"node{node}"), ("-n", self.space(node), "dev", "eth0"))
        waited = 0
        for end in ends:
            space, device = end[:-2], end[-2:]
            listed = json.loads(tool("tc", *space, "-s", "-j", "qdisc", "show", *device))
            waited += sum(one.get("overlimits", 0) + one.get("drops", 0) for one in listed)
            tool("tc", *space, "qdisc", "del", *device, "root")
        return waited


def sweep():
    """Removes the namespaces of runs that are dead."""
    names = [line.split()[0] for line in tool("ip", "netns", "list").splitlines()]
    for name in names:
        process = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and not os.path.exists(f"/proc/{process}"):
            tool("ip", "netns", "del", name, check=False)
