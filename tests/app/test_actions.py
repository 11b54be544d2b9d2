"""What follows from decisions, with a receiver, an outlet and a writer in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from stream.app.actions import GRACE_SECONDS, OUTBOX, PAUSE_SECONDS, WorkerActions
from stream.app.outlets import Message
from stream.decisions.book import Book, Page, Switch, Switches
from stream.decisions.decision import Decision, Undone
from stream.decisions.flags import FlagFile
from stream.decisions.webhook import Delivery
from stream.sink.tables import SHAPES
from tests.decisions.makers import NOON_MS, a_decision, an_experiment
from tests.durability.fakes import DictStore

TAKEN = Delivery(is_taken=True, is_final=True, how="200")
BUSY = Delivery(is_taken=False, is_final=False, how="503")
REFUSED = Delivery(is_taken=False, is_final=True, how="410")


@dataclass
class Receiver:
    """Answers with what `answers` holds, then takes everything."""

    answers: list[Delivery] = field(default_factory=list)
    sent: list[Page] = field(default_factory=list)

    def send(self, page: Page) -> Delivery:
        self.sent.append(page)
        return self.answers.pop(0) if self.answers else TAKEN

    def close(self) -> None:
        pass


@dataclass
class Outlet:
    sent: list[Message] = field(default_factory=list)
    step: int = -1

    def put(self, partition: int, step: int, messages: list[Message]) -> None:
        assert partition == OUTBOX
        self.sent += messages

    def acked(self, partition: int) -> int:
        return self.step


@dataclass
class Rows:
    """Checks that the table takes what it is given."""

    put: list[tuple[str, int]] = field(default_factory=list)

    def put_rows(self, table: str, columns: Mapping[str, Any], *, generation: int, version: Any) -> None:
        rows = SHAPES[table].rows(columns, generation=generation, partition=0, version=version)
        self.put += [(row["id"], row["version"]) for row in rows.to_pylist()]


@dataclass
class World:
    store: DictStore = field(default_factory=DictStore)
    receiver: Receiver = field(default_factory=Receiver)
    outlet: Outlet = field(default_factory=Outlet)
    rows: Rows = field(default_factory=Rows)
    seconds: float = 0.0
    now_ms: int = NOON_MS + 5_000
    flag_file: FlagFile | None = None

    def actions(self) -> WorkerActions:
        return WorkerActions(
            Book(self.store), self.rows, self.outlet, topic="rec.decisions", receiver=self.receiver,
            flag_file=self.flag_file, now_ms=lambda: self.now_ms, uptime=lambda: self.seconds,
        )  # fmt: skip

    def decided(self, **fields: Any) -> Page:
        """A decision that stands in the book."""
        decision: Decision = a_decision(**fields)
        Book(self.store).write(decision)
        return Page(decision)

    def done(self) -> dict[str, bytes]:
        return {
            path.rpartition("/")[2]: data for path, data in self.store.objects.items() if "/done/" in path
        }


def settle(actions: WorkerActions) -> None:
    """End the webhooks' thread, and note what it said."""
    actions.close()
    actions.sweep()


def test_a_decision_becomes_a_row_a_message_and_a_webhook_and_is_done_when_they_arrived() -> None:
    world = World()
    actions = world.actions()
    page = world.decided()
    actions.begin(page)
    assert world.rows.put == [(page.decision.id, 1)]
    assert [message.key for message in world.outlet.sent] == [page.decision.id.encode()]
    settle(actions)
    assert world.done() == {"webhook": b"200"}
    world.outlet.step = 0
    actions.sweep()
    assert world.done() == {"webhook": b"200", "message": b"sent"}
    assert world.receiver.sent == [page]


def test_a_dry_run_is_only_a_row() -> None:
    world = World()
    actions = world.actions()
    actions.begin(world.decided(is_armed=False))
    settle(actions)
    assert len(world.rows.put) == 1
    assert (world.outlet.sent, world.receiver.sent) == ([], [])


def test_a_busy_receiver_is_asked_again_later_and_a_refusal_ends_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(receiver=Receiver([BUSY, REFUSED]))
    actions = world.actions()
    actions.begin(world.decided())
    settle(actions)
    assert world.done() == {}
    again = world.actions()
    again.resume(world.decided())
    for world.seconds in (GRACE_SECONDS, GRACE_SECONDS + PAUSE_SECONDS):
        again.sweep()
    settle(again)
    assert world.done() == {"webhook": b"410"}
    assert "was not taken: 410" in caplog.text


def test_what_an_earlier_owner_left_undone_is_completed_after_a_while() -> None:
    world = World()
    page = world.decided()
    Book(world.store).mark_done(page.decision.id, "message", "sent")
    actions = world.actions()
    actions.resume(replace(page, done=frozenset({"message"})))
    assert world.rows.put == [(page.decision.id, 1)]
    actions.sweep()
    assert world.receiver.sent == []
    world.seconds = GRACE_SECONDS
    actions.sweep()
    settle(actions)
    assert [sent.decision for sent in world.receiver.sent] == [page.decision]
    assert world.outlet.sent == []


def test_what_the_earlier_owner_did_meanwhile_is_not_repeated() -> None:
    world = World()
    page = world.decided()
    actions = world.actions()
    actions.resume(page)
    for action in ("message", "webhook"):
        Book(world.store).mark_done(page.decision.id, action, "200")
    world.seconds = GRACE_SECONDS
    actions.sweep()
    settle(actions)
    assert (world.outlet.sent, world.receiver.sent) == ([], [])


def test_old_decisions_are_not_told_to_a_receiver_that_is_new() -> None:
    world = World(now_ms=NOON_MS + 2 * 86_400_000)
    actions = world.actions()
    actions.resume(world.decided())
    world.seconds = 1_000
    actions.sweep()
    settle(actions)
    assert world.receiver.sent == []


def test_an_undoing_is_told_and_replaces_the_row() -> None:
    world = World()
    actions = world.actions()
    page = replace(world.decided(), undone=Undone("ann", "a known outage", NOON_MS + 4_000))
    actions.begin(page)
    settle(actions)
    assert world.rows.put == [(page.decision.id, 2)]
    assert world.outlet.sent[0].key == f"{page.decision.id}/undo".encode()
    assert world.done() == {"undo-webhook": b"200"}


def test_a_flag_file_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(flag_file=FlagFile(tmp_path / "gone" / "flags.json", [an_experiment()]))
    actions = world.actions()
    actions.switch(Switches("ranker", {"new": Switch("old", "ranker/ctr-worse/new/1")}))
    actions.close()
    assert "The flag file cannot be written" in caplog.text
    assert [switches.experiment for switches in Book(world.store).switches()] == ["ranker"]
