"""Steady traffic while workers come and go: every partition always has something to count."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from stream.producer import Producer

USERS = 2_000


class Traffic:
    """Sends impressions at a steady pace until it is stopped."""

    def __init__(self, producer: Producer, per_second: int, users: int) -> None:
        self.sent = 0
        self._users = users
        self._producer = producer
        self._per_second = per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")

    def start(self) -> None:
        """Assign all users, show each an impression, and begin."""
        now_ms = int(time.time() * 1000)
        for user in range(self._users):
            self._producer.assignment(
                event_id=f"a{user}", at=now_ms, user_id=f"u{user}", experiment="exp", arm="ab"[user % 2]
            )
        self.sent += self._users
        self._show(self._users)
        self._thread.start()

    @property
    def impressions(self) -> int:
        """How many of the events are impressions; the others are assignments."""
        return self.sent - self._users

    def stop(self) -> None:
        """End, with everything delivered."""
        self._stop.set()
        self._thread.join()
        self._producer.flush()

    def _run(self) -> None:
        portion = max(1, self._per_second // 20)
        while not self._stop.wait(portion / self._per_second):
            self._show(portion)

    def _show(self, count: int) -> None:
        now_ms = int(time.time() * 1000)
        for number in range(self.sent, self.sent + count):
            self._producer.impression(
                event_id=f"i{number}", at=now_ms, user_id=f"u{number % self._users}", impression_id=f"i{number}",
                request_id=f"r{number}", item_id=f"t{number % 100}", surface="home", position=0, model="m",
                model_version="1",
            )  # fmt: skip
        self.sent += count


@contextmanager
def traffic(broker: str, prefix: str, per_second: int, users: int = USERS) -> Iterator[Traffic]:
    """Traffic for as long as the block lasts."""
    with Producer(broker, topic_prefix=prefix) as producer:
        running = Traffic(producer, per_second, users)
        running.start()
        try:
            yield running
        finally:
            running.stop()
