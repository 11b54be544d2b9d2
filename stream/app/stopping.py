"""Ends the process when it is told to: in order if that takes little time, at once when it is told twice.

Ending at once loses nothing: whatever was not written is repeated from the journal. It only costs the next owner time.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)

GRACE_SECONDS = 12.0  # less than any supervisor's patience that is worth setting


class Stopping:
    """Takes SIGTERM and SIGINT from `install` on. exit: os._exit, which no thread or handler can delay."""

    def __init__(
        self, *, exit: Callable[[int], object] = os._exit, grace_seconds: float = GRACE_SECONDS
    ) -> None:
        self._exit = exit
        self._grace_seconds = grace_seconds
        self._stop: Callable[[], None] | None = None
        self._code: Callable[[], int] = int
        self._is_told = False
        self._is_begun = False

    def install(self) -> None:
        """Answer the signals. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def connect(self, stop: Callable[[], None], code: Callable[[], int]) -> None:
        """From now on there is something to end in order. code: of the exit if that takes too long."""
        self._stop, self._code = stop, code

    def begin(self) -> None:
        """End in order, as after a first signal; nothing happens when that goes on already."""
        if self._is_begun or self._stop is None:
            return
        self._is_begun = True
        deadline = threading.Timer(self._grace_seconds, self._give_up)
        deadline.daemon = True
        deadline.start()
        self._stop()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._stop is None:  # still starting: nothing was counted yet
            self._exit(0)
        elif self._is_told:
            self._exit(128 + number)
        else:
            self._is_told = True
            self.begin()

    def _give_up(self) -> None:
        log.warning(
            "The worker did not come to an end in %g s, as something does not answer, and ends now: nothing is lost, "
            "the next start repeats the last steps.",
            self._grace_seconds,
        )
        self._exit(self._code())
