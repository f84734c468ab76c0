"""What a run found, for people and for programs.

Invariants: a time that never came is in the figures as the limit that was waited, never left out;
with text or JSON the same things are told.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import options

HARMS = ("lost", "doubled", "moved", "strange")
# More than that shows nothing new.
PROBLEMS = 20


class Report:
    """Everything that is told at the end."""

    def __init__(self, chosen, program):
        self.chosen, self.commit, self.machine = chosen, commit(program), machine()
        self.began = time.monotonic()
        self.cluster = None
        self.clusters = self.needless = 0
        self.sent = self.refused = self.acknowledged = 0
        self.uncounted = self.at_coordinator = self.without_effect = 0
        self.cycles = dict.fromkeys(options.KINDS + options.ASKED, 0)
        self.harms = dict.fromkeys(HARMS, 0)
        self.problems, self.lates, self.kept = [], [], []
        self.times = {"failover": {}, "cut": {}, "heal": {}, "whole": {}, "pace": {}}

    def cycle(self, fault, counts, hit, took):
        """One cycle is over."""
        self.cycles[fault.name] += counts
        self.uncounted += not counts
        self.without_effect += not fault.took_effect
        self.at_coordinator += bool(counts and hit)
        for phase, value in took.items():
            if value is not None:
                self.times[phase].setdefault(fault.name, []).append(value)
        told = ", ".join(f"{phase} {value:.0f} ms" for phase, value in took.items()
                         if value is not None)
        mark = "" if counts else " (does not count)"
        self.say(f"{sum(self.cycles.values()):4} {fault.name}: {fault.what}{mark}: {told}")

    def say(self, line):
        print(f"{time.monotonic() - self.began:7.1f} {line}", file=sys.stderr, flush=True)

    def problem(self, line, **more):
        """Something that must not be."""
        self.say(f"FOUND {line}")
        self.problems.append(line)
        if self.cluster is not None:
            self.keep(line, **more)

    def late(self, fault, phase, seconds, limit, excuse, wait):
        """Nobody, or not everybody, took records in time."""
        took = f"not within {limit} s" if seconds is None else f"{seconds * 1000:.0f} ms"
        line = f"{phase} behind {fault.name} ({fault.what}): {took}; meanwhile {excuse}"
        self.lates.append(line)
        if seconds is None and phase in ("heal", "whole"):
            self.problem(line, probes=wait.told(), after_a_second=wait.seen)
        else:
            self.keep(line, probes=wait.told(), after_a_second=wait.seen)

    def slow(self, fault, what):
        """The others did not come back to their rate in time."""
        self.lates.append(f"pace behind {fault.name} ({fault.what}): {what}")
        self.keep(self.lates[-1])

    def pause(self, node, seconds, excuse):
        """A node acknowledged nothing for a while, though nothing was wrong any more."""
        line = f"node {node} acknowledged nothing for {seconds * 1000:.0f} ms, after a heal"
        self.lates.append(f"{line}; meanwhile {excuse}")
        self.say(self.lates[-1])
        self.keep(self.lates[-1])

    def keep(self, line, **more):
        """The cluster's folder stays, with what is known now."""
        self.cluster.note(line, **more)
        if str(self.cluster.folder) not in self.kept:
            self.kept.append(str(self.cluster.folder))

    def harm(self, kind, count, names):
        """Records that are not where they must be, or are where none may be."""
        self.harms[kind] += count
        self.problem(f"{count} {kind}", records=names)

    def book(self, book):
        """What the clients of one cluster did."""
        sent, refused, acknowledged = book.outcomes()
        self.sent += sent
        self.refused += refused
        self.acknowledged += acknowledged

    def is_bad(self):
        return bool(self.problems) or any(self.harms.values())

    def is_hopeless(self):
        return len(self.problems) >= PROBLEMS

    def is_full(self):
        limit = self.chosen.cycles
        return limit is not None and sum(self.cycles.values()) >= limit

    def object(self):
        """One object with everything."""
        all_of = {phase: sum(by.values(), []) for phase, by in self.times.items()}
        spread = {f"{phase}_ms": quantiles(values) for phase, values in all_of.items()}
        for phase, by in self.times.items():
            spread[f"{phase}_ms"]["by"] = {name: quantiles(by[name]) for name in sorted(by)}
        harms = {kind: self.harms[kind] for kind in HARMS}
        return {
            "v": 1, "nodes": self.chosen.nodes, "seed": self.chosen.seed,
            "seconds": round(time.monotonic() - self.began, 1), "clusters": self.clusters,
            "cycles": self.cycles, "uncounted": self.uncounted,
            "without_effect": self.without_effect, "at_coordinator": self.at_coordinator,
            "sent": self.sent, "acknowledged": self.acknowledged, "refused": self.refused,
            "unknown": self.sent - self.acknowledged - self.refused, **harms, **spread,
            "needless_ballots": self.needless, "late": self.lates, "problems": self.problems,
            "kept": self.kept, "machine": self.machine, "commit": self.commit,
        }


def quantiles(values):
    """Of milliseconds; nothing of none."""
    ordered = sorted(values)

    def at(share):
        if not ordered:
            return None
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    return {"count": len(ordered), "p50": at(0.5), "p99": at(0.99), "max": at(1)}


def json_text(found):
    return json.dumps(found.object())


def text(found):
    """The same for people."""
    told, lines = found.object(), []
    for key, value in told.items():
        if key in ("late", "problems", "kept"):
            lines += [f"{key.rstrip('s'):18} {line}" for line in value]
        elif key.endswith("_ms"):
            lines.append(f"{key:18} {spread(value)}")
            lines += [f"  {name:16} {spread(by)}" for name, by in value["by"].items()]
        elif isinstance(value, dict):
            lines.append(f"{key:18} " + ", ".join(f"{name} {of}" for name, of in value.items()))
        else:
            lines.append(f"{key:18} {value}")
    return "\n".join(lines)


def spread(value):
    if not value["count"]:
        return "none"
    return ", ".join(f"{key} {value[key]}" for key in ("count", "p50", "p99", "max"))


def commit(program):
    """That of the binary under test; a world of the simulator tells it."""
    ended = subprocess.run([program, "sim", "--seed", "1", "--plan", "events=2000", "--format",
                            "json"],
                           capture_output=True, text=True, check=False)
    try:
        return json.loads(ended.stdout)["commit"]
    except (ValueError, KeyError):
        return "unknown"


def machine():
    """What it ran on."""
    cpu = [line.partition(":")[2].strip()
           for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
           if line.startswith("model name")]
    return {"cpu": cpu[0] if cpu else "unknown", "cores": os.cpu_count(),
            "kernel": os.uname().release, "load": round(os.getloadavg()[0], 1)}
