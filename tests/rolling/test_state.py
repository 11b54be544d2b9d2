from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.engine.outputs import COUNTS, Chunk
from stream.rolling.partials import CHUNK_MS, PANE_MS, encode, partition_for
from stream.rolling.state import IDLE_TIMEOUT_MS, KEPT_MS, WINDOWS_SECONDS, RollingState

DAY = 1_767_225_600_000
HOUR_MS = 3_600_000
ONE = [1, 0, 0, 0, 0, 0]
NEIGHBOUR = next(f"x{i}" for i in range(99) if partition_for(f"x{i}", 4) == partition_for("x", 4))


def a_message(
    rows=(("a", DAY, ONE),), *, experiment="ranker", partition=0, generation=1, version=1, clock_ms=DAY + PANE_MS,
    planned_at_ms=DAY, chunk_start_ms=None,
):  # fmt: skip
    """A message about one chunk; rows are (arm, pane_start_ms, counts)."""
    start_ms = rows[0][1] // CHUNK_MS * CHUNK_MS if chunk_start_ms is None else chunk_start_ms
    chunk = Chunk(
        experiment=experiment,
        chunk_start_ms=start_ms,
        arms=[arm for arm, _, _ in rows],
        pane_start_ms=[pane for _, pane, _ in rows],
        counts=[counts for _, _, counts in rows],
    )
    facts = {"generation": generation, "version": version, "partition": partition}
    return encode(chunk, **facts, clock_ms=clock_ms, planned_at_ms=planned_at_ms)


def a_state(*messages, **settings):
    state = RollingState(**{"partitions": 4} | settings)
    for message in messages:
        state.apply(*message)
    return state


def counts_of(state, column="impressions"):
    """{(experiment, arm, window): count}"""
    table = state.rows().columns
    keys = zip(table["experiment"], table["arm"], table["window_seconds"], strict=True)
    return dict(zip(keys, table[column].tolist(), strict=True))


def plain(rolling):
    """All of it as Python integers and texts."""
    table = {**rolling.columns, "version": rolling.version}
    return {
        name: list(map(int, column)) if hasattr(column, "dtype") else column for name, column in table.items()
    }


def impressions(state, window, arm="a"):
    return counts_of(state)["ranker", arm, window]


def as_of(state):
    (as_of_ms,) = set(state.rows().columns["as_of_ms"].tolist())
    return as_of_ms


# --- rows


def test_an_empty_state_has_no_rows_but_all_columns():
    table = a_state().rows().columns
    assert {len(column) for column in table.values()} == {0}
    assert set(table) == {
        "experiment", "arm", "dimension", "value", "window_seconds", "as_of_ms", *COUNTS,
    }  # fmt: skip


def test_every_arm_has_one_row_per_window_with_all_its_counts():
    state = a_state(a_message([("b", DAY, [9, 8, 7, 6, 5, 4]), ("a", DAY, ONE)], generation=3))
    assert state.rows().generation == 3
    table = plain(state.rows())
    assert table["arm"] == ["a"] * 4 + ["b"] * 4
    assert table["window_seconds"] == [60, 300, 3_600, 86_400] * 2
    assert [table[name][-1] for name in COUNTS] == [9, 8, 7, 6, 5, 4]
    assert set(table["dimension"]) == {"all"}
    assert set(table["value"]) == {""}


def test_an_arm_without_data_in_a_window_has_a_row_of_zeros():
    state = a_state(
        a_message([("a", DAY, ONE)]),
        a_message([("b", DAY + HOUR_MS, ONE)], version=2, clock_ms=DAY + HOUR_MS + PANE_MS),
    )
    assert impressions(state, 60, "a") == 0
    assert impressions(state, 86_400, "a") == 1
    assert impressions(state, 60, "b") == 1


def test_partitions_add_up():
    state = a_state(*(a_message(partition=p) for p in range(3)))
    assert impressions(state, 60) == 3


def test_only_the_asked_experiments_are_computed_and_unknown_ones_left_out():
    state = a_state(a_message(experiment="x"), a_message(experiment="y"))
    assert set(state.rows(["y", "gone"]).columns["experiment"]) == {"y"}


# --- windows


@pytest.mark.parametrize("window", WINDOWS_SECONDS)
@pytest.mark.parametrize("as_of_ms", [DAY + CHUNK_MS, DAY + 130_000])
def test_a_window_holds_its_first_pane_and_not_the_one_before_nor_the_one_at_its_end(window, as_of_ms):
    first, last = as_of_ms - window * 1000, as_of_ms - PANE_MS
    panes = [(first, 1), (first - PANE_MS, 10), (last, 100), (as_of_ms, 1000)]
    messages = defaultdict(list)
    for start_ms, count in panes:
        messages[start_ms // CHUNK_MS].append(("a", start_ms, [count, 0, 0, 0, 0, 0]))
    state = a_state(*(a_message(rows, clock_ms=as_of_ms) for rows in messages.values()))
    assert impressions(state, window) == 101


def test_windows_move_with_the_watermark():
    state = a_state(a_message([("a", DAY, ONE)]))
    assert impressions(state, 60) == 1
    state.apply(*a_message([("a", DAY + 60_000, ONE)], version=2, clock_ms=DAY + 69_999, chunk_start_ms=DAY))
    assert as_of(state) == DAY + 60_000
    assert impressions(state, 60) == 0  # version 2 says that the chunk's first pane is empty now
    state.apply(*a_message([("a", DAY + 60_000, ONE)], version=3, clock_ms=DAY + 70_000, chunk_start_ms=DAY))
    assert impressions(state, 60) == 1


def test_a_chunk_whose_counts_fall_is_followed():
    state = a_state(a_message([("a", DAY, [5, 2, 0, 2, 0, 70])]))
    assert counts_of(state, "revenue_minor")["ranker", "a", 60] == 70
    state.apply(*a_message([("a", DAY, [3, 1, 0, 1, 0, -30])], version=2))
    assert impressions(state, 86_400) == 3
    assert counts_of(state, "revenue_minor")["ranker", "a", 60] == -30
    state.apply(*a_message([], version=3, chunk_start_ms=DAY))
    assert impressions(state, 86_400) == 0


# --- as_of


def test_as_of_is_the_smallest_watermark_floored_to_the_pane():
    state = a_state(a_message(clock_ms=DAY + 59_999), a_message(partition=1, clock_ms=DAY + 25_000))
    assert as_of(state) == DAY + 20_000


@pytest.mark.parametrize(
    ("behind_ms", "expected"), [(IDLE_TIMEOUT_MS, DAY), (IDLE_TIMEOUT_MS + 1, DAY + HOUR_MS)]
)
def test_an_idle_partition_does_not_hold_the_windows_back(behind_ms, expected):
    state = a_state(
        a_message(clock_ms=DAY, planned_at_ms=DAY + HOUR_MS - behind_ms),
        a_message(partition=1, clock_ms=DAY + HOUR_MS, planned_at_ms=DAY + HOUR_MS),
    )
    assert as_of(state) == expected


def test_a_partition_without_a_watermark_does_not_count():
    assert as_of(a_state(a_message(clock_ms=-1), a_message(partition=1))) == DAY + PANE_MS
    assert len(a_state(a_message(clock_ms=-1)).rows().columns["arm"]) == 0


def test_the_watermark_is_that_of_the_newest_step_whatever_its_chunk():
    newest = a_message([("a", DAY - HOUR_MS, ONE)], version=9, clock_ms=DAY + HOUR_MS)
    older = a_message(version=8, clock_ms=DAY)
    assert as_of(a_state(newest, older)) == as_of(a_state(older, newest)) == DAY + HOUR_MS


def test_the_windows_of_an_experiment_without_events_move_on_with_those_of_its_neighbours():
    state = a_state(a_message(experiment="x"), a_message(experiment=NEIGHBOUR))
    assert state.take_due(range(4)) == sorted(["x", NEIGHBOUR])
    state.rows()
    for hours in (1, 23, 25, 30):
        clock_ms = DAY + hours * HOUR_MS
        pane_ms = clock_ms - PANE_MS
        state.apply(
            *a_message([("a", pane_ms, ONE)], experiment=NEIGHBOUR, version=hours + 1, clock_ms=clock_ms)
        )
        assert state.take_due(range(4)) == sorted(["x", NEIGHBOUR])
        found = rows_of(state)
        assert found["x", "a", 86_400] == (clock_ms, ONE if hours < 24 else [0] * 6)
        assert found["x", "a", 3_600] == (clock_ms, [0] * 6 if hours > 1 else ONE)
    assert state.take_due(range(4)) == []


def test_an_experiment_without_events_is_written_again_only_after_a_minute():
    state = a_state(a_message(experiment="x"), a_message(experiment=NEIGHBOUR))
    state.take_due(range(4))
    state.rows()
    for version, seconds in enumerate((30, 59, 60), 2):
        clock_ms = DAY + PANE_MS + seconds * 1_000
        state.apply(
            *a_message([], experiment=NEIGHBOUR, version=version, clock_ms=clock_ms, chunk_start_ms=DAY)
        )
        due = state.take_due(range(4))
        assert ("x" in due) == (seconds >= 60)


# --- versions


def test_a_message_again_or_an_older_one_changes_nothing():
    state = a_state(a_message([("a", DAY, [5, 0, 0, 0, 0, 0])], version=2))
    before = plain(state.rows())
    state.take_due(range(4))
    state.apply(*a_message([("a", DAY, [5, 0, 0, 0, 0, 0])], version=2))
    state.apply(*a_message([("a", DAY, [4, 0, 0, 0, 0, 0])], version=1))
    assert plain(state.rows()) == before
    assert state.stale == 2
    assert state.take_due(range(4)) == []


def test_a_higher_generation_replaces_all_lower_ones_whenever_they_come():
    old, new = a_message(experiment="old", version=900), a_message(generation=2)
    for state in (a_state(old, new), a_state(new, old)):
        assert set(counts_of(state)) == {("ranker", "a", window) for window in WINDOWS_SECONDS}
        assert state.generation == 2


def test_the_version_grows_with_every_message_of_a_step():
    state = a_state()
    seen = []
    for version in (1, 2):
        for chunk_start_ms in (DAY, DAY - CHUNK_MS):
            for partition in (0, 1):
                facts = {"version": version, "partition": partition, "chunk_start_ms": chunk_start_ms}
                state.apply(*a_message([("a", chunk_start_ms, ONE)], **facts))
                seen += {int(v) for v in state.rows().version}
    assert seen == sorted(set(seen))
    assert len(seen) == 8


def test_touched_experiments_are_told_once():
    state = a_state(
        a_message(experiment="y"), a_message(experiment="x"), a_message(experiment="x", partition=1)
    )
    assert state.take_due(range(4)) == ["x", "y"]
    assert state.take_due(range(4)) == []


# --- robustness


@pytest.mark.parametrize(
    ("key", "value"),
    [(None, b"x"), (b"", b""), (b"nonsense", a_message()[1]), (a_message()[0], b"nonsense")],
    ids=["no key", "empty", "bad key", "bad value"],
)
def test_a_malformed_message_is_counted_and_changes_nothing(key, value):
    state = a_state(a_message())
    before = plain(state.rows())
    state.apply(key, value)
    assert state.malformed == 1
    assert plain(state.rows()) == before


def test_a_tombstone_changes_nothing():
    state = a_state(a_message())
    state.apply(a_message()[0], None)
    assert impressions(state, 60) == 1
    assert state.malformed == 0


def test_a_dropped_partition_takes_its_experiments_along():
    names = [f"e{i}" for i in range(20)]
    state = a_state(*(a_message(experiment=name) for name in names))
    state.drop_partition(2)
    left = [name for name in names if partition_for(name, 4) != 2]
    assert 0 < len(left) < len(names)
    assert state.take_due(range(4)) == sorted(left)
    assert {name for name, _, _ in counts_of(state)} == set(left)


def test_old_chunks_are_freed_and_the_windows_stay_exact():
    state = a_state()
    for i in range(600):
        start_ms = DAY + i * CHUNK_MS
        state.apply(*a_message([("a", start_ms, ONE)], version=i + 1, clock_ms=start_ms + PANE_MS))
        if i % 7 == 4:
            assert impressions(state, 86_400) == min(i + 1, 288)
    assert state.chunks_held <= KEPT_MS // CHUNK_MS + 1


# --- laws


def oracle(messages, idle_timeout_ms=IDLE_TIMEOUT_MS):
    """Rows by brute force: keep the newest of each key, then look at every pane for every window."""
    top = max(m["generation"] for m in messages)
    newest, arms, sources = {}, defaultdict(set), defaultdict(dict)
    for m in messages:
        if m["generation"] < top:
            continue
        key = m["experiment"], m["partition"], m["chunk_start_ms"]
        home = partition_for(m["experiment"], 4)
        if key not in newest or m["version"] > newest[key]["version"]:
            newest[key] = m
        arms[m["experiment"]] |= {arm for arm, _, _ in m["rows"]}
        old = sources[home].get(m["partition"])
        if old is None or m["version"] > old["version"]:
            sources[home][m["partition"]] = m
    rows = {}
    for experiment in arms:
        of = sources[partition_for(experiment, 4)]
        latest = max(m["planned_at_ms"] for m in of.values())
        clocks = [m["clock_ms"] for m in of.values() if latest - m["planned_at_ms"] <= idle_timeout_ms]
        end = min(clocks) // PANE_MS * PANE_MS
        panes = [row for key, m in newest.items() if key[0] == experiment for row in m["rows"]]
        for arm in arms[experiment]:
            for window in WINDOWS_SECONDS:
                inside = [c for a, pane, c in panes if a == arm and end - window * 1000 <= pane < end]
                rows[experiment, arm, window] = end, [sum(c[i] for c in inside) for i in range(len(COUNTS))]
    return rows


def rows_of(state):
    table = plain(state.rows())
    keys = zip(table["experiment"], table["arm"], table["window_seconds"], strict=True)
    counts = zip(*(table[name] for name in COUNTS), strict=True)
    return {key: (end, list(row)) for key, end, row in zip(keys, table["as_of_ms"], counts, strict=True)}


@st.composite
def histories(draw):
    """Messages of a few partitions' steps; a version of a partition has one clock and one planning time."""
    messages = []
    for partition in range(draw(st.integers(1, 3))):
        clock_ms, planned_at_ms = DAY, DAY
        for version in range(1, draw(st.integers(1, 5)) + 1):
            clock_ms += draw(st.sampled_from([0, 9_999, 10_000, 61_000, CHUNK_MS, HOUR_MS, 8 * HOUR_MS]))
            planned_at_ms += draw(st.sampled_from([0, 1_000, 14_000, 16_000]))
            for _ in range(draw(st.integers(1, 2))):
                facts = {"clock_ms": clock_ms, "planned_at_ms": planned_at_ms, "version": version}
                messages.append(draw(messages_of(partition=partition, facts=facts)))
    unique = {
        (m["generation"], m["experiment"], m["partition"], m["chunk_start_ms"], m["version"]): m
        for m in messages
    }
    return list(unique.values())


@st.composite
def messages_of(draw, *, partition, facts):
    back_ms = draw(st.sampled_from([0, PANE_MS, 60_000, CHUNK_MS, HOUR_MS, HOUR_MS + PANE_MS, 24 * HOUR_MS]))
    start_ms = (facts["clock_ms"] - back_ms) // CHUNK_MS * CHUNK_MS
    row = st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 29).map(lambda i: start_ms + i * PANE_MS),
        st.lists(st.integers(-9, 1_000), min_size=6, max_size=6),
    )
    return facts | {
        "experiment": draw(st.sampled_from(["x", "y", NEIGHBOUR])),
        "partition": partition,
        "generation": draw(st.sampled_from([1, 1, 1, 1, 2])),
        "chunk_start_ms": start_ms,
        "rows": draw(st.lists(row, max_size=4)),
    }


@settings(max_examples=150, deadline=None)
@given(history=histories(), data=st.data())
def test_any_order_and_repetition_of_messages_gives_the_brute_force_rows(history, data):
    again = data.draw(st.lists(st.sampled_from(history), max_size=6))
    order = data.draw(st.permutations([*history, *again]))
    state = a_state(*(a_message(**m) for m in order))
    assert rows_of(state) == oracle(history)
    assert plain(state.rows()) == plain(a_state(*(a_message(**m) for m in history)).rows())


@settings(max_examples=80, deadline=None)
@given(history=histories())
def test_rows_between_the_messages_are_those_of_the_messages_so_far(history):
    history.sort(key=lambda m: m["clock_ms"])
    state, versions = a_state(), defaultdict(int)
    for i, message in enumerate(history):
        state.apply(*a_message(**message))
        rolling = state.rows()
        if history[0]["clock_ms"] + KEPT_MS - CHUNK_MS > message["clock_ms"]:
            assert rows_of(state) == oracle(history[: i + 1])
        for experiment, version in zip(rolling.columns["experiment"], rolling.version, strict=True):
            assert version >= versions[state.generation, experiment]
            versions[state.generation, experiment] = version
