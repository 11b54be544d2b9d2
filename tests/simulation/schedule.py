"""Simulated time: one queue of calls for all simulated processes, and an event loop for each of them.

Nothing here reads a real clock, starts a thread or polls. The order of calls depends on the seed alone.
"""

import asyncio
import contextvars
import heapq
import zlib
from collections.abc import Callable
from typing import Any

Context = contextvars.Context


class Broken(BaseException):
    """An invariant does not hold. Not an Exception: nothing between here and the simulation may catch it."""


class Crash(BaseException):
    """The process is gone."""


class Call:
    """One call at a time; also what asyncio takes for a handle."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "process", "seq", "when_ms")

    def __init__(
        self,
        when_ms: float,
        seq: int,
        process: "Life | None",
        callback: Callable[..., object],
        args: Any,
        context: Any,
    ) -> None:
        self.when_ms, self.seq = when_ms, seq
        self.process = process
        self.callback, self.args, self.context = callback, args, context
        self.is_cancelled = False

    def __lt__(self, other: "Call") -> bool:
        return (self.when_ms, self.seq) < (other.when_ms, other.seq)

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.when_ms / 1000


class Life:
    """Whether a process lives, and until when it stands still. A process that stands still keeps all its memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.frozen_until_ms = 0.0
        self.is_on_stack = False  # it stands still in the middle of a call
        self.will_stand_still: tuple[str, float] | None = (
            None  # at the next effect of this kind, for so many ms
        )
        self.parked: list[Call] = []

    def is_asleep(self, now_ms: float) -> bool:
        """It stands still."""
        return self.is_on_stack or self.frozen_until_ms > now_ms


class Schedule:
    """Runs calls in the order of their times, and of their making where times are equal."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.depth = 0
        self.trace = 0  # a checksum of all that has happened, for comparing two runs of a seed
        self.told: list[str] | None = None  # all that has happened, when somebody wants to read it
        self.broken: Broken | None = None
        self._calls: list[Call] = []
        self._seq = 0

    def note(self, what: str) -> None:
        """Make an event part of the trace."""
        line = f"{self.now_ms:10.3f} {what}"
        self.trace = zlib.crc32(line.encode(), self.trace)
        if self.told is not None:
            self.told.append(line)

    def fail(self, what: str) -> Broken:
        """Note a broken invariant; raise what this returns. The first one is what the seed ends with."""
        self.note(f"BROKEN {what}")
        self.broken = self.broken or Broken(what)
        return self.broken

    def at(
        self,
        when_ms: float,
        callback: Callable[..., object],
        *args: Any,
        process: Life | None = None,
        context: Context | None = None,
    ) -> Call:
        """Call at a time, unless the process is gone by then; a process that stands still is called afterwards."""
        self._seq += 1
        call = Call(max(when_ms, self.now_ms), self._seq, process, callback, args, context)
        if process is None or not process.is_dead:
            heapq.heappush(self._calls, call)
        return call

    def run(self, until_ms: float) -> None:
        """Let time pass."""
        while self._calls and self._calls[0].when_ms <= until_ms:
            call = heapq.heappop(self._calls)
            self.now_ms = max(self.now_ms, call.when_ms)
            self._run(call)
            if self.broken is not None:
                raise self.broken
        self.now_ms = max(self.now_ms, until_ms)

    def stand_still(self, process: Life, ms: float) -> None:
        """Suspend a process in the middle of a call while all others go on; raises Crash when it ended meanwhile."""
        if self.depth >= 3 or process.is_on_stack:
            return
        running = asyncio._get_running_loop()
        process.frozen_until_ms = self.now_ms + ms
        process.is_on_stack = True
        self.depth += 1
        asyncio._set_running_loop(None)
        try:
            while self.now_ms < process.frozen_until_ms and not process.is_dead:
                self.run(process.frozen_until_ms)
        finally:
            asyncio._set_running_loop(running)
            self.depth -= 1
            process.is_on_stack = False
        if process.is_dead:
            raise Crash
        self._wake(process)

    def _wake(self, process: Life) -> None:
        parked, process.parked = process.parked, []
        for call in parked:
            heapq.heappush(self._calls, call)

    def _run(self, call: Call) -> None:
        process = call.process
        if call.is_cancelled or (process is not None and process.is_dead):
            return
        if process is not None and process.is_on_stack:
            process.parked.append(call)
        elif process is not None and process.frozen_until_ms > self.now_ms:
            call.when_ms = process.frozen_until_ms
            heapq.heappush(self._calls, call)
        elif call.context is None:
            call.callback(*call.args)
        else:
            call.context.run(call.callback, *call.args)


class ProcessLoop(asyncio.AbstractEventLoop):
    """The event loop of one simulated process: as much of it as tasks, futures, locks and timeouts need."""

    def __init__(self, schedule: Schedule, life: Life, thread_delay_ms: Callable[[], float]) -> None:
        self._schedule = schedule
        self._life = life
        self._thread_delay_ms = thread_delay_ms
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        return self._schedule.now_ms / 1000

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self.call_at(0.0, callback, *args, context=context)

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self._schedule.at(
            when * 1000,
            self._run,
            callback,
            args,
            process=self._life,
            context=context or contextvars.copy_context(),
        )

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **more: Any) -> Any:  # type: ignore[override]
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.Task(coro, loop=self, **more))
        return self._tasks[-1]

    def abandon(self) -> None:
        """Close what has not come to its end."""
        for task in self._tasks:
            if not task.done():
                task.get_coro().close()  # type: ignore[union-attr]

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """A thread: the call is made a moment later, as a whole. Only there may a process stand still in a call."""
        done = self.create_future()
        self._schedule.at(
            self._schedule.now_ms + self._thread_delay_ms(), self._run, self._in_thread, (done, func, args),
            process=self._life,
        )  # fmt: skip
        return done

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task of a process that is gone, usually."""
        error = context.get("exception")
        if error is not None and not isinstance(error, Crash) and not self._life.is_dead:
            self._schedule.fail(f"{self._life.name}: {error!r}")

    def _run(self, callback: Any, args: Any) -> None:
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            callback(*args)
        except Crash:
            self._life.is_dead = True
        finally:
            asyncio._set_running_loop(before)

    @staticmethod
    def _in_thread(done: "asyncio.Future[Any]", func: Any, args: Any) -> None:
        try:
            result = func(*args)
        except Exception as error:
            if not done.cancelled():
                done.set_exception(error)
        else:
            if not done.cancelled():
                done.set_result(result)
