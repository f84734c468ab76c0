"""The judge is judged: a log with one fact bent is called by its name; shapes cut what they say.

`python3 -m unittest discover --start-directory tests/chaos --pattern '*_tests.py'`
"""

import pathlib
import struct
import tempfile
import time
import types
import unittest

import book
import clients
import corruption
import errors
import shapes


class Judge(unittest.TestCase):
    """A writer sent six records in two bodies; the first was acknowledged, the second refused."""

    def setUp(self):
        self.book = book.Book()
        page = self.book.page()
        first, self.sent = page.begin(1, 3)
        self.assertTrue(page.acknowledge(first, 3, 10, 12))
        first, self.refused = page.begin(1, 3)
        page.refuse(first, 3)
        _, self.unknown = page.begin(1, 2)

    def judge(self, records, offset=10, topic=1):
        audit = book.Audit(self.book)
        audit.take(topic, offset, [record.rstrip(b"\n") for record in records])
        audit.finish()
        return {name: len(getattr(audit, name)) for name in ("lost", "doubled", "moved", "strange")
                if getattr(audit, name)}

    def test_what_was_told_is_there(self):
        self.assertEqual(self.judge(self.sent), {})
        self.assertEqual(self.judge(self.sent + self.unknown), {})

    def test_lost(self):
        self.assertEqual(self.judge(self.sent[:2]), {"lost": 1})
        self.assertEqual(self.judge([]), {"lost": 3})

    def test_doubled(self):
        self.assertEqual(self.judge(self.sent + self.unknown * 2), {"doubled": 2})

    def test_moved(self):
        self.assertEqual(self.judge(self.sent, offset=11), {"moved": 3})
        self.assertEqual(self.judge([self.sent[0], self.sent[2], self.sent[1]]), {"moved": 2})

    def test_refused(self):
        self.assertEqual(self.judge(self.sent + self.refused[:1]), {"strange": 1})

    def test_bent_bytes_other_topic_and_what_nobody_sent(self):
        bent = self.sent[1].replace(b"quick", b"quack")
        self.assertNotEqual(bent, self.sent[1])
        self.assertEqual(self.judge([self.sent[0], bent, self.sent[2]]), {"strange": 1, "lost": 1})
        self.assertEqual(self.judge(self.sent, topic=2), {"strange": 3, "lost": 3})
        foreign = [b"", b"x", b"7.0.", book.record(0, 8), b"0.-1."]
        self.assertEqual(self.judge(self.sent + foreign), {"strange": 5})

    def test_between_the_records_of_a_body_others_may_lie(self):
        page = self.book.page()
        first, sent = page.begin(1, 3)
        self.assertTrue(page.acknowledge(first, 3, 13, 16))
        all_of = [*self.sent, *sent[:2], self.unknown[0], sent[2]]
        self.assertEqual(self.judge(all_of), {})
        self.assertEqual(self.judge([*self.sent, self.unknown[0], *sent]), {"moved": 1})
        self.assertFalse(page.acknowledge(first, 3, 20, 21))


class Errors(unittest.TestCase):
    """What a node does behind a failed operation is judged by its cell."""

    def judge(self, must, code, met=True):
        told = []
        cell = errors.Cell("log", "EIO", "load", must)
        running = types.SimpleNamespace(poll=lambda: code)
        cluster = types.SimpleNamespace(processes={1: running}, said=lambda *_: [])
        trial = errors.Trial(cluster, 1, cell, told.append)
        trial.met = met
        trial.judge()
        return bool(told)

    def test_who_has_to_end_ends_with_one(self):
        self.assertFalse(self.judge("end", 1))
        for code in (None, 0, 2, -9, -6):
            self.assertTrue(self.judge("end", code), code)
        self.assertFalse(self.judge("end", None, met=False))

    def test_who_can_go_on_does(self):
        self.assertFalse(self.judge("run", None))
        self.assertTrue(self.judge("run", 1))
        self.assertTrue(self.judge("any", -6))

    def test_there_are_sixty_cells_and_none_twice(self):
        self.assertGreaterEqual(len(set(errors.cells())), 60)
        self.assertEqual(len(set(errors.cells())), len(errors.cells()))


class Corruption(unittest.TestCase):
    """Groups are found where they lie, and a helix spares each stretch somewhere."""

    def test_groups_of_a_segment(self):
        def group(orders, values, size):
            head = bytearray(size)
            head[54] = corruption.ORDER_BLOCK
            struct.pack_into("<I", head, 56, size)
            struct.pack_into("<III", head, 192, len(orders), values, 1024)
            for at, instance in enumerate(orders):
                struct.pack_into("<Q", head, 208 + 48 * at + 32, instance)
            whole = bytes(head) + b"v" * 1024
            return whole + bytes(-len(whole) % corruption.ALIGN)

        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "segment-00000000.log"
            written = group([5, 6], 1, 512) + group([7], 1, 4096)
            path.write_bytes(bytes(4096) + written + bytes(8192))
            found = corruption.groups(path)
            self.assertEqual([(one.at, one.bytes, one.instances) for one in found],
                             [(4096, 1536, [5, 6]), (8192, 5120, [7])])
            path.write_bytes(path.read_bytes()[:9000])
            self.assertEqual(len(corruption.groups(path)), 1)

    def test_a_helix_spares_every_stretch_on_one_node(self):
        for instance in range(0, 1000, 7):
            group = corruption.Group("", 0, 0, [instance])
            spared = [index for index in range(3) if corruption.spared(group, index, 3)]
            self.assertEqual(len(spared), 1)


class Pauses(unittest.TestCase):
    """A node that acknowledges nothing is noticed, while it lasts and when it is over."""

    def test_only_long_ones_that_began_after_the_heal_count(self):
        pulse = clients.Pulse([1, 2])
        now = time.monotonic()
        pulse.last = {1: now - 3, 2: now - 0.5}
        self.assertEqual([*pulse.since(now - 4)], [1])
        self.assertEqual(pulse.since(now - 2), {})
        pulse.beat(1)
        pulse.beat(2)
        self.assertEqual([*pulse.since(now - 4)], [1])
        self.assertGreaterEqual(pulse.since(now - 4)[1], 3)


class Shapes(unittest.TestCase):
    """Three and five nodes; node 2 is the victim."""

    def able(self, shape, nodes):
        ring = list(range(1, nodes + 1))
        return shapes.able(ring, shapes.SHAPES[shape](2, ring))

    def test_who_can_go_on(self):
        everyone, others = [1, 2, 3, 4, 5], [1, 3, 4, 5]
        wanted = {"alone": others, "deaf": others, "mute": others, "neighbours": everyone,
                  "one_way": everyone, "halves": [1, 4, 5], "bridge": everyone, "apart": []}
        self.assertEqual({shape: self.able(shape, 5) for shape in shapes.NAMES}, wanted)
        self.assertEqual(self.able("alone", 3), [1, 3])
        self.assertEqual(self.able("halves", 3), [1, 3])
        self.assertEqual(self.able("apart", 3), [])

    def test_what_is_cut(self):
        ring = [1, 2, 3]
        self.assertEqual(shapes.one_way(2, ring), {(2, 3)})
        self.assertEqual(shapes.deaf(2, ring), {(1, 2), (3, 2)})
        self.assertEqual(shapes.bridge(2, ring), {(1, 3), (3, 1)})
        self.assertEqual(len(shapes.apart(2, ring)), 6)


if __name__ == "__main__":
    unittest.main()
