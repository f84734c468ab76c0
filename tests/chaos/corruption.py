"""Bytes of closed files that are others: what a disk does to a stopped node's log at rest.

A walk over the segments finds the groups by the format (docs/FORMAT.md); only sealed ones are hurt:
those with a later group behind them in the log of a node that ended in good order.

Invariant: of every value some node keeps a good copy; `minority` hurts one node only, `helix` all
of them, each where another one is spared.
"""

import mmap
import struct

HEADER, ALIGN = 128, 4096
ORDER_BLOCK, SEAL = 2, 3
# Instances in a row that a helix spares on one node.
STRETCH = 64
WAYS = ("flip", "zero", "swap", "truncate")


class Group:
    """A group as it lies in a file."""

    def __init__(self, path, at, bytes_, instances):
        self.path, self.at, self.bytes = path, at, bytes_
        # Instances that it orders.
        self.instances = instances


def groups(path):
    """All groups of a segment, in order."""
    found = []
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        at = ALIGN
        while at + ALIGN <= len(held) and held[at + 54] in (ORDER_BLOCK, SEAL):
            size, = struct.unpack_from("<I", held, at + 56)
            orders, values, value_bytes = struct.unpack_from("<III", held, at + 192)
            end = at + size + value_bytes
            # Cut short, or hurt before.
            if end > len(held) or 208 + 48 * orders > size:
                break
            instances = [struct.unpack_from("<Q", held, at + 208 + 48 * one + 32)[0]
                         for one in range(orders)]
            found.append(Group(path, at, size + value_bytes, instances))
            at = -(-end // ALIGN) * ALIGN
    return found


def sealed(folder):
    """The sealed groups of a log: all but the last two, of which one is the seal."""
    found = []
    for path in sorted((folder / "log").glob("segment-*.log")):
        found += groups(path)
    return [group for group in found[:-2] if group.bytes > ALIGN or group.instances]


def spared(group, index, nodes):
    """Whether a helix spares a group on the node with this index: another one loses it there."""
    owners = {instance // STRETCH % nodes for instance in group.instances}
    return not owners or index in owners


def hurt(group, way, random, others):
    """Changes bytes of a group; what was done, or `None` if nothing is other than before."""
    with open(group.path, "r+b") as file:
        if way == "truncate":
            file.truncate(group.at + random.randrange(0, group.bytes))
            return f"cut at {group.at}"
        at = group.at + random.randrange(group.bytes)
        if way == "flip":
            before = read(file, at, 1)
            after = bytes([before[0] ^ 1 << random.randrange(8)])
        elif way == "zero":
            length = min(random.choice((1, 64, 512, 4096)), group.at + group.bytes - at)
            before, after = read(file, at, length), bytes(length)
        else:
            # A block of another group lies here as well.
            other = random.choice(others)
            at = group.at + random.randrange(0, group.bytes) // ALIGN * ALIGN
            length = min(ALIGN, group.at + group.bytes - at)
            before = read(file, at, length)
            with open(other.path, "rb") as source:
                after = read(source, other.at, length)
        file.seek(at)
        file.write(after)
        return f"{way} at {at}" if before != after else None


def read(file, at, length):
    file.seek(at)
    return file.read(length)


def minority(folder, random, most=4):
    """Hurts one node's log; what was done."""
    found = sealed(folder)
    if not found:
        return []
    done = [hurt(random.choice(found), random.choice(WAYS[:3]), random, found)
            for _ in range(random.randint(1, most))]
    if random.random() < 0.2:
        done.append(hurt(random.choice(found), "truncate", random, found))
    return [one for one in done if one]


def helix(folders, random, share=0.02):
    """Hurts all logs, each where another one is spared; what was done."""
    done = []
    for index, folder in enumerate(folders):
        found = [group for group in sealed(folder)]
        free = [group for group in found if not spared(group, index, len(folders))]
        # Of the groups that may go a few do.
        for group in random.sample(free, min(len(free), max(1, int(share * len(free))))):
            done.append(hurt(group, random.choice(WAYS[:3]), random, found))
    return [one for one in done if one]
