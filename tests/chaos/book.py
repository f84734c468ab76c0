"""The book of all records: who sent what, what became of it, and what a log may therefore hold.

Invariants: a record is sent once, and its bytes follow from its writer and number, so any read
byte can be judged; only the writer's own thread writes its page, a record before it is sent.
"""

from array import array

TOPICS = ("alpha", "beta", "gamma")
SENT, REFUSED, ACKNOWLEDGED = 1, 2, 3
FILLER = b"the quick brown fox jumps over the lazy dog and runs on through the night. " * 3


def record(writer, number):
    """A record's bytes, its line feed included."""
    length = (writer * 31 + number * 17) % 200
    return b"%d.%d." % (writer, number) + FILLER[:length] + b"\n"


class Page:
    """The records of one writer."""

    def __init__(self, writer):
        self.writer = writer
        self.state = bytearray()
        self.topic = bytearray()
        # An acknowledged record lies at one offset from `low` to `high`: of a body's records the
        # first and the last are told, and between them others may lie.
        self.low = array("q")
        self.high = array("q")
        self.acknowledged = 0

    def begin(self, topic, count):
        """Records that were never sent before."""
        first = len(self.state)
        self.topic.extend([topic] * count)
        self.low.extend([-1] * count)
        self.high.extend([-1] * count)
        self.state.extend([SENT] * count)
        return first, [record(self.writer, number) for number in range(first, first + count)]

    def refuse(self, first, count):
        self.state[first : first + count] = bytes([REFUSED]) * count

    def acknowledge(self, first, count, low, high):
        """False if the offsets cannot be those of so many records."""
        if high - low + 1 < count:
            return False
        for at in range(count):
            self.low[first + at] = low + at
            self.high[first + at] = high - (count - 1 - at)
        self.high[first] = low
        self.low[first + count - 1] = high
        self.state[first : first + count] = bytes([ACKNOWLEDGED]) * count
        self.acknowledged += count
        return True


class Book:
    """All pages of one cluster."""

    def __init__(self):
        self.pages = []

    def page(self):
        """A page for a new writer; called by one thread only."""
        page = Page(len(self.pages))
        self.pages.append(page)
        return page

    def acknowledged(self):
        return sum(page.acknowledged for page in self.pages)

    def outcomes(self):
        """Records that were sent, and of them those that were refused and acknowledged."""
        pages = self.pages
        return (sum(len(page.state) for page in pages),
                sum(page.state.count(REFUSED) for page in pages), self.acknowledged())


class Audit:
    """One node's whole log against the book."""

    def __init__(self, book):
        self.book = book
        self.found = [array("q", [-1]) * len(page.state) for page in book.pages]
        self.lost, self.doubled, self.moved, self.strange = set(), set(), set(), set()

    def take(self, topic, offset, lines):
        """The records of a topic from an offset on."""
        for line in lines:
            self.judge(topic, offset, line)
            offset += 1

    def judge(self, topic, offset, line):
        try:
            writer, number = map(int, line.split(b".", 2)[:2])
            page, found = self.book.pages[writer], self.found[writer]
            known = 0 <= number < len(found) and record(writer, number) == line + b"\n"
        except (ValueError, IndexError):
            known = False
        if not known or page.topic[number] != topic or page.state[number] == REFUSED:
            self.strange.add((TOPICS[topic], offset, line[:40].decode("latin-1")))
            return
        name = (writer, number)
        if found[number] >= 0:
            self.doubled.add(name)
        found[number] = offset
        if page.state[number] == ACKNOWLEDGED:
            if not page.low[number] <= offset <= page.high[number]:
                self.moved.add(name)

    def finish(self):
        """What was acknowledged and did not come."""
        for page, found in zip(self.book.pages, self.found):
            for number, offset in enumerate(found):
                if offset < 0 and page.state[number] == ACKNOWLEDGED:
                    self.lost.add((page.writer, number))
