import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.durability.planner import NEVER, Head, choose


def a_head(*times: int, newest: int | None = None, at_end: bool = False) -> Head:
    reached = np.maximum.accumulate(np.array(times, np.int64)) if times else np.empty(0, np.int64)
    return Head(reached, max(times, default=NEVER) if newest is None else newest, at_end)


def heads() -> st.SearchStrategy[list[Head]]:
    head = st.builds(
        lambda times, at_end: a_head(*times, at_end=at_end),
        st.lists(st.integers(0, 30), max_size=20),
        st.booleans(),
    )
    return st.lists(head, min_size=3, max_size=3)


def test_everything_is_taken_when_all_topics_are_at_their_end() -> None:
    assert choose([a_head(1, 9, at_end=True), a_head(at_end=True), a_head(5, at_end=True)], 10) == [2, 0, 1]


def test_nothing_is_taken_beyond_what_was_read_of_a_topic_that_lies_behind() -> None:
    assert choose([a_head(1, 2, 3), a_head(2, 5, 9, at_end=True), a_head(2, 4)], 10) == [3, 1, 1]


def test_the_earliest_topic_goes_first_when_not_all_fits() -> None:
    assert choose(
        [a_head(10, 11, at_end=True), a_head(1, 2, 12, at_end=True), a_head(3, at_end=True)], 4
    ) == [1, 2, 1]


def test_a_topic_that_has_shown_nothing_holds_the_others_back() -> None:
    waiting = [a_head(), a_head(1, 2, at_end=True), a_head(3, at_end=True)]
    assert choose(waiting, 10) == [0, 0, 0]
    assert choose(waiting, 10, aligned=False) == [0, 2, 1]


def test_one_time_for_all_is_shared_out_in_the_order_of_the_topics() -> None:
    assert choose([a_head(7, 7, 7, at_end=True), a_head(7, 7, at_end=True), a_head(7, at_end=True)], 4) == [
        3,
        1,
        0,
    ]


@given(heads(), st.integers(1, 40))
def test_a_step_is_never_too_large_and_never_leaves_an_earlier_event_behind(
    given_heads: list[Head], rows: int
) -> None:
    taken = choose(given_heads, rows)
    assert sum(taken) <= rows
    last = max(
        (int(h.reached_ms[n - 1]) for h, n in zip(given_heads, taken, strict=True) if n), default=NEVER
    )
    left = [int(h.reached_ms[n]) for h, n in zip(given_heads, taken, strict=True) if n < len(h.reached_ms)]
    assert all(last <= time for time in left)


@given(heads(), st.integers(1, 40))
def test_progress_is_always_made_when_the_topic_furthest_behind_has_records(
    given_heads: list[Head], rows: int
) -> None:
    behind = [h for h in given_heads if not h.at_end]
    lowest = min(behind, key=lambda h: h.newest_ms, default=None)
    if lowest is None:
        assert any(choose(given_heads, rows)) == any(len(h.reached_ms) for h in given_heads)
    elif len(lowest.reached_ms):
        assert any(choose(given_heads, rows))
    assert any(choose(given_heads, rows, aligned=False)) == any(len(h.reached_ms) for h in given_heads)
