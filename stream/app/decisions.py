"""Decisions in the worker: experiments as they stand are judged, and what follows is seen to, round by round.

An experiment with a baseline is compared with that arm too, for the view `baseline_lift`.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import FaustError
from faust.types import TP
from mode import Service

from stream.app.actions import WorkerActions
from stream.app.outlets import KafkaOutlet
from stream.app.rolling import RollingWindows
from stream.app.rulings import Case, Rulings
from stream.contracts.definitions import DAY_MS, Definitions
from stream.contracts.guardrails import Role
from stream.decisions.book import Book
from stream.decisions.figures import WindowCounts
from stream.decisions.flags import FlagFile
from stream.decisions.judge import Judge
from stream.decisions.rows import baseline_columns
from stream.decisions.webhook import Webhook
from stream.durability.surroundings import Surroundings
from stream.errors import LiftstreamError
from stream.results.compared import results
from stream.results.counted import ALL, Counted
from stream.results.rows import Result
from stream.results.rules import Rules
from stream.rolling.partials import partition_for
from stream.settings import Settings
from stream.sink.queries import Database
from stream.sink.standings import Rows

log = logging.getLogger(__name__)

ROUND_SECONDS = 0.5
ROUNDS_SHARE = 0.5  # of the time at most; rounds read little, and are waited for
FLUSH_SECONDS = 0.1
RETRY_SECONDS = 1.0
NOTES_SECONDS = 2.0  # between two looks for what commands and other workers have written


class Decisions:
    """Rounds follow one another, in one thread; only `keep_only` may be called from another.

    trouble: why nothing can be decided now, in words.
    """

    def __init__(
        self,
        rulings: Rulings,
        judge: Judge,
        actions: WorkerActions,
        book: Book,
        rows: Rows,
        rules: Rules,
        *,
        windows_of: Callable[[str], Sequence[WindowCounts]],
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        """windows_of: the rolling windows of an experiment. uptime: seconds that never step back."""
        self.trouble: str | None = None
        self._rulings = rulings
        self._judge = judge
        self._actions = actions
        self._book = book
        self._rows = rows
        self._rules = rules
        self._windows_of = windows_of
        self._uptime = uptime
        self._is_ours: Callable[[str], bool] = lambda experiment: False
        self._unjudged: dict[str, Case] = {}  # the newest of each
        self._reviewed: set[str] = set()  # notes
        self._noted_at = float("-inf")
        self._lock = threading.Lock()  # guards _is_ours

    def keep_only(self, is_ours: Callable[[str], bool]) -> None:
        """Decide about these experiments from now on."""
        with self._lock:
            self._is_ours = is_ours

    def round(self) -> None:
        """Judge what changed and see to what is under way. Never raises: without decisions, counting goes on."""
        with self._lock:
            is_ours = self._is_ours
        self._judge.keep_only(is_ours)
        troubles = [
            self._tried(lambda: self._judge_changed(is_ours)),
            self._tried(self._actions.sweep),
            self._tried(lambda: self._read_notes(is_ours)),
        ]
        self.trouble = next(filter(None, troubles), None)

    def close(self) -> None:
        """Let what is under way end, for a moment. From any thread."""
        self._actions.close()

    def _tried(self, work: Callable[[], None]) -> str | None:
        try:
            work()
        except LiftstreamError as error:
            if self.trouble is None:
                log.warning("Decisions wait, and it will be tried again: %s", error)
            return f"Decisions wait: {error}"
        except Exception as error:
            if self.trouble is None:
                log.exception("Decisions wait because of a fault of ours.")
            return f"Decisions wait: {error!r}"
        return None

    # Judging

    def _judge_changed(self, is_ours: Callable[[str], bool]) -> None:
        """Every experiment that was not judged as it stands; raises, at the end, the first of what went wrong."""
        failures: list[Exception] = []
        try:
            self._unjudged.update({case.experiment.name: case for case in self._rulings.changed(is_ours)})
        except Exception as error:
            failures.append(error)
        for name, case in list(self._unjudged.items()):
            try:
                if is_ours(name):
                    self._judge_one(case)
                del self._unjudged[name]
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _judge_one(self, case: Case) -> None:
        needs_windows = any(guardrail.window for guardrail in case.experiment.guardrails)
        windows = self._windows_of(case.experiment.name) if needs_windows else ()
        runtime_ms = runtime_of(case.counted)
        self._judge.look(case.experiment, case.standing, windows, runtime_ms=runtime_ms)
        for baseline in case.experiment.arms_with(Role.BASELINE):
            self._rows.put_rows(
                "baselines",
                baseline_columns(self._against(baseline, case), baseline),
                generation=case.standing.generation,
                version=case.standing.version,
            )

    def _against(self, baseline: str, case: Case) -> Sequence[Result]:
        if case.experiment.control_among(case.counted.arms) == baseline:
            return case.standing.results
        compared = case.experiment.model_copy(update={"control": baseline})
        return results(compared, case.counted, self._rules, slices=[ALL])

    # What commands and other workers wrote

    def _read_notes(self, is_ours: Callable[[str], bool]) -> None:
        """A note goes when all that follows from it is done: then nobody needs to be told of it again."""
        if self._uptime() - self._noted_at < NOTES_SECONDS:
            return
        notes = self._book.notes()
        for note in notes:
            if not is_ours(note.experiment):
                continue
            if note.path not in self._reviewed:
                self._judge.review(note.experiment)
                self._reviewed.add(note.path)
            elif not self._actions.is_busy_with(note.decision_id):
                self._book.remove_note(note)
        self._reviewed &= {note.path for note in notes}
        self._actions.show_flags()
        self._noted_at = self._uptime()


def runtime_of(counted: Counted) -> int:
    """Milliseconds from the UTC date of the first user on."""
    dates = [cohort.start_date for cohort in counted.cohorts]
    return max(0, (counted.as_of_ms or 0) - min(dates) * DAY_MS) if dates else 0


def decisions_of(
    settings: Settings,
    definitions: Definitions,
    around: Surroundings,
    outlet: KafkaOutlet,
    rows: Rows,
    rolling: RollingWindows,
    open_database: Callable[[], Database],
) -> Decisions:
    """A worker's, by its settings."""
    book, rules = Book(around.store), settings.rules()
    actions = WorkerActions(
        book,
        rows,
        outlet,
        topic=settings.decisions_topic,
        receiver=_webhook(settings),
        flag_file=FlagFile(settings.flag_file, definitions.experiments) if settings.flag_file else None,
        now_ms=around.clock.now_ms,
        uptime=time.monotonic,
    )
    judge = Judge(book, actions, is_armed=settings.armed, now_ms=around.clock.now_ms)
    rulings = Rulings(open_database, definitions, rules)
    return Decisions(rulings, judge, actions, book, rows, rules, windows_of=rolling.windows_of)


def _webhook(settings: Settings) -> Webhook | None:
    if settings.webhook_url is None or settings.webhook_secret is None:
        return None
    return Webhook(settings.webhook_url, settings.webhook_secret.get_secret_value())


def connect_decisions(
    app: faust.App, decisions: Decisions, outlet: KafkaOutlet, partials_topic: str, partitions: int
) -> None:
    """Decide about the experiments of the assigned partials, from the app's start to its stop.

    outlet: of decisions alone; that of the steps takes messages of one thread.
    """

    @app.on_partitions_assigned.connect(weak=False)
    async def on_assigned(_: Any, assigned: set[TP], **__: Any) -> None:
        owned = {tp.partition for tp in assigned if tp.topic == partials_topic}
        decisions.keep_only(lambda experiment: partition_for(experiment, partitions) in owned)

    @app.service
    class Decided(Service):  # type: ignore[misc]
        @Service.task
        async def decide(self) -> None:
            while not self.should_stop:
                started = time.monotonic()
                await asyncio.to_thread(decisions.round)
                took = time.monotonic() - started
                await self.sleep(max(ROUND_SECONDS, took / ROUNDS_SHARE) - took)

        @Service.task
        async def flush_messages(self) -> None:
            while not self.should_stop:
                try:
                    await outlet.flush()
                except (KafkaError, FaustError) as error:
                    log.warning("Kafka does not take a decision and it will be tried again: %r", error)
                    await self.sleep(RETRY_SECONDS)
                await self.sleep(FLUSH_SECONDS)

        async def on_stop(self) -> None:
            await asyncio.to_thread(decisions.close)
