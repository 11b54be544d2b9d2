from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.contracts.topics import Topic
from stream.durability.digest import digest
from stream.durability.queue import Piece, Queue
from tests.durability.fakes import FakeReading, Record, a_batch

OFFSETS = st.lists(st.integers(0, 200), min_size=1, max_size=40, unique=True).map(sorted)


def records(*offsets: int, at_ms: int = 1) -> list[Record]:
    return [Record(offset, at_ms + offset, f"key-{offset}") for offset in offsets]


def a_queue(*batches: list[Record], start: int = 0) -> Queue:
    queue = Queue()
    queue.restart(start, -1)
    for batch in batches:
        queue.offer(a_batch(Topic.IMPRESSIONS, batch), batch[-1].offset + 1, FakeReading())
    return queue


def offsets_of(pieces: list[Piece]) -> list[int]:
    return [int(offset) for piece in pieces for offset in piece.batch.offset]


def test_the_bytes_of_what_waits_are_known() -> None:
    queue = Queue()
    batch = a_batch(Topic.IMPRESSIONS, [Record(i, i, "x") for i in range(4)])
    queue.offer(batch, 4, FakeReading())
    assert queue.nbytes == batch.buf.nbytes
    queue.drop(2)
    assert queue.nbytes == batch.buf.nbytes
    queue.drop(4)
    assert queue.nbytes == 0


def test_a_range_of_all_records_includes_the_gap_behind_them() -> None:
    queue = a_queue(records(1, 2))
    queue.offer(a_batch(Topic.IMPRESSIONS, []), 9, FakeReading())
    assert (queue.offset_after(1), queue.offset_after(2)) == (2, 9)


def test_the_reading_of_some_records_is_that_of_the_last_of_them() -> None:
    queue = a_queue(records(1, 2))
    newer = FakeReading(frozenset({1, 2}))
    queue.offer(a_batch(Topic.IMPRESSIONS, records(3)), 4, newer)
    assert [queue.reading_of(rows) for rows in range(4)] == [None, FakeReading(), FakeReading(), newer]


def test_a_batch_that_does_not_continue_the_queue_is_a_fault() -> None:
    with pytest.raises(ValueError, match="does not continue"):
        a_queue(records(1, 2), records(2, 3))


def test_a_topic_is_at_its_end_only_when_the_end_is_known() -> None:
    queue = a_queue(records(1, 2))
    assert not queue.is_at_end
    queue.hear_end(4)
    assert not queue.is_at_end
    queue.hear_end(3)
    assert queue.is_at_end
    queue.hear_end(None)
    assert not queue.is_at_end
    assert queue.end == 3


def test_rejected_records_do_not_move_the_event_time() -> None:
    batch = a_batch(Topic.IMPRESSIONS, [Record(0, 5, "a"), Record(1, 999, "b"), Record(2, 7, "c")])
    batch.status[1] = 4
    queue = Queue()
    queue.restart(0, -1)
    queue.offer(batch, 3, FakeReading())
    head = queue.head(10)
    assert head.reached_ms.tolist() == [5, 5, 7]
    assert head.newest_ms == 7


@given(OFFSETS, st.data())
def test_dropping_a_range_leaves_exactly_the_rest(offsets: list[int], data: Any) -> None:
    cut = data.draw(st.integers(0, len(offsets)))
    split = data.draw(st.integers(1, len(offsets)))
    parts = [part for part in (offsets[:split], offsets[split:]) if part]
    queue = a_queue(*(records(*part) for part in parts))
    hi = queue.offset_after(cut)
    assert offsets_of(queue.upto(hi)) == offsets[:cut]
    queue.drop(hi)
    assert queue.rows == len(offsets) - cut == len(queue.head(100).reached_ms)
    assert offsets_of(queue.upto(10_000)) == offsets[cut:]


@settings(deadline=None)  # the first call may compile
@given(OFFSETS, st.data())
def test_the_digest_does_not_depend_on_how_records_are_batched(offsets: list[int], data: Any) -> None:
    whole = a_batch(Topic.IMPRESSIONS, records(*offsets))
    split = data.draw(st.integers(0, len(offsets)))
    again = [a_batch(Topic.IMPRESSIONS, records(*part)) for part in (offsets[:split], offsets[split:])]
    assert digest([whole]) == digest(again) == digest([whole.rows(0, split), whole.rows(split, len(offsets))])


@pytest.mark.parametrize("column", ["offset", "record_at_ms", "buf"])
def test_the_digest_notices_every_change(column: str) -> None:
    before, after = (a_batch(Topic.IMPRESSIONS, records(1, 2, 3)) for _ in range(2))
    changed = np.array(getattr(after, column))
    changed[1] += 1
    object.__setattr__(after, column, changed)
    assert digest([before]) != digest([after])


def test_the_digest_tells_null_from_empty() -> None:
    empty = a_batch(Topic.IMPRESSIONS, [Record(0, 1, "")])
    null = a_batch(Topic.IMPRESSIONS, [Record(0, 1, "")])
    null.value_len[0] = -1
    assert digest([empty]) != digest([null])
