"""Steady traffic while workers come and go: every partition always has something to count."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from stream.producer import Producer

USERS = 2_000


class Traffic:
    """Sends impressions at a steady pace until it is stopped."""

    def __init__(self, producer: Producer, per_second: int) -> None:
        self.sent = 0
        self._producer = producer
        self._per_second = per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")

    def start(self) -> None:
        """Assign all users, and begin."""
        now_ms = int(time.time() * 1000)
        for user in range(USERS):
            self._producer.assignment(
                event_id=f"a{user}", at=now_ms, user_id=f"u{user}", experiment="exp", arm="ab"[user % 2]
            )
        self.sent += USERS
        self._thread.start()

    @property
    def impressions(self) -> int:
        """How many of the events are impressions; the others are assignments."""
        return self.sent - USERS

    def stop(self) -> None:
        """End, with everything delivered."""
        self._stop.set()
        self._thread.join()
        self._producer.flush()

    def _run(self) -> None:
        portion = max(1, self._per_second // 20)
        while not self._stop.wait(portion / self._per_second):
            now_ms = int(time.time() * 1000)
            for number in range(self.sent, self.sent + portion):
                self._producer.impression(
                    event_id=f"i{number}", at=now_ms, user_id=f"u{number % USERS}", impression_id=f"i{number}",
                    request_id=f"r{number}", item_id=f"t{number % 100}", surface="home", position=0, model="m",
                    model_version="1",
                )  # fmt: skip
            self.sent += portion


@contextmanager
def traffic(broker: str, prefix: str, per_second: int) -> Iterator[Traffic]:
    """Traffic for as long as the block lasts."""
    with Producer(broker, topic_prefix=prefix) as producer:
        running = Traffic(producer, per_second)
        running.start()
        try:
            yield running
        finally:
            running.stop()
