"""CPU seconds of functions by stage, each stage without what it calls of other stages."""

import functools
import importlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.stages.budget import Stage


class _Thread(threading.local):
    """What one thread does now. running: stages that called each other, the innermost last."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.since = 0.0


class StageClock:
    """Adds the CPU time of each thread to the innermost stage that it runs; time outside of all is nobody's."""

    def __init__(self) -> None:
        self._thread = _Thread()
        self._lock = threading.Lock()
        self._seconds: Counter[str] = Counter()

    @property
    def seconds(self) -> dict[str, float]:
        """By stage, of the calls that have ended."""
        with self._lock:
            return dict(self._seconds)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; a call of it is the stage's."""

        @functools.wraps(function)
        def call(*args: Any, **words: Any) -> Any:
            thread = self._thread
            self._account(thread)
            thread.running.append(stage)
            try:
                return function(*args, **words)
            finally:
                self._account(thread)
                thread.running.pop()

        return call

    def _account(self, thread: _Thread) -> None:
        now = time.thread_time()
        if thread.running:
            with self._lock:
                self._seconds[thread.running[-1]] += now - thread.since
        thread.since = now


@contextmanager
def installed(stages: Sequence[Stage]) -> Iterator[StageClock]:
    """Time the stages' functions. Compile the kernels before: they cannot call what stands in for another kernel."""
    clock = StageClock()
    originals = []
    try:
        for stage in stages:
            for place in stage.functions:
                owner, name = resolve(place)
                originals.append((owner, name, getattr(owner, name)))
                setattr(owner, name, clock.timed(stage.name, getattr(owner, name)))
        yield clock
    finally:
        for owner, name, original in reversed(originals):
            setattr(owner, name, original)


def resolve(place: str) -> tuple[Any, str]:
    """Module or class and the name in it of `module:name` or `module:Class.name`; LookupError when it is gone."""
    module, _, path = place.partition(":")
    *outer, name = path.split(".")
    owner = importlib.import_module(module)
    for part in outer:
        owner = getattr(owner, part, None)
    if name not in vars(owner if owner is not None else object()):
        raise LookupError(f"{place} is gone: say in benchmarks/stages/budget.py where its work is done now")
    return owner, name
