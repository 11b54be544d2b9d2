"""The engine against the brute-force oracle on random streams, and the laws of cutting, order and replay."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.engine import emit, folded
from stream.engine.engine import Engine
from stream.engine.layout import SEEN_ROWS
from tests.engine.makers import DAY, HOUR, KEY, MINUTE, Run
from tests.engine.oracle import Oracle
from tests.engine.streams import (
    CAUGHT_UP,
    LATENCIES,
    Given,
    arrivals,
    assert_equal,
    definitions,
    in_steps,
    oracle_step,
    without_metrics,
)

SEEDS = st.integers(0, 10**6)
RULES = st.sampled_from([definitions, without_metrics])
LONG_LATENCIES = (*LATENCIES, 5e8, 1e9)  # three of a user are no number whose square fits into a word
SIZES = st.lists(st.integers(1, 80), min_size=1, max_size=4)


def planned_at(step: Given) -> int:
    return max(at for items in step.values() for _, at in items)


def run_steps(run: Run, steps: list[Given]) -> Run:
    for step in steps:
        run.step(
            assignments=step[Topic.ASSIGNMENTS], impressions=step[Topic.IMPRESSIONS],
            interactions=step[Topic.INTERACTIONS], planned_at=planned_at(step),
        )  # fmt: skip
    return run


def compare(
    seed: int,
    events: int,
    span: int,
    disorder: int,
    sizes: list[int],
    rules_of: Callable[..., Definitions] = definitions,
    world: Mapping[str, Any] | None = None,
    **settings_: int,
) -> tuple[Run, Oracle]:
    rules = rules_of(**settings_)
    run, oracle = Run(rules), Oracle(rules)
    rand = random.Random(seed)
    for step in in_steps(arrivals(seed, events, span, disorder, **(world or {})), sizes):
        caught_up = CAUGHT_UP if rand.random() < 0.7 else tuple(rand.random() < 0.5 for _ in range(3))
        run.step(
            assignments=step[Topic.ASSIGNMENTS], impressions=step[Topic.IMPRESSIONS],
            interactions=step[Topic.INTERACTIONS], planned_at=planned_at(step), caught_up=caught_up,
        )  # fmt: skip
        oracle_step(oracle, step, planned_at(step), caught_up)
        assert (run.engine.clock_ms, run.engine.horizon_ms) == (oracle.clock, oracle.horizon)
    assert_equal(run, oracle)
    return run, oracle


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, sizes=SIZES, rules_of=RULES)
def test_engine_equals_oracle_when_nothing_is_late(
    seed: int, sizes: list[int], rules_of: Callable[..., Definitions]
) -> None:
    compare(seed, 150, 3 * HOUR, 20 * MINUTE, sizes, rules_of, allowed_lateness_ms=7 * DAY)


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, sizes=SIZES, rules_of=RULES)
def test_engine_equals_oracle_with_late_events_and_expiry(
    seed: int, sizes: list[int], rules_of: Callable[..., Definitions]
) -> None:
    compare(
        seed,
        250,
        6 * HOUR,
        40 * MINUTE,
        sizes,
        rules_of,
        allowed_lateness_ms=30 * MINUTE,
        attribution_window_ms=45 * MINUTE,
    )


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, sizes=SIZES)
def test_cutting_into_steps_changes_nothing_when_nothing_is_late(seed: int, sizes: list[int]) -> None:
    stream = arrivals(seed, 150, 3 * HOUR, 20 * MINUTE)
    rules = definitions(allowed_lateness_ms=30 * DAY)
    once, cut, single = (run_steps(Run(rules), in_steps(stream, s)) for s in ([len(stream)], sizes, [1]))
    for other in (cut, single):
        assert once.totals() == other.totals()
        assert once.panes() == other.panes()
        assert once.ledger() == other.ledger()


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, sizes=SIZES)
def test_any_order_of_arrival_gives_the_same_numbers_when_nothing_is_late(
    seed: int, sizes: list[int]
) -> None:
    rand = random.Random(seed)
    stream = arrivals(seed, 150, 3 * HOUR, 20 * MINUTE)
    # Impressions that share an impression_id differ: which of them is the first is a matter of order.
    names: set[str] = set()
    stream = [
        (topic, (event, at))
        for topic, (event, at) in stream
        if topic != Topic.IMPRESSIONS or isinstance(event, bytes)
        or (event["impression_id"] not in names and not names.add(event["impression_id"]))  # type: ignore[func-returns-value]
    ]  # fmt: skip
    shuffled = rand.sample(stream, len(stream))
    rules = definitions(allowed_lateness_ms=30 * DAY)
    a, b = run_steps(Run(rules), in_steps(stream, sizes)), run_steps(Run(rules), in_steps(shuffled, sizes))
    assert a.totals() == b.totals()
    assert a.panes() == b.panes()
    # Which of two copies is the duplicate, and so its hour, is a matter of order; the sums are not.
    assert all(a.outcomes(topic) == b.outcomes(topic) for topic in Topic)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, sizes=SIZES, cut=st.integers(0, 10), rules_of=RULES)
def test_an_engine_loaded_from_an_export_puts_out_the_same_bytes(
    seed: int, sizes: list[int], cut: int, rules_of: Callable[..., Definitions]
) -> None:
    rules = rules_of(allowed_lateness_ms=30 * MINUTE, attribution_window_ms=45 * MINUTE)
    steps = in_steps(arrivals(seed, 200, 5 * HOUR, 40 * MINUTE), sizes)
    first = run_steps(Run(rules), steps[:cut])
    engine = Engine.load(first.engine.export(), key=KEY, partition=0, partitions=1, definitions=rules)
    second = Run(rules, engine)
    first.rows.clear()
    for step in steps[cut:]:
        both = []
        for run in (first, second):
            run.offsets.clear()
            both.append(
                run.step(
                    assignments=step[Topic.ASSIGNMENTS], impressions=step[Topic.IMPRESSIONS],
                    interactions=step[Topic.INTERACTIONS], planned_at=planned_at(step),
                )
            )  # fmt: skip
        assert repr(plain(both[0])) == repr(plain(both[1]))
    exports = [run.engine.export() for run in (first, second)]
    assert exports[0].keys() == exports[1].keys()


def plain(outputs: object) -> object:
    tables = {n: {c: list(v) for c, v in t.items()} for n, t in outputs.tables.items()}  # type: ignore[attr-defined]
    return tables, outputs.chunks, outputs.clock_ms  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("latencies", [LATENCIES, LONG_LATENCIES])
def test_sums_over_users_are_right_when_they_are_gathered_piece_by_piece(
    seed: int, latencies: tuple[float | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folded, "SMALL", 4)
    monkeypatch.setattr(emit, "MOVED_ROWS", 4)
    fold_users, begun_at, short = emit.fold_users, [], []

    def noted(tables, start, *others):  # type: ignore[no-untyped-def]
        begun_at.append(start)
        short.append(tables.m[SEEN_ROWS])
        return fold_users(tables, start, *others)

    monkeypatch.setattr(emit, "fold_users", noted)
    compare(
        seed, 1500, 3 * HOUR, 20 * MINUTE, [300, 97, 150], without_metrics, {"users": 20, "latencies": latencies},
        allowed_lateness_ms=7 * DAY,
    )  # fmt: skip
    assert any(begun_at)
    assert any(short)
    assert any(0 < start < seen for start, seen in zip(begun_at, short, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_a_long_stream_with_growth_and_expiry_equals_the_oracle(seed: int) -> None:
    run, oracle = compare(
        seed, 4000, 40 * HOUR, 40 * MINUTE, [97, 300, 10], allowed_lateness_ms=30 * MINUTE,
        attribution_window_ms=45 * MINUTE,
    )  # fmt: skip
    ledger = run.outcomes(Topic.INTERACTIONS)
    assert all(
        ledger[name] for name in ("counted", "late", "duplicate", "rejected", "attributed", "no_reference")
    )
    assert all(ledger[name] for name in ("unknown_impression", "other_user", "outside_window"))
    assert len(oracle.impressions) < 400
