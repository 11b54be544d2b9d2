"""Signals of a process that starts, runs, hangs, or is told twice."""

import os
import signal
import threading
from collections.abc import Callable, Iterator

import faust
import pytest

from stream.app.stopping import Stopping


class Process:
    """Remembers how it ended. `stops`: how often it was asked to end in order."""

    def __init__(self, *, grace_seconds: float = 60) -> None:
        self.codes: list[int] = []
        self.stops = 0
        self.ended = threading.Event()
        self.stopping = Stopping(exit=self._exit, grace_seconds=grace_seconds)
        self.stopping.install()

    def run(self, code: Callable[[], int] = int) -> None:
        self.stopping.connect(self._stop, code)

    def tell(self, number: signal.Signals = signal.SIGTERM) -> None:
        os.kill(os.getpid(), number)

    def _stop(self) -> None:
        self.stops += 1

    def _exit(self, code: int) -> None:
        self.codes.append(code)
        self.ended.set()


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_while_it_starts_ends_it_at_once() -> None:
    process = Process()
    process.tell()
    assert (process.codes, process.stops) == ([0], 0)


def test_a_signal_while_it_runs_lets_it_end_in_order() -> None:
    process = Process()
    process.run()
    process.tell()
    assert (process.codes, process.stops) == ([], 1)


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(second: signal.Signals, code: int) -> None:
    process = Process()
    process.run()
    process.tell()
    process.tell(second)
    assert (process.codes, process.stops) == ([code], 1)


def test_a_signal_after_a_failure_is_the_first_one() -> None:
    process = Process()
    process.run()
    process.stopping.begin()
    process.stopping.begin()
    process.tell()
    assert (process.codes, process.stops) == ([], 1)


@pytest.mark.parametrize("code", [0, 1])
def test_a_stop_that_hangs_ends_all_the_same(code: int) -> None:
    process = Process(grace_seconds=0.01)
    process.run(lambda: code)
    process.tell()
    assert process.ended.wait(10)
    assert process.codes == [code]


def test_the_private_names_of_faust_that_end_a_worker_are_still_there() -> None:
    for name in ("install_signal_handlers", "_schedule_shutdown", "_sentinel_task"):
        assert hasattr(faust.Worker, name), name
