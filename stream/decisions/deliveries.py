"""Webhooks in a thread of their own, so that a slow receiver holds nothing up."""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

from stream.decisions.book import Page
from stream.decisions.telling import key_of
from stream.decisions.webhook import Delivery

log = logging.getLogger(__name__)

Answered = Callable[[Page, Delivery], None]


class Receiver(Protocol):
    """What we need of a Webhook."""

    def send(self, page: Page) -> Delivery:
        """Tell about a decision or its undoing."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Deliveries:
    """Sends what is put, one after the other, and says what became of it, in its own thread."""

    def __init__(self, receiver: Receiver, answered: Answered) -> None:
        self._receiver = receiver
        self._answered = answered
        self._waiting: SimpleQueue[Page | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def put(self, page: Page) -> None:
        """Send this soon."""
        self._waiting.put(page)

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Send what waits, for at most this time; the next owner sends the rest."""
        self._waiting.put(None)
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (page := self._waiting.get()) is not None:
            try:
                delivery = self._receiver.send(page)
            except Exception:  # nothing that a receiver does may end the thread
                log.exception("Webhook %s failed.", key_of(page))
                delivery = Delivery(is_taken=False, is_final=False, how="a fault of our own")
            self._answered(page, delivery)
        self._receiver.close()
