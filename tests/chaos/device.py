"""Orders to the device in a node's binary: power cuts, errors, slowness (`src/chaos/orders.rs`).

Invariant: an order that is not understood, or not answered, is an error here; nothing is passed
over in silence.
"""

import os
import select
import socket
import threading

SECONDS = 20
VARIABLE = "CHAINRING_CHAOS"


def always():
    """Orders for every start: to see what a planted fault comes to, or a slow disk."""
    return os.environ.get(VARIABLE, "") + ";"


class NoDevice(Exception):
    """The node is not there, or has no device."""


def order(folder, line, seconds=SECONDS):
    """Gives an order and returns the answer; that to a cut is the last word of the process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(seconds)
        try:
            stream.connect(str(folder / "log" / "chaos"))
            stream.sendall(line.encode() + b"\n")
            answer = stream.makefile().readline().strip()
        except OSError as error:
            raise NoDevice(f"{line}: {error}") from error
    if not answer:
        raise NoDevice(f"{line}: no answer")
    if answer.startswith("error"):
        raise ValueError(f"{line}: {answer}")
    return answer


def cut(folder, seed, after, waits):
    """The power fails, in the `after`-th change from now, but at the latest after a while; how many
    writes it altered, or `None` if the node was not there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(SECONDS)
        try:
            stream.connect(str(folder / "log" / "chaos"))
            if after:
                stream.sendall(f"cut {seed} after {after}\n".encode())
                if stream.recv(64) == b"ok\n" and not select.select([stream], [], [], waits)[0]:
                    after = 0
            if not after:
                stream.sendall(f"cut {seed}\n".encode())
            answer = stream.recv(64).decode()
        except OSError:
            return None
    word, _, altered = answer.strip().partition(" ")
    return int(altered) if word == "cut" else None


def cut_all(folders, seeds, afters, waits):
    """The power of several fails at once; what each cut altered."""
    altered = [None] * len(folders)

    def one(at):
        altered[at] = cut(folders[at], seeds[at], afters[at], waits)

    threads = [threading.Thread(target=one, args=(at,)) for at in range(len(folders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return altered
