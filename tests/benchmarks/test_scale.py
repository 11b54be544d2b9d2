from dataclasses import replace

import numpy as np

from benchmarks.scale.__main__ import SIZES, growth, missed
from benchmarks.scale.made import START_MS, Crowd, Maker
from benchmarks.scale.point import Filled, Size
from benchmarks.scale.wide import Shape
from benchmarks.scale.wide import measure as measure_wide
from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.engine.engine import Engine, Step


def a_point(**figures: object) -> dict[str, object]:
    pauses = {"longest_copy_cpu_ms": 50, "longest_write_cpu_ms": 20}
    return {
        "users": 100_000,
        "engine_us_per_event": 1.1,
        "steady_rss_mb": 500,
        "peak_rss_mb": 600,
        "restore_s": 2.0,
        "first_snapshot": pauses,
        "next_snapshot": pauses,
    } | figures


def test_made_events_are_all_counted_and_all_clicks_find_their_impression() -> None:
    engine = Engine(key=bytes(16), partition=1, partitions=4, definitions=Definitions())
    maker = Maker(Crowd(users=1_000, partition=1, partitions=4), at_step_us=100)
    batches = [
        {Topic.ASSIGNMENTS: maker.assignments(maker.crowd.members(), b"ranker")},
        {Topic.IMPRESSIONS: maker.shown(3_000), Topic.INTERACTIONS: maker.clicked(300, newest=2_000)},
        {Topic.IMPRESSIONS: maker.shown(3_000), Topic.INTERACTIONS: maker.clicked(300, newest=2_000)},
    ]
    tallies = {}
    for number, each in enumerate(batches, 1):
        step = Step(number, START_MS + 10_000, (True, True, True), Definitions())
        outputs = engine.execute(step, {topic: [batch] for topic, batch in each.items()})
        for (topic, *outcome), count in outputs.tallies.items():
            tallies[topic, *outcome] = tallies.get((topic, *outcome), 0) + count
    assert tallies == {
        ("assignments", "counted", ""): 250,
        ("impressions", "counted", ""): 6_000,
        ("interactions", "counted", ""): 600,
    }
    ledger = outputs.tables["ledger"]
    assert np.sum(ledger["attributed"]) == 600


def test_each_partition_has_its_own_users() -> None:
    crowds = [Crowd(users=10, partition=p, partitions=4) for p in range(4)]
    assert sorted(np.concatenate([crowd.members() for crowd in crowds])) == list(range(10))
    for crowd in crowds:
        assert set(crowd.of_impressions(np.arange(1_000))) == set(crowd.members())


def test_every_kind_of_rows_has_its_bytes() -> None:
    found = Filled(Size(users=100, events=1_000, partitions=2)).bytes_by_kind()
    assert all(found.values())


def test_the_sizes_go_up_to_what_is_promised() -> None:
    assert [size.users for size in SIZES] == [100_000, 1_000_000, 5_000_000, 10_000_000]
    assert max(size.events for size in SIZES) == 50_000_000


def test_growth_is_of_the_whole_worker() -> None:
    assert growth([a_point(engine_us_per_event=0.5), a_point(engine_us_per_event=0.7)]) == 1.13


def test_what_is_missed_is_said_in_a_sentence() -> None:
    assert missed([a_point()]) == []
    big = a_point(users=5_000_000, steady_rss_mb=7_000, restore_s=31.0, engine_us_per_event=2.1)
    assert missed([a_point(), big]) == [
        "growth of CPU per event: 1.48, at most 1.15",
        "steady memory at 5 million users, MB: 7000, at most 6144",
        "restore at 5 million users, s: 31, at most 30",
    ]


def test_wide_experiments_make_no_more_rows_than_are_allowed_and_narrow_ones_keep_their_pace() -> None:
    wide = Shape(40, 5, 6, rate=1_000, users=2_000, partitions=2, seconds=20)
    free = measure_wide(wide)
    held = measure_wide(replace(wide, rows_per_second=8_000))
    assert free["step_took_seconds"] == 1
    assert free["made_rows_per_second"] > 10_000
    assert held["step_took_seconds"] > 2
    assert held["most_rows_per_second"] <= 8_000 / 2  # steps leave room for more
    narrow = measure_wide(
        Shape(2, 2, 2, rate=1_000, users=2_000, partitions=2, rows_per_second=8_000, seconds=20)
    )
    assert narrow["step_took_seconds"] == 1
