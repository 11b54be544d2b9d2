"""Decisions are taken once, whatever dies when, and what was decided is done."""

from dataclasses import replace

import pytest

from stream.decisions.book import Book
from stream.decisions.decision import Kind, Undone
from stream.decisions.judge import Judge
from stream.results.rows import Standing, Verdict
from tests.decisions.makers import (
    BETTER,
    NOON_MS,
    WORSE,
    Remembered,
    a_health,
    a_result,
    a_standing,
    an_experiment,
)
from tests.durability.fakes import Crash, DictStore, Doom, DoomedStore

GUARDED = an_experiment(
    guardrails=[{"metric": "ctr", "worse_than_control": 0, "hold_ms": 10_000, "cooldown_ms": 60_000}]
)
PROMOTED = an_experiment(promotion={"metric": "ctr", "margin": "5%", "min_runtime_ms": 1_000})
DAY_MS = 86_400_000


def a_judge(
    store: DictStore | DoomedStore, *, is_armed: bool = True, actions: Remembered | None = None
) -> tuple[Judge, Remembered]:
    actions = actions or Remembered()
    return Judge(Book(store), actions, is_armed=is_armed, now_ms=lambda: NOON_MS + 99), actions


def worse(seconds: float) -> Standing:
    return a_standing(a_result(**WORSE), seconds=seconds)


def fine(seconds: float) -> Standing:
    return a_standing(a_result(), seconds=seconds)


def test_a_broken_guardrail_is_decided_with_its_figures_and_switches_the_arm_off() -> None:
    judge, actions = a_judge(DictStore())
    for seconds in (0, 5, 10, 11):
        judge.look(GUARDED, worse(seconds))
    (page,) = actions.begun
    decision = page.decision
    assert decision.id == "ranker/ctr-worse/new/1"
    assert (decision.kind, decision.fallback, decision.is_armed) == (Kind.GUARDRAIL, "old", True)
    assert decision.as_of_ms == NOON_MS + 10_000
    assert (decision.figures.value, decision.figures.always_high) == (WORSE["value"], WORSE["always_high"])
    (switches,) = actions.switched
    assert {arm: (switch.fallback, switch.decision) for arm, switch in switches.arms.items()} == {
        "new": ("old", decision.id)
    }


def test_a_dry_run_records_and_switches_nothing_and_arming_it_acts() -> None:
    store = DictStore()
    judge, actions = a_judge(store, is_armed=False)
    judge.look(GUARDED, worse(0))
    judge.look(GUARDED, worse(10))
    assert actions.ids == ["ranker/ctr-worse/new/1"]
    assert not actions.begun[0].decision.is_armed
    assert actions.switched == []
    judge, actions = a_judge(store)
    judge.look(GUARDED, worse(11))
    assert actions.ids == ["ranker/ctr-worse/new/2"]
    assert list(actions.switched[-1].arms) == ["new"]


def test_a_restart_neither_repeats_a_firing_nor_begins_the_hold_anew() -> None:
    store = DictStore()
    begun = []
    for seconds in (0, 5, 10, 11, 12):
        judge, actions = a_judge(store)
        judge.look(GUARDED, worse(seconds))
        begun += [(seconds, decision_id) for decision_id in actions.ids]
    assert begun == [(10, "ranker/ctr-worse/new/1")]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 8))
def test_whatever_effect_a_worker_dies_at_the_decision_is_taken_once_and_completed(
    at: int, after: bool
) -> None:
    store = DictStore()
    pages = []
    doom = Doom(at, after)
    judge, actions = a_judge(DoomedStore(store, doom))
    for seconds in (0, 5, 10, 11, 12, 13):
        try:
            judge.look(GUARDED, worse(seconds))
        except Crash:
            pages += actions.begun
            judge, actions = a_judge(store)
            judge.look(GUARDED, worse(seconds))
    told = [*pages, *actions.begun, *actions.resumed]
    assert {page.decision.id for page in told} == {"ranker/ctr-worse/new/1"}
    assert len(Book(store).pages("ranker")) == 1


def test_of_two_workers_that_see_the_same_one_decides_and_the_other_stands_by() -> None:
    store = DictStore()
    (first, doing), (second, watching) = a_judge(store), a_judge(store)
    for judge in (first, second):
        judge.look(GUARDED, worse(0))
    for judge in (first, second, first, second):
        judge.look(GUARDED, worse(12))
    assert (doing.ids, watching.ids) == (["ranker/ctr-worse/new/1"], [])
    assert [page.decision.id for page in watching.resumed] == ["ranker/ctr-worse/new/1"]


def test_an_undone_decision_switches_back_and_fires_again_when_the_rule_stays_true() -> None:
    store = DictStore()
    judge, actions = a_judge(store)
    judge.look(GUARDED, worse(0))
    judge.look(GUARDED, worse(10))
    book = Book(store)
    assert book.undo("ranker/ctr-worse/new/1", Undone("ann", "a known outage", NOON_MS))
    assert not book.undo("ranker/ctr-worse/new/1", Undone("bob", "me too", NOON_MS))
    judge.review("ranker")
    assert actions.switched[-1].arms == {}
    assert actions.begun[-1].undone == Undone("ann", "a known outage", NOON_MS)
    for seconds in range(20, 110):
        judge.look(GUARDED, worse(seconds))
    assert actions.ids[2:] == ["ranker/ctr-worse/new/2"]
    assert actions.begun[-1].decision.as_of_ms == NOON_MS + 80_000


def test_an_undoing_is_known_after_a_restart() -> None:
    store = DictStore()
    judge, _ = a_judge(store)
    judge.look(GUARDED, worse(0))
    judge.look(GUARDED, worse(10))
    Book(store).undo("ranker/ctr-worse/new/1", Undone("ann", "why not", NOON_MS))
    judge, actions = a_judge(store)
    for seconds in range(20, 110):
        judge.look(GUARDED, worse(seconds))
    assert actions.ids == ["ranker/ctr-worse/new/2"]


def test_a_rule_that_recovers_fires_again_after_its_cooldown() -> None:
    judge, actions = a_judge(DictStore())
    for seconds in range(200):
        judge.look(GUARDED, fine(seconds) if 20 <= seconds < 30 else worse(seconds))
    assert [page.decision.as_of_ms - NOON_MS for page in actions.begun] == [10_000, 70_000]


def test_an_alert_switches_nothing() -> None:
    judge, actions = a_judge(DictStore())
    guarded = an_experiment(guardrails=[{"metric": "ctr", "min": 0.04, "action": "alert"}])
    judge.look(guarded, worse(0))
    assert actions.begun[0].decision.fallback is None
    assert actions.switched == []


def test_the_control_is_never_replaced_by_itself() -> None:
    judge, actions = a_judge(DictStore())
    guarded = an_experiment(guardrails=[{"metric": "ctr", "min": 0.06, "arm": "old"}])
    judge.look(guarded, worse(0))
    assert actions.begun[0].decision.fallback is None


def test_a_good_arm_is_proposed_once() -> None:
    judge, actions = a_judge(DictStore())
    standing = a_standing(a_result(**BETTER))
    judge.look(PROMOTED, standing, runtime_ms=999)
    assert actions.begun == []
    for _ in range(3):
        judge.look(PROMOTED, standing, runtime_ms=DAY_MS)
    (page,) = actions.begun
    assert (page.decision.kind, page.decision.id) == (Kind.PROPOSED, "ranker/promotion/new/1")
    assert page.decision.fallback is None
    assert "guardrails and sample ratio are clean" in page.decision.reason


@pytest.mark.parametrize(
    "standing",
    [
        a_standing(a_result(**BETTER | {"lift_low": 0.05})),
        a_standing(a_result(**BETTER), health=a_health(Verdict.BROKEN)),
        a_standing(a_result(**BETTER), health=a_health(Verdict.WARNING)),
        a_standing(a_result(users=999, **BETTER)),
        a_standing(a_result(**BETTER), a_result(metric="latency_ms", value=900.0)),
    ],
)
def test_an_arm_is_not_proposed_without_margin_health_users_and_clean_guardrails(standing: Standing) -> None:
    judge, actions = a_judge(DictStore())
    guarded = an_experiment(
        promotion={"metric": "ctr", "margin": "5%", "min_runtime_ms": 0},
        guardrails=[{"metric": "latency_ms", "max": 500, "action": "alert"}],
    )
    judge.look(guarded, standing, runtime_ms=DAY_MS)
    assert [page for page in actions.begun if page.decision.kind is Kind.PROPOSED] == []


def test_names_of_any_kind_have_ids_that_are_paths_and_headers() -> None:
    judge, actions = a_judge(DictStore())
    experiment = an_experiment(
        arms={"old": {}, "neu/ähnlich ..": {}}, guardrails=[{"metric": "ctr", "min": 1, "name": "min ↓"}]
    )
    standing = a_standing(a_result("neu/ähnlich .."))
    judge.look(experiment, standing)
    (decision_id,) = actions.ids
    assert decision_id.isascii()
    assert decision_id.count("/") == 3
    assert actions.begun[0].decision.arm == "neu/ähnlich .."


def test_what_cannot_be_read_of_the_watches_is_begun_anew() -> None:
    store = DictStore()
    judge, _ = a_judge(store)
    judge.look(GUARDED, worse(0))
    store.put("watches/ranker", b"{broken")
    judge, actions = a_judge(store)
    judge.look(GUARDED, worse(10))
    assert actions.begun == []
    judge.look(GUARDED, worse(20))
    assert len(actions.begun) == 1


def test_a_decision_reads_as_it_was_written() -> None:
    store = DictStore()
    judge, actions = a_judge(store)
    judge.look(GUARDED, worse(0))
    judge.look(GUARDED, worse(10))
    book = Book(store)
    assert book.pages("ranker") == actions.begun
    book.mark_done("ranker/ctr-worse/new/1", "webhook", "200")
    (page,) = book.pages("ranker")
    assert page == replace(actions.begun[0], done=frozenset({"webhook"}))
