"""Decisions in the simulation: the product's judge, book and actions, about arms that collapse and stay so.

How experiments stand is a function of the simulated time alone, for the database here answers no SQL. Workers see it
as soon as they own an experiment, and some still when they do not any more: each arm must be switched off once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from stream.app.actions import Outlet, Rows, WorkerActions
from stream.app.decisions import Decisions
from stream.app.rulings import Case
from stream.decisions.book import Book, Page, Store
from stream.decisions.judge import Judge
from stream.results.counted import Cohort, Counted
from stream.results.rules import Rules
from tests.decisions.makers import NOON_MS, WORSE, a_result, a_standing, an_experiment
from tests.simulation.database import Database

TOPIC = "rec.decisions"
COLLAPSE_MS = {f"ranker{n}": 1_000 * n for n in range(1, 6)}  # by experiment, of the simulation
DECISIONS = sorted(f"{name}/ctr-worse/new/1" for name in COLLAPSE_MS)
_GUARDRAIL = {"metric": "ctr", "worse_than_control": 0}
_LONG_AGO = NOON_MS // 86_400_000 - 10


class Collapses:
    """Rulings of experiments that change all the time."""

    def __init__(self, now_ms: Callable[[], float]) -> None:
        self._now_ms = now_ms

    def changed(self, is_ours: Callable[[str], bool]) -> list[Case]:
        now_ms = int(self._now_ms())
        return [
            _case(name, now_ms) for name, at_ms in COLLAPSE_MS.items() if is_ours(name) and now_ms >= at_ms
        ]


def _case(name: str, now_ms: int) -> Case:
    collapsed = a_standing(a_result(experiment=name, **WORSE), seconds=now_ms / 1000, version=now_ms)
    standing = replace(collapsed, experiment=name)
    cohort = Cohort("new", "all", 0, "assignment", _LONG_AGO, 5_000, {})
    counted = Counted(name, as_of_ms=standing.as_of_ms, cohorts=(cohort,))
    return Case(an_experiment(name=name, guardrails=[_GUARDRAIL]), counted, standing)


def decisions_of(
    book: Book, rows: Rows, outlet: Outlet, *, simulated_ms: Callable[[], float], now_ms: Callable[[], int]
) -> Decisions:
    """A worker's. simulated_ms: since the simulation began. now_ms: the worker's wall clock."""

    def uptime() -> float:
        return simulated_ms() / 1000

    actions = WorkerActions(book, rows, outlet, topic=TOPIC, now_ms=now_ms, uptime=uptime)
    judge = Judge(book, actions, is_armed=True, now_ms=now_ms)
    return Decisions(
        Collapses(simulated_ms), judge, actions, book, rows, Rules(),  # type: ignore[arg-type]
        windows_of=lambda _: [], uptime=uptime,
    )  # fmt: skip


def is_settled(store: Store) -> bool:
    """Whether all is decided and was told, as far as the book knows."""
    pages = _pages(Book(store))
    return len(pages) >= len(DECISIONS) and all("message" in page.done for page in pages)


def differences(store: Store, told: Sequence[tuple[bytes, bytes | None]], database: Database) -> list[str]:
    """From one decision for each experiment that is told, shown and in force."""
    book = Book(store)
    wrong = []
    if (ids := [page.decision.id for page in _pages(book)]) != DECISIONS:
        wrong.append(f"decided: {ids}")
    if sorted(key.decode() for key, _ in set(told)) != DECISIONS:
        wrong.append(f"told: {sorted(set(told))}")
    if sorted(s.experiment for s in book.switches() if list(s.arms) == ["new"]) != sorted(COLLAPSE_MS):
        wrong.append(f"switched off: {book.switches()}")
    if (shown := sorted(row["id"] for _, row in database.columns("decisions"))) != DECISIONS:
        wrong.append(f"rows: {shown}")
    return wrong


def _pages(book: Book) -> list[Page]:
    return [page for name in sorted(COLLAPSE_MS) for page in book.pages(name)]
