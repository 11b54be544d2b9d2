"""The rounds of decisions in a worker, with a store, a receiver and standings in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stream.app.decisions import Decisions
from stream.app.rulings import Case
from stream.contracts.definitions import Experiment
from stream.decisions.book import Book, Page
from stream.decisions.decision import Kind, Undone
from stream.decisions.judge import Judge
from stream.errors import Unavailable
from stream.results.counted import Cohort, Counted
from stream.results.rows import Standing
from stream.results.rules import Rules
from tests.app.test_actions import World
from tests.decisions.makers import BETTER, NOON_MS, WORSE, a_decision, a_result, a_standing, an_experiment
from tests.durability.fakes import DictStore

GUARDED = an_experiment(guardrails=[{"metric": "ctr", "worse_than_control": 0}])
COLLAPSED = a_standing(a_result(**WORSE))
FIRST_DAY = NOON_MS // 86_400_000 - 10
DECISION = "ranker/ctr-worse/new/1"


@dataclass
class FlakyStore(DictStore):
    """Does not answer while `is_away`."""

    is_away: bool = False
    is_read_only: bool = False  # takes no `put`

    def __init__(self) -> None:
        super().__init__()
        self.is_away = self.is_read_only = False

    def put(self, path: str, data: bytes) -> None:
        if self.is_read_only:
            raise Unavailable("The checkpoint store does not take anything.")
        super().put(path, data)

    def create(self, path: str, data: bytes) -> bool:
        if self.is_away:
            raise Unavailable("The checkpoint store does not answer.")
        return super().create(path, data)


@dataclass
class Rulings:
    """Gives what `cases` holds, once."""

    cases: list[Case] = field(default_factory=list)
    problem: Exception | None = None

    def put(self, experiment: Experiment, standing: Standing) -> None:
        cohort = Cohort("new", "all", 0, "assignment", FIRST_DAY, 5_000, {})
        counted = Counted(experiment.name, as_of_ms=standing.as_of_ms, cohorts=(cohort,))
        self.cases.append(Case(experiment, counted, standing))

    def changed(self, is_ours: Callable[[str], bool]) -> list[Case]:
        if self.problem is not None:
            raise self.problem
        cases, self.cases = self.cases, []
        return cases


def a_worker(world: World, *, owns: bool = True) -> tuple[Decisions, Rulings]:
    rulings, actions = Rulings(), world.actions()
    book = Book(world.store)
    judge = Judge(book, actions, is_armed=True, now_ms=lambda: world.now_ms)
    decisions = Decisions(
        rulings, judge, actions, book, world.rows, Rules(),  # type: ignore[arg-type]
        windows_of=lambda experiment: [], uptime=lambda: world.seconds,
    )  # fmt: skip
    decisions.keep_only(lambda experiment: owns)
    return decisions, rulings


def ids(world: World) -> list[Any]:
    return [decision_id for decision_id, _ in world.rows.put]


def test_what_a_store_that_is_away_kept_from_being_decided_is_decided_when_it_is_back() -> None:
    store = FlakyStore()
    world = World(store=store)
    decisions, rulings = a_worker(world)
    rulings.put(GUARDED, COLLAPSED)
    store.is_away = True
    decisions.round()
    assert decisions.trouble == "Decisions wait: The checkpoint store does not answer."
    assert ids(world) == []
    store.is_away = False
    decisions.round()
    assert decisions.trouble is None
    assert ids(world) == [DECISION]
    decisions.close()


def test_what_failed_between_the_decision_and_its_actions_is_completed() -> None:
    store = FlakyStore()
    world = World(store=store)
    decisions, rulings = a_worker(world)
    rulings.put(GUARDED, COLLAPSED)
    store.is_read_only = True
    decisions.round()
    assert Book(store).page(DECISION) is not None
    assert decisions.trouble is not None
    store.is_read_only = False
    decisions.round()
    world.seconds += 20
    decisions.round()
    decisions.close()
    world.outlet.step = 0
    decisions.round()
    assert decisions.trouble is None
    assert [switches.experiment for switches in Book(store).switches()] == ["ranker"]
    assert set(ids(world)) == {DECISION}
    assert [message.key for message in world.outlet.sent] == [DECISION.encode()]
    assert [page.decision.id for page in world.receiver.sent] == [DECISION]
    assert world.done() == {"message": b"sent", "webhook": b"200"}


def test_one_experiment_that_cannot_be_judged_keeps_no_other_from_it() -> None:
    world = World()
    decisions, rulings = a_worker(world)
    world.store.put("decisions/broken/ctr-worse/new/1/decision", b"{")
    rulings.put(an_experiment(name="broken"), Standing("broken", 1, 1, NOON_MS, (), COLLAPSED.health))
    rulings.put(GUARDED, COLLAPSED)
    decisions.round()
    assert "decisions/broken/ctr-worse/new/1 cannot be read" in (decisions.trouble or "")
    assert ids(world) == [DECISION]
    decisions.close()


def test_a_database_that_is_away_is_said_and_stops_nothing_that_is_under_way() -> None:
    world = World()
    decisions, rulings = a_worker(world)
    rulings.put(GUARDED, COLLAPSED)
    decisions.round()
    rulings.problem = Unavailable("ClickHouse does not answer.")
    world.outlet.step = 0
    decisions.round()
    assert decisions.trouble == "Decisions wait: ClickHouse does not answer."
    assert world.done()["message"] == b"sent"
    decisions.close()


def test_experiments_of_other_workers_are_left_alone() -> None:
    world = World()
    decisions, rulings = a_worker(world, owns=False)
    rulings.put(GUARDED, COLLAPSED)
    Book(world.store).leave_note(Page(a_decision()))
    decisions.round()
    assert ids(world) == []
    assert len(Book(world.store).notes()) == 1
    decisions.close()


def test_what_a_command_wrote_is_told_and_its_note_goes_when_all_is_done() -> None:
    world = World()
    decisions, _ = a_worker(world)
    promoted = a_decision(kind=Kind.PROMOTED, guardrail="promoted", fallback=None, by="ann")
    book = Book(world.store)
    book.write(promoted)
    book.leave_note(Page(promoted))
    # A row is put again by whoever opens the experiment's decisions: it is the same row.
    decisions.round()
    assert set(ids(world)) == {promoted.id}
    world.seconds += 20
    decisions.round()
    assert len(book.notes()) == 1
    world.outlet.step = 0
    decisions.close()
    for _ in range(2):
        world.seconds += 5
        decisions.round()
    assert book.notes() == []
    assert {message.key for message in world.outlet.sent} == {promoted.id.encode()}
    assert [page.decision for page in world.receiver.sent] == [promoted]


def test_an_undoing_by_command_reaches_the_receivers() -> None:
    world = World()
    decisions, rulings = a_worker(world)
    rulings.put(GUARDED, COLLAPSED)
    decisions.round()
    book = Book(world.store)
    assert [switches.experiment for switches in book.switches()] == ["ranker"]
    book.undo(DECISION, Undone("ann", "a known outage", NOON_MS))
    page = book.page(DECISION)
    assert page is not None
    book.leave_note(page)
    world.seconds += 5
    decisions.round()
    assert book.switches() == []
    assert [message.key for message in world.outlet.sent] == [DECISION.encode(), f"{DECISION}/undo".encode()]
    decisions.close()


def test_the_runtime_of_a_promotion_begins_with_the_first_user() -> None:
    world = World()
    decisions, rulings = a_worker(world)
    for days, is_proposed in ((11, False), (10, True)):
        experiment = an_experiment(promotion={"metric": "ctr", "min_runtime_ms": days * 86_400_000})
        rulings.put(experiment, a_standing(a_result(**BETTER)))
        decisions.round()
        assert bool(ids(world)) is is_proposed
    decisions.close()


def test_every_arm_is_compared_with_the_baseline() -> None:
    world = World()
    decisions, rulings = a_worker(world)
    rulings.put(an_experiment(arms={"old": {"role": "baseline"}, "new": {}}), COLLAPSED)
    taken: list[dict[str, Any]] = []
    world.rows.put_rows = lambda table, columns, **_: taken.append({table: columns})  # type: ignore[method-assign]
    decisions.round()
    (columns,) = (row["baselines"] for row in taken)
    assert (columns["arm"], columns["baseline"], columns["lift"]) == (["new"], ["old"], [WORSE["lift"]])
    decisions.close()
