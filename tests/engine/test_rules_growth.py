"""The state as it grows, shrinks, is exported, and as its 32-bit links wrap around."""

import random
import time
from typing import Any

import pytest

from stream.contracts.definitions import Definitions, Experiment, Metric, Policy
from stream.contracts.topics import Topic
from stream.engine.engine import Engine
from stream.engine.index import MAX_LOAD, YOUNG_ROWS, slots_for
from stream.engine.layout import ASG, IDS, IDS_BASE, IMP_BASE, IMPS, INT_BASE, INTS, LEDGER
from tests.engine.makers import (
    DAY,
    HOUR,
    KEY,
    MINUTE,
    SECOND,
    T0,
    Run,
    an_assignment,
    an_impression,
    an_interaction,
)

BASES = (IDS_BASE, IMP_BASE, INT_BASE)
BY_ITEM: dict[str, Any] = {"impression_id": None, "item_id": "x"}


def a_run_before_the_wrap(definitions: Definitions | None = None, room: int = 100) -> Run:
    """So many links before the ones that wrap around."""
    run = Run(definitions)
    run.engine._store.m[list(BASES)] = 2**32 - room
    return run


@pytest.mark.parametrize("rows", [0, 1 << 10, YOUNG_ROWS - 1, YOUNG_ROWS, 2 * YOUNG_ROWS, 10_000_000])
def test_an_index_of_more_rows_is_never_smaller(rows: int) -> None:
    assert slots_for(rows) <= slots_for(rows + 1)
    assert 1.25 * rows <= MAX_LOAD * (slots_for(rows) + 1)  # room for a quarter more


def test_growth_of_every_table_loses_nothing() -> None:
    n = 3_000
    run = Run()
    for part in range(0, n, 700):  # several growths
        numbers = range(part, min(part + 700, n))
        run.step(
            assignments=[
                an_assignment(
                    f"a{k}", T0, f"u{k}", arm=f"arm{k % 20}", segment=f"s{k % 50}", device=f"d{k % 7}"
                )
                for k in numbers
            ],
            impressions=[
                an_impression(f"i{k}", T0 + k * SECOND, f"u{k}", country=f"c{k % 40}", category=f"g{k % 61}")
                for k in numbers
            ],
            interactions=[
                an_interaction(f"n{k}", T0 + k * SECOND, f"u{k}", impression_id=f"imp-i{k}") for k in numbers
            ],
        )
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": n, "counted": n}
    assert run.outcomes(Topic.INTERACTIONS) == {"consumed": n, "counted": n, "attributed": n}
    assert [run.total(arm=f"arm{k}")["clicked_impressions"] for k in range(20)] == [n // 20] * 20
    assert sum(run.total(arm=f"arm{k}", slice="segment=s7")["clicks"] for k in range(20)) == n // 50
    by_country = sum(v["impressions"] for k, v in run.panes().items() if k[2:4] == ("country", "c3"))
    assert by_country == n // 40
    assert len(run.engine._store.a["combo_keys"]) >= 2_048
    assert run.engine._emitter.totals.rows == 280


def test_the_ledger_grows_with_its_hours() -> None:
    run = Run()
    run.step(
        impressions=[(an_impression(f"i{k}", T0), T0 - k * HOUR) for k in range(1_500)][:1], planned_at=T0
    )
    run.step(
        impressions=[(an_impression(f"i{k}", T0 - 1_500 * HOUR + k), T0 - k * HOUR) for k in range(1, 1_500)],
        planned_at=T0,
    )
    assert len(run.ledger()) == 1_500
    assert run.outcomes(Topic.IMPRESSIONS)["consumed"] == 1_500


def test_an_orphan_leaves_though_the_ledger_has_one_row_of_room() -> None:
    run = Run()
    run.step(assignments=[an_assignment(at=T0 - DAY)], interactions=[an_interaction(at=T0)])
    poison = [(b"poison", T0 - k * HOUR) for k in range(1, 1_022)]
    run.step(assignments=poison, impressions=[an_impression("clock", T0 + DAY + 1, "u2")])
    assert int(run.engine._store.m[LEDGER]) == len(run.engine._store.a["ledger_keys"]) - 1
    run.step()
    assert run.outcomes(Topic.INTERACTIONS) == {"consumed": 1, "counted": 1, "unknown_impression": 1}


def test_the_state_of_a_steady_stream_does_not_grow() -> None:
    run = Run(Definitions(allowed_lateness_ms=10 * MINUTE, attribution_window_ms=10 * MINUTE))
    run.step(assignments=[an_assignment(at=T0)])
    sizes = []
    for k in range(120):
        at = T0 + k * MINUTE
        run.step(
            impressions=[an_impression(f"{k}-{j}", at + j) for j in range(20)],
            interactions=[
                an_interaction(f"{k}-{j}", at + 20, impression_id=f"imp-{k}-{j}") for j in range(20)
            ],
        )
        sizes.append(run.engine.nbytes)
    m = run.engine._store.m
    assert sizes[-1] == sizes[30]
    assert m[IDS] <= 12 * 40
    assert m[IMPS] <= 22 * 20
    assert m[INTS] <= 12 * 20
    assert run.total()["clicked_impressions"] == 2_400


def test_repeated_assignments_cost_no_memory_under_exclude_and_first() -> None:
    for policy in (Policy.EXCLUDE, Policy.FIRST):
        run = Run(Definitions(experiments=(Experiment(name="e1", policy=policy),)))
        run.step(assignments=[an_assignment(f"a{k}", T0 + k) for k in range(3_000)])
        assert run.engine._store.m[ASG] == 1


def test_repeated_assignments_under_as_of_do_not_walk_the_events_and_still_are_in_force() -> None:
    run = Run(Definitions(experiments=(Experiment(name="e1", policy=Policy.AS_OF),)))
    n = 1_000
    run.step(
        impressions=[an_impression(f"i{k}", T0 + k) for k in range(n)],
        assignments=[an_assignment("a0", arm="a")],
    )
    started = time.process_time()
    run.step(assignments=[an_assignment(f"a{k}", T0 + 2 * k, arm="a") for k in range(1, n // 2)])
    assert time.process_time() - started < 2
    assert run.total(arm="a")["impressions"] == n
    # Each repetition takes over again from the other arm that turns out to have come before it.
    run.step(assignments=[an_assignment(f"b{k}", T0 + 2 * k + 1, arm="b") for k in range(0, 200, 2)])
    assert [run.total(arm=arm)["impressions"] for arm in "ab"] == [n - 100, 100]
    assert [run.total(arm=arm)["assigned_users"] for arm in "ab"] == [1, 1]


def test_a_late_assignment_repairs_a_hot_user_with_twenty_thousand_held_events() -> None:
    run = Run()
    n = 10_000
    for part in range(0, n, 2_500):
        run.step(
            impressions=[an_impression(f"i{k}", T0 + k) for k in range(part, part + 2_500)],
            interactions=[
                an_interaction(f"n{k}", T0 + k, impression_id=f"imp-i{k}") for k in range(part, part + 2_500)
            ],
        )
    run.step(assignments=[an_assignment()])
    total = run.total()
    names = ("impressions", "clicked_impressions", "clicks", "exposed_users")
    assert [total[name] for name in names] == [n, n, n, 1]
    assert total["impressions_sq"] == total["clicked_x_impressions"] == n * n
    run.step(assignments=[an_assignment("a2", arm="control")])
    assert run.total()["impressions"] == 0
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": n, "counted": n}


def test_a_hot_user_in_hundreds_of_experiments_needs_room_for_one_at_a_time() -> None:
    run = Run()
    run.step(impressions=[an_impression(f"i{k}", T0 + k) for k in range(2_000)])
    run.step(assignments=[an_assignment(f"a{e}", experiment=f"e{e}") for e in range(300)])
    assert run.total("e299")["impressions"] == 2_000
    assert len(run.engine._store.a["scratch_keys"]) <= 2**15


def test_hundreds_of_interactions_by_item_are_improved_by_one_impression() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()], impressions=[an_impression("old", T0)],
        interactions=[an_interaction(f"n{k}", T0 + HOUR + k, **BY_ITEM) for k in range(600)],
    )  # fmt: skip
    run.step(impressions=[an_impression("better", T0 + MINUTE)])
    panes = run.panes()
    assert panes["e1", "treatment", "all", "", T0]["clicked_impressions"] == 0
    assert panes["e1", "treatment", "all", "", T0 + MINUTE]["clicked_impressions"] == 1
    assert run.total()["clicks"] == 600


# ---- links that wrap around


def test_a_stream_across_the_wrap_counts_as_any_other() -> None:
    run = a_run_before_the_wrap()
    n = 1_000
    run.step(assignments=[an_assignment(f"a{u}", user_id=f"u{u}") for u in range(5)])
    for part in range(0, n, 50):
        run.step(
            impressions=[an_impression(f"i{k}", T0 + k * SECOND, f"u{k % 5}", item_id=f"x{k}")
                         for k in range(part, part + 50)],
            interactions=[
                an_interaction(f"n{k}", T0 + k * SECOND, f"u{k % 5}", impression_id=f"imp-i{k}") if k % 2
                else an_interaction(f"n{k}", T0 + k * SECOND, f"u{k % 5}", impression_id=None, item_id=f"x{k}")
                for k in range(part, part + 50)
            ],
        )  # fmt: skip
    assert all(int(run.engine._store.m[base]) > 2**31 for base in BASES)  # the first rows are still held
    run.step(impressions=[an_impression(f"i{k}", T0 + k * SECOND, f"u{k % 5}") for k in range(n)])
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 2 * n, "counted": n, "duplicate": n}
    assert run.outcomes(Topic.INTERACTIONS) == {"consumed": n, "counted": n, "attributed": n}
    assert [run.total()[name] for name in ("impressions", "clicked_impressions", "clicks")] == [n] * 3


def test_waiting_and_repairs_reach_across_the_wrap() -> None:
    run = a_run_before_the_wrap(room=50)
    run.step(interactions=[an_interaction(f"n{k}", T0 + HOUR, impression_id=f"imp-i{k}") for k in range(100)])
    run.step(impressions=[an_impression(f"i{k}", T0 + HOUR) for k in range(100)])
    run.step(assignments=[an_assignment()])
    assert [run.total()[name] for name in ("impressions", "clicked_impressions", "clicks")] == [100] * 3
    run.step(assignments=[an_assignment("a2", arm="control")])
    assert [run.total()[name] for name in ("impressions", "clicked_impressions", "clicks")] == [0] * 3


def test_rows_leave_across_the_wrap() -> None:
    rules = Definitions(allowed_lateness_ms=10 * MINUTE, attribution_window_ms=10 * MINUTE)
    plain, wrapping = Run(rules), a_run_before_the_wrap(rules, room=777)
    for run in (plain, wrapping):
        rand = random.Random(5)
        run.step(assignments=[an_assignment(f"a{u}", T0, f"u{u}", arm="ab"[u % 2]) for u in range(6)])
        for k in range(120):
            at = T0 + k * MINUTE
            name = rand.randrange(k * 15, k * 15 + 30)
            run.step(
                impressions=[an_impression(f"{k * 15 + j}", at, f"u{rand.randrange(7)}") for j in range(15)],
                interactions=[
                    an_interaction(f"{k}-{j}", at, f"u{rand.randrange(7)}", impression_id=f"imp-{name}")
                    for j in range(5)
                ] + [an_interaction(f"x{k}-{j}", at, f"u{rand.randrange(7)}", **BY_ITEM) for j in range(5)],
            )  # fmt: skip
    assert all(int(wrapping.engine._store.m[base]) < 2**31 for base in BASES)
    assert wrapping.totals() == plain.totals()
    assert wrapping.panes() == plain.panes()
    assert wrapping.ledger() == plain.ledger()


@pytest.mark.parametrize("topic", ["impressions", "interactions"])
def test_a_user_who_returns_after_the_wrap_is_not_chained_to_old_rows(topic: str) -> None:
    run = Run()
    maker = {"impressions": an_impression, "interactions": an_interaction}[topic]
    run.step(**{topic: [maker("1", T0, "u9"), maker("2", T0)]})  # type: ignore[arg-type]
    run.step(**{topic: [maker("3", T0 + 5 * DAY, "u9")]})  # type: ignore[arg-type]
    run.step()  # all but the last have left
    base, count = {"impressions": (IMP_BASE, IMPS), "interactions": (INT_BASE, INTS)}[topic]
    run.engine._store.forget(base, count, 1)
    run.engine._segments[topic].clear()
    run.engine._store.m[base] = 1  # 2**32 links later: the next links are those the first rows had
    run.step(**{topic: [maker(f"n{k}", T0 + 5 * DAY) for k in range(4)]})  # type: ignore[arg-type]
    run.step(assignments=[an_assignment()])
    column = {"impressions": "impressions", "interactions": "clicks"}[topic]
    assert run.total()[column] == 4


def test_two_runs_of_links_that_meet_a_dead_slot_again_are_kept_apart() -> None:
    run = a_run_before_the_wrap(
        Definitions(allowed_lateness_ms=MINUTE, attribution_window_ms=MINUTE), room=10
    )
    run.step(assignments=[an_assignment(at=T0)])
    for k in range(40):
        at = T0 + k * 3 * MINUTE
        run.step(
            impressions=[an_impression("same id", at)],
            interactions=[an_interaction(f"n{k}", at, impression_id="imp-same id")],
        )
    assert run.total()["impressions"] == run.total()["clicked_impressions"] > 10
    assert run.outcomes(Topic.INTERACTIONS)["attributed"] >= run.total()["impressions"]


def test_users_are_renumbered_across_the_wrap() -> None:
    rules = Definitions(allowed_lateness_ms=MINUTE, attribution_window_ms=MINUTE)
    run = a_run_before_the_wrap(
        rules, room=1_900
    )  # the row before link 0's place is used once by a user of high number
    run.step(impressions=[an_impression(f"a{k}", T0, f"gone{k}") for k in range(900)])
    for k in range(1, 10):
        name = "brief" if k == 5 else "few"
        events = [an_impression(f"{k}-{j}", T0 + k * HOUR, f"{name}{j % 9}") for j in range(120)]
        run.step(
            impressions=events,
            interactions=[an_interaction(e["event_id"], e["at"], e["user_id"]) for e in events],
        )
    at = T0 + 10 * HOUR
    run.step(
        impressions=[an_impression(f"last{j}", at, f"few{j % 9}", item_id=f"x{j}") for j in range(1_100)]
    )
    run.step(assignments=[an_assignment(f"a{u}", T0, f"few{u}") for u in range(9)])
    run.step(
        interactions=[
            an_interaction(f"n{j}", at, f"few{j % 9}", impression_id=f"imp-last{j}") for j in range(1_100)
        ]
    )
    assert run.total()["clicked_impressions"] == 1_100
    assert run.total()["assigned_users"] == 9


# ---- export and load


def test_an_engine_loaded_in_the_middle_goes_on_as_if_nothing_had_been() -> None:
    rules = Definitions(experiments=(Experiment(name="e1", policy=Policy.AS_OF, ends_at_ms=T0 + 9 * HOUR),))
    parts = [
        {"assignments": [an_assignment("1", arm="a", country="DE")], "impressions": [an_impression("i1", T0)]},
        {"interactions": [an_interaction("n1", T0 + MINUTE, impression_id="imp-later")]},
        {"interactions": [an_interaction("n2", T0 + MINUTE, **BY_ITEM)]},
        {"impressions": [an_impression("later", T0 + SECOND, impression_id="imp-later", device="web")]},
        {"assignments": [an_assignment("2", T0 + 2 * SECOND, arm="b")]},
        {"assignments": [an_assignment("1", arm="c")], "impressions": [an_impression("i1", T0)]},
    ]  # fmt: skip
    for cut in range(len(parts) + 1):
        run = Run(rules)
        for k, part in enumerate(parts):
            if k == cut:
                run.engine = Engine.load(
                    run.engine.export(), key=KEY, partition=0, partitions=1, definitions=rules
                )
            run.step(**part)  # type: ignore[arg-type]
        assert run.total(arm="a")["impressions"] == 2
        assert (run.total(arm="a")["clicked_impressions"], run.total(arm="b")["clicks"]) == (1, 2)
        assert run.outcomes(Topic.INTERACTIONS) == {"consumed": 2, "counted": 2, "attributed": 2}
        assert (
            run.outcomes(Topic.ASSIGNMENTS)["duplicate"] == run.outcomes(Topic.IMPRESSIONS)["duplicate"] == 1
        )


def test_an_engine_loaded_after_a_metric_went_away_has_room_beside_every_row_it_keeps() -> None:
    declaring = Experiment(name="nobody is in it", metrics={"saves": Metric(kinds=("save",))})
    run = Run(Definitions(experiments=(declaring,)))
    run.step(assignments=[an_assignment()])
    run.definitions = Definitions()
    run.step()
    engine = Engine.load(run.engine.export(), key=KEY, partition=0, partitions=1, definitions=run.definitions)
    arrays = engine._store.a
    assert len(arrays["declared"]) > 0  # so kernels write beside each row of `before`
    assert len(arrays["before_declared"]) == len(arrays["before"])


def test_an_export_has_only_rows_in_use_and_no_slots() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], impressions=[an_impression(f"i{k}") for k in range(50)])
    run.step(interactions=[an_interaction()])
    export = run.engine.export()
    rows = {name: len(table.joined) for name, table in export.items()}
    assert [rows[f"state.{name}"] for name in ("imps", "imp_keys", "imp_tags")] == [50] * 3
    assert (rows["state.id_keys"], rows["state.assigned"], rows["state.assignments"]) == (52, 1, 2)
    assert not any("slots" in name for name in export)


def test_an_export_numbers_the_rows_of_a_ring_by_their_links_across_the_wrap() -> None:
    run = a_run_before_the_wrap(room=20)
    run.step(assignments=[an_assignment()], impressions=[an_impression(f"i{k}") for k in range(50)])
    parts = run.engine.export()["state.imps"].parts
    assert [(link, len(rows)) for link, rows in parts] == [(2**32 - 20, 20), (0, 31)]  # link 0 has no row
    engine = Engine.load(run.engine.export(), key=KEY, partition=0, partitions=1, definitions=Definitions())
    run.engine = engine
    run.step(interactions=[an_interaction(f"n{k}", impression_id=f"imp-i{k}") for k in range(50)])
    assert run.total()["clicked_impressions"] == 50


def test_a_loaded_engine_keeps_names_links_and_frozen_experiments() -> None:
    rules = Definitions(experiments=(Experiment(name="e1", ends_at_ms=T0 + 1),))
    run = a_run_before_the_wrap(rules, room=2)
    run.step(assignments=[an_assignment(at=T0), an_assignment("a2", experiment="e2", country="DE")])
    run.step(impressions=[an_impression(f"i{k}", T0 + 3 * DAY, country="IN") for k in range(9)])
    run.step()
    run.engine = Engine.load(run.engine.export(), key=KEY, partition=0, partitions=1, definitions=rules)
    run.step(
        interactions=[an_interaction(f"n{k}", T0 + 3 * DAY, impression_id=f"imp-i{k}") for k in range(9)]
    )
    run.step(assignments=[an_assignment("a3", T0, "u2")])
    assert run.total("e2", slice="country=DE")["clicked_impressions"] == 9
    assert run.total("e1") == {
        "assigned_users": 1,
        **dict.fromkeys(set(run.total("e1")) - {"assigned_users"}, 0),
    }


def test_a_user_with_thousands_of_events_of_one_item_is_handled_in_time() -> None:
    run = Run()
    n = 3_000
    run.step(assignments=[an_assignment()])
    run.step(impressions=[an_impression(f"i{k}", T0 + k) for k in range(n)])
    started = time.process_time()
    run.step(interactions=[an_interaction(f"n{k}", T0 + n + k, **BY_ITEM) for k in range(n)])
    assert time.process_time() - started < 5
    assert run.total()["clicked_impressions"] == 1
