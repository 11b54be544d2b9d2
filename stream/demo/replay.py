"""Sends the demo's events in the background, at a pace one can watch."""

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from stream.contracts.topics import Topic
from stream.demo.events import DemoEvent
from stream.producer import Producer

PACE_EVENTS = 500  # how many are sent between two looks at the clock


class Replay:
    """Sends `events` over `seconds` in a thread of its own, from the start of the `with` block on.

    `check` raises what went wrong in the thread; `sent` counts by topic.
    """

    def __init__(self, events: Sequence[DemoEvent], broker: str, topic_prefix: str, seconds: float) -> None:
        self.sent = dict.fromkeys(Topic, 0)
        self.is_finished = False
        self._events = events
        self._broker = broker
        self._topic_prefix = topic_prefix
        self._seconds = seconds
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)

    def check(self) -> None:
        """Raise the error that ended the thread, if one did."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with Producer(self._broker, topic_prefix=self._topic_prefix) as producer:
                self._send(producer)
            self.is_finished = not self._stop.is_set()
        except BaseException as error:
            self._error = error

    def _send(self, producer: Producer) -> None:
        started_at = time.monotonic()
        for number, (topic, event) in enumerate(self._events):
            if number % PACE_EVENTS == 0:
                due = started_at + self._seconds * number / len(self._events)
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return
            producer.send(topic, event)
            self.sent[topic] += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
