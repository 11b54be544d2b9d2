"""What follows from a decision: its row, a message, a webhook, the flag file; each until it is done."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from stream.app.outlets import Message
from stream.decisions.book import Book, Page, Switches
from stream.decisions.deliveries import Deliveries, Receiver
from stream.decisions.flags import FlagFile
from stream.decisions.rows import decision_columns, version_of
from stream.decisions.telling import IDEMPOTENCY, content_of, key_of
from stream.decisions.webhook import Delivery

log = logging.getLogger(__name__)

OUTBOX = -1  # the outlet's number for our messages, beside those of partitions
GRACE_SECONDS = 10.0  # for another worker that may still be at it
PAUSE_SECONDS = 30.0  # between two attempts at a webhook, each of which repeats itself a few times
OLD_MS = 86_400_000  # what is older is not told any more


class Outlet(Protocol):
    """What we need of a KafkaOutlet."""

    def put(self, partition: int, step: int, messages: list[Message]) -> None:
        """Take messages."""
        ...

    def acked(self, partition: int) -> int:
        """Up to which step they are in Kafka."""
        ...


class Rows(Protocol):
    """What we need of sink.writer.Writer."""

    def put_rows(self, table: str, columns: Mapping[str, Any], *, generation: int, version: Any) -> None:
        """Take rows that belong to no step."""
        ...


@dataclass(slots=True)
class _Task:
    """A message or a webhook that is not known to be done. ticket: of the message that waits in the outlet."""

    page: Page
    action: str
    due_at: float
    is_resumed: bool = False
    is_under_way: bool = False
    ticket: int | None = None


class WorkerActions:
    """Carries actions out; `sweep` now and then. Called from one thread at a time, but for the webhooks' answers."""

    def __init__(
        self,
        book: Book,
        rows: Rows,
        outlet: Outlet,
        *,
        topic: str,
        receiver: Receiver | None = None,
        flag_file: FlagFile | None = None,
        now_ms: Callable[[], int],
        uptime: Callable[[], float],
    ) -> None:
        """topic: of decisions. now_ms: the machine's clock. uptime: seconds that never step back."""
        self._book = book
        self._rows = rows
        self._outlet = outlet
        self._topic = topic
        self._flag_file = flag_file
        self._now_ms = now_ms
        self._uptime = uptime
        self._tasks: dict[tuple[str, str], _Task] = {}
        self._tickets = 0
        self._lock = threading.Lock()  # guards _answers
        self._answers: list[tuple[Page, Delivery]] = []
        self._deliveries = Deliveries(receiver, self._answered) if receiver else None

    # What judge.Judge asks for

    def begin(self, page: Page) -> None:
        """See judge.Actions."""
        self._put_row(page)
        if page.decision.is_armed:
            for action in self._actions_of(page):
                self._start(_Task(page, action, self._uptime()))

    def resume(self, page: Page) -> None:
        """See judge.Actions."""
        self._put_row(page)
        since_ms = page.undone.at_ms if page.undone else page.decision.decided_at_ms
        if not page.decision.is_armed or self._now_ms() - since_ms > OLD_MS:
            return
        for action in self._actions_of(page):
            if _mark(page, action) not in page.done:
                due_at = self._uptime() + GRACE_SECONDS
                self._tasks.setdefault((key_of(page), action), _Task(page, action, due_at, is_resumed=True))

    def switch(self, switches: Switches) -> None:
        """See judge.Actions."""
        self._book.keep_switches(switches)
        self.show_flags()

    # Now and then

    def sweep(self) -> None:
        """Note what is done, and start what is due. Raises what the store raises."""
        while self._answers:
            self._note(*self._answers[0])
            with self._lock:
                self._answers.pop(0)
        for task in list(self._tasks.values()):
            if task.ticket is not None and self._outlet.acked(OUTBOX) >= task.ticket:
                self._finish(task, "sent")
            elif not task.is_under_way and task.due_at <= self._uptime():
                self._start(task)

    def is_busy_with(self, decision_id: str) -> bool:
        """Whether something about this decision is not done."""
        return any(task.page.decision.id == decision_id for task in self._tasks.values())

    def show_flags(self) -> None:
        """Bring the flag file up to date with what all workers have switched."""
        if self._flag_file is None:
            return
        try:
            if self._flag_file.show(self._book.switches()):
                log.info("The flag file was written.")
        except OSError as error:
            log.error("The flag file cannot be written and will be tried again: %s", error)

    def close(self) -> None:
        """Send the webhooks that wait, for a moment."""
        if self._deliveries is not None:
            self._deliveries.close()

    # One action

    def _put_row(self, page: Page) -> None:
        self._rows.put_rows(
            "decisions",
            decision_columns(page),
            generation=page.decision.generation,
            version=version_of(page),
        )

    def _actions_of(self, page: Page) -> list[str]:
        return ["message"] if self._deliveries is None else ["message", "webhook"]

    def _start(self, task: _Task) -> None:
        if task.is_resumed and self._is_done_by_another(task):
            self._tasks.pop((key_of(task.page), task.action), None)
            return
        task.is_under_way = True
        self._tasks[key_of(task.page), task.action] = task
        if task.action == "webhook":
            assert self._deliveries is not None
            self._deliveries.put(task.page)
            return
        task.ticket, self._tickets = self._tickets, self._tickets + 1
        key = key_of(task.page).encode()
        message = Message(self._topic, key, content_of(task.page), headers=((IDEMPOTENCY, key),))
        self._outlet.put(OUTBOX, task.ticket, [message])

    def _is_done_by_another(self, task: _Task) -> bool:
        page = self._book.page(task.page.decision.id)
        return page is None or _mark(task.page, task.action) in page.done

    def _answered(self, page: Page, delivery: Delivery) -> None:
        """In the webhooks' thread."""
        with self._lock:
            self._answers.append((page, delivery))

    def _note(self, page: Page, delivery: Delivery) -> None:
        task = self._tasks.get((key_of(page), "webhook"))
        if task is None:
            return
        is_old = self._now_ms() - page.decision.decided_at_ms > OLD_MS and page.undone is None
        if delivery.is_final or is_old:
            if not delivery.is_taken:
                log.error("The webhook of decision %s was not taken: %s.", key_of(page), delivery.how)
            self._finish(task, delivery.how)
            return
        log.warning("The webhook of decision %s will be tried again: %s.", key_of(page), delivery.how)
        task.is_under_way, task.due_at = False, self._uptime() + PAUSE_SECONDS

    def _finish(self, task: _Task, how: str) -> None:
        self._book.mark_done(task.page.decision.id, _mark(task.page, task.action), how)
        self._tasks.pop((key_of(task.page), task.action), None)


def _mark(page: Page, action: str) -> str:
    return action if page.undone is None else f"undo-{action}"
