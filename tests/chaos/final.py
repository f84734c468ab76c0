"""The end of a cluster: every node's whole log against the book, and against each other's.

Invariant: what counts is what a node serves and what lies on its disk, not what it says of itself.
"""

import hashlib
import threading

import book
import network
import web

WHOLE_SECONDS, READ_SECONDS = 60, 60
LINES = 200_000


def audit(cluster, pages, found):
    """Reads everything, stops the nodes in good order, and compares their logs on disk."""
    cluster.mind()
    if cluster.await_whole(WHOLE_SECONDS, threading.Event()) is None:
        found.problem(f"not whole {WHOLE_SECONDS} s behind the last fault, at the end")
    judged = {node: read(node, pages, found) for node in cluster.nodes}
    for kind in ("lost", "doubled", "moved", "strange"):
        names = set().union(*(getattr(one, kind) for one, _ in judged.values()))
        if names:
            found.harm(kind, len(names), {node: sorted(getattr(one, kind))[:10]
                                          for node, (one, _) in judged.items()})
    if len({digest for _, digest in judged.values()}) > 1:
        found.problem("the nodes serve different logs")
    found.book(pages)
    for node in list(cluster.processes):
        cluster.terminate(node)
    verify(cluster, found)


def read(node, pages, found):
    """The audit of one node, and a digest of all that it served."""
    judge, digest = book.Audit(pages), hashlib.blake2b()
    for topic, name in enumerate(book.TOPICS):
        offset = 0
        while True:
            path = f"/v1/logs/{name}?offset={offset}&limit={LINES}"
            answer = web.get(network.address(node), path, READ_SECONDS)
            if answer is None or answer[0] not in (200, 404):
                found.problem(f"node {node} did not serve {path}: {answer and answer[0]}")
                break
            if answer[0] == 404 or not answer[2]:
                break
            lines = answer[2].splitlines()
            judge.take(topic, offset, lines)
            digest.update(answer[2])
            offset += len(lines)
            if offset != int(answer[1]["Chainring-Next-Offset"]):
                found.problem(f"node {node}, {name}: {len(lines)} records do not end at "
                              f"{answer[1]['Chainring-Next-Offset']}, but at {offset}")
                break
        digest.update(b"%d" % offset)
    judge.finish()
    return judge, digest.digest()


def verify(cluster, found):
    """The logs on disk, by the command that compares them."""
    folders = [str(cluster.folder / str(node)) for node in cluster.nodes]
    try:
        network.tool(cluster.program, "verify", *folders)
    except RuntimeError as error:
        found.problem(str(error))
