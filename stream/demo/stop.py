"""Ends the demo on a signal, between two pieces of work: an exception in the middle of one could be lost there."""

import signal
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked the process to end. exit_code: as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopRequest:
    """Takes note of SIGNALS inside its `with` block; `check` raises Stopped after one."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._before = {number: signal.getsignal(number) for number in SIGNALS}

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self._number is not None:
            raise Stopped(self._number)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._number = self._number or number

    def __enter__(self) -> Self:
        for number in SIGNALS:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
