"""The whole run: one cluster after another, each filled under faults and then read to its end.

Invariant: every cluster that took a record is audited, also if a signal ends the run.
"""

import time

import options
import report
from book import Book
from clients import Clients
from cluster import Cluster, binary
from cycles import Cycles
from final import audit
from network import Network

# Records of one cluster: a start reads the whole log, and is to stay short.
RECORDS = 100_000


def run(chosen, stop):
    """All of it; what was found."""
    program = binary(any(kind in options.DEVICE for kind in chosen.only))
    found = report.Report(chosen, program)
    ends = time.monotonic() + chosen.minutes * 60
    with Network(chosen.nodes) as lan:
        while time.monotonic() < ends and not stop.is_set() and not found.is_full():
            one_cluster(chosen, program, lan, found, ends, stop)
    return found


def one_cluster(chosen, program, lan, found, ends, stop):
    """One log from its first record to the audit."""
    with Cluster(program, lan, chosen.dir, found.problem) as cluster:
        found.cluster = cluster
        for node in cluster.nodes:
            cluster.start(node)
        found.clusters += 1
        book = Book()
        seed = f"{chosen.seed} {found.clusters}"
        if cluster.await_whole(60, stop) is None:
            if not stop.is_set():
                found.problem("the cluster was not ready 60 s after its first start")
            return
        clients = Clients(book, cluster.nodes, seed, found.problem)
        try:
            cycles = Cycles(chosen, cluster, clients, found, stop, seed)
            while (time.monotonic() < ends and not stop.is_set() and not found.is_full()
                   and book.acknowledged() < RECORDS and not found.is_hopeless()):
                cycles.one()
        finally:
            clients.end()
        audit(cluster, book, found)
        found.cluster = None
