"""Users who change arm hundreds of times under as_of: found by time, forgotten when over, restated where it matters."""

import random
import time

import pytest

from stream.contracts.definitions import Definitions, Experiment, Policy
from stream.contracts.topics import Topic
from stream.engine.engine import Engine
from stream.engine.layout import ASG, ASG_FREE
from tests.engine.makers import (
    DAY,
    HOUR,
    KEY,
    MINUTE,
    SECOND,
    T0,
    Event,
    Run,
    an_assignment,
    an_impression,
    an_interaction,
)
from tests.engine.oracle import Oracle
from tests.engine.streams import CAUGHT_UP, Given, assert_equal, oracle_step

AS_OF = (Experiment(name="e1", policy=Policy.AS_OF),)


def rows_in_use(run: Run) -> int:
    store = run.engine._store
    assert store.m[ASG_FREE] < store.m[ASG]
    return int((store.a["assigned"]["experiment"][: int(store.m[ASG])] >= 0).sum())


def take(run: Run, oracle: Oracle, events: dict[Topic, list[Event]]) -> None:
    stepped: Given = {topic: [(event, event["at"]) for event in events.get(topic, [])] for topic in Topic}
    latest = max([T0, *(at for arrivals in stepped.values() for _, at in arrivals)])
    run.step(
        assignments=stepped[Topic.ASSIGNMENTS], impressions=stepped[Topic.IMPRESSIONS],
        interactions=stepped[Topic.INTERACTIONS], planned_at=latest,
    )  # fmt: skip
    oracle_step(oracle, stepped, latest, CAUGHT_UP)


@pytest.mark.parametrize("repeating", [0.2, 0.7, 0.97])
@pytest.mark.parametrize("seed", range(2))
def test_hundreds_of_changed_and_repeated_arms_of_one_user_equal_the_oracle(
    seed: int, repeating: float
) -> None:
    rand = random.Random(seed)
    rules = Definitions(
        experiments=(*AS_OF, Experiment(name="e2", policy=Policy.AS_OF)),
        allowed_lateness_ms=30 * MINUTE,
        attribution_window_ms=45 * MINUTE,
    )
    run, oracle, arms = Run(rules), Oracle(rules), {"e1": "a", "e2": "a"}
    for k in range(60):
        now = T0 + k * 6 * MINUTE
        events: dict[Topic, list[Event]] = {topic: [] for topic in Topic}
        for j in range(9):
            name, at = f"{rand.randrange(1000)}-{k}-{j}", now - rand.randrange(20 * MINUTE) // SECOND * SECOND
            experiment = "e1" if rand.random() < 0.9 else "e2"
            if rand.random() > repeating:
                arms[experiment] = rand.choice("abc")
            old = T0 + rand.randrange(3) * HOUR if rand.random() < 0.03 else at
            taken = an_assignment(
                name, old, experiment=experiment, arm=arms[experiment], country=rand.choice(["DE", None])
            )
            events[Topic.ASSIGNMENTS].append(taken)
            if j % 3 == 0:
                events[Topic.IMPRESSIONS].append(an_impression(name, at, item_id=f"x{name}"))
                clicked = an_interaction(name, at + j * MINUTE, impression_id=f"imp-{name}")
                events[Topic.INTERACTIONS].append(clicked)
        take(run, oracle, events)
        if k == 40:
            run.engine = Engine.load(
                run.engine.export(), key=KEY, partition=0, partitions=1, definitions=rules
            )
    assert_equal(run, oracle)
    if repeating > 0.9:
        assert rows_in_use(run) < 400


def test_repeated_assignments_under_as_of_are_forgotten_when_they_are_over() -> None:
    run = Run(Definitions(experiments=AS_OF, allowed_lateness_ms=MINUTE, attribution_window_ms=MINUTE))
    for k in range(600):
        at = T0 + k * 10 * SECOND
        run.step(assignments=[an_assignment(f"a{k}", at)], impressions=[an_impression(f"i{k}", at)])
    assert rows_in_use(run) <= 128
    assert run.total()["impressions"] == 600
    # One of another arm that turns out to have come long ago takes the events that are still held until the next one.
    run.step(assignments=[an_assignment("late", T0 + 5, arm="control")])
    assert (run.total()["impressions"], run.total(arm="control")["impressions"]) == (600, 0)
    assert run.total(arm="control")["assigned_users"] == 1


def test_a_change_of_arm_costs_the_same_however_many_events_are_held() -> None:
    def cost(held: int) -> float:
        run = Run(Definitions(experiments=AS_OF))
        run.step(assignments=[an_assignment()])
        run.step(impressions=[an_impression(f"i{k}", T0 + k) for k in range(held)])
        spent = 0.0
        for k in range(20):
            at = T0 + DAY // 2 + k * SECOND
            run.step(impressions=[an_impression(f"then{k}", at)])
            changes = [an_assignment(f"a{k}-{j}", at + j, arm="ab"[j % 2]) for j in range(20)]
            started = time.thread_time()
            run.step(assignments=changes)
            spent += time.thread_time() - started
        assert run.total()["impressions"] == held
        return spent

    few, many = (min(cost(held) for _ in range(2)) for held in (100, 6_000))
    assert many < 3 * few, f"{many:.3f} s and {few:.3f} s"


def test_events_of_a_user_with_a_thousand_assignments_find_their_arm_wherever_they_are() -> None:
    run = Run(Definitions(experiments=AS_OF))
    n = 1_000
    numbers = random.Random(3).sample(range(n), n)
    for part in (numbers[: n // 2], numbers[n // 2 :]):
        run.step(assignments=[an_assignment(f"a{k}", T0 + k * SECOND, arm=f"arm{k % 3}") for k in part])
    times = [T0 + k * SECOND + offset for k in range(n) for offset in (0, 999)]
    run.step(impressions=[an_impression(f"i{j}", at) for j, at in enumerate(times)])
    assert [run.total(arm=f"arm{k}")["impressions"] for k in range(3)] == [2 * 334, 2 * 333, 2 * 333]
    run.step(impressions=[an_impression("before", T0 - 1)])
    assert sum(run.total(arm=f"arm{k}")["before_assignment"] for k in range(3)) == 1
