"""How calm the machine is: the longest time that its disk and this process stood still.

Invariant: it excuses nothing; what came late is told with it, for whoever looks for the cause.
"""

import os
import threading
import time

PAUSE = 0.02
# What is shorter is no standstill.
SHORTEST = 0.05


class Calm(threading.Thread):
    """Writes a block through to the same disk again and again, and looks at the clock."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_DSYNC)
        self.ended = threading.Event()
        # (end, seconds) of each standstill.
        self.disk, self.process = [], []
        self.start()

    def run(self):
        while not self.ended.is_set():
            before = time.monotonic()
            os.pwrite(self.file, bytes(4096), 0)
            written = time.monotonic()
            self.keep(self.disk, written, written - before)
            time.sleep(PAUSE)
            slept = time.monotonic()
            self.keep(self.process, slept, slept - written - PAUSE)
        os.close(self.file)

    @staticmethod
    def keep(standstills, end, seconds):
        if seconds > SHORTEST:
            standstills.append((end, seconds))

    def worst(self, since):
        """The longest standstills that ended after a moment."""
        disk, process = (max((seconds for end, seconds in one if end > since), default=0)
                         for one in (self.disk, self.process))
        return f"the disk stood still for {disk * 1000:.0f} ms, this for {process * 1000:.0f} ms"

    def end(self):
        self.ended.set()
        self.join()
