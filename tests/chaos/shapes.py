"""The shapes of a partition: which ways between nodes are cut.

Invariant: a shape is a set of pairs (from, to), each one direction; clients are never cut off.
"""

from itertools import permutations


def between(one, other):
    """Both ways between two groups."""
    return {(a, b) for a in one for b in other} | {(b, a) for a in one for b in other}


def alone(victim, ring):
    return between([victim], rest(victim, ring))


def deaf(victim, ring):
    return {(other, victim) for other in rest(victim, ring)}


def mute(victim, ring):
    return {(victim, other) for other in rest(victim, ring)}


def neighbours(victim, ring):
    return between([victim], [follower(victim, ring)])


def one_way(victim, ring):
    return {(victim, follower(victim, ring))}


def halves(victim, ring):
    """The victim is with the fewer."""
    fewer = turned(victim, ring)[: len(ring) // 2]
    return between(fewer, [node for node in ring if node not in fewer])


def bridge(victim, ring):
    """Two groups that only the victim reaches."""
    others = rest(victim, ring)
    middle = len(others) // 2
    return between(others[:middle], others[middle:])


def apart(victim, ring):
    return set(permutations(ring, 2))


SHAPES = {shape.__name__: shape
          for shape in (alone, deaf, mute, neighbours, one_way, halves, bridge, apart)}
NAMES = tuple(SHAPES)


def turned(victim, ring):
    """The ring from the victim on."""
    at = ring.index(victim)
    return ring[at:] + ring[:at]


def rest(victim, ring):
    return turned(victim, ring)[1:]


def follower(victim, ring):
    return turned(victim, ring)[1]


def able(nodes, cuts):
    """Nodes that see a majority, themselves included, in which all see each other both ways."""
    quorum = len(nodes) // 2 + 1
    sees = {a: {b for b in nodes if a != b and not {(a, b), (b, a)} & cuts} for a in nodes}

    def in_clique(members, candidates):
        if len(members) >= quorum:
            return True
        return any(in_clique(members | {node}, candidates & sees[node]) for node in candidates)

    return [node for node in nodes if in_clique({node}, sees[node])]
