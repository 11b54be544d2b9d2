"""Ends a process that stands still, so that its partitions move to another one.

Kafka would not notice: its client answers heartbeats in a thread of its own, and leaves the group only when nothing
was polled for `broker_max_poll_interval`: practically never here, as such a member does not come back by itself.
"""

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

EVERY_SECONDS = 1.0


def end_process() -> None:
    """At once, like kill -9: a thread that hangs cannot be waited for, and nothing that was acknowledged is lost."""
    faulthandler.dump_traceback(file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


class Watchdog:
    """A thread that asks `stalls` every second and calls `end` when it answers something."""

    def __init__(
        self,
        stalls: Callable[[], list[str]],
        *,
        end: Callable[[], None] = end_process,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._stalls = stalls
        self._end = end
        self._every_seconds = every_seconds
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._closing.wait(self._every_seconds):
            if stalls := self._stalls():
                log.critical("This worker ends itself so that others take over: %s.", "; ".join(stalls))
                self._end()
                return

    def close(self) -> None:
        """Watch no longer."""
        self._closing.set()
        self._thread.join()
