from functools import partial

import pytest
from aiokafka.structs import TopicPartition
from faust.types import TP

from stream.app import feed as feeds
from stream.app.feed import LOST_SECONDS, Feed, share_of_bytes
from stream.contracts.topics import Topic
from stream.intake.fetch import RawMemoryRecords, RawPartitionRecords
from stream.intake.record_sets import unpacked
from stream.intake.transport import Fetched
from tests.app.fakes import NAMES, a_fetched
from tests.durability.fakes import Record
from tests.intake.record_set_maker import Record as MadeRecord
from tests.intake.record_set_maker import a_batch


def a_feed(offset: int = 0) -> Feed:
    feed = Feed()
    feed.restart(1, offset)
    return feed


def test_items_come_out_in_the_order_they_went_in() -> None:
    feed = a_feed()
    for seq in range(3):
        feed.accept(a_fetched(seq=seq, records=(Record(seq, 1, "abc"),), next_offset=seq + 1))
    assert (feed.rows, feed.nbytes, feed.next_offset) == (3, 9, 3)
    taken = []
    while item := feed.peek():
        taken.append(item.seq)
        feed.pop()
    assert taken == [0, 1, 2]
    assert (feed.rows, feed.nbytes) == (0, 0)


def test_left_overs_of_an_earlier_epoch_are_dropped() -> None:
    feed = a_feed()
    feed.resume(2)
    feed.accept(a_fetched(epoch=1))
    assert feed.peek() is None
    assert not feed.has_lost


def test_a_missing_item_is_noticed_and_nothing_after_it_is_taken() -> None:
    feed = a_feed()
    feed.accept(a_fetched(seq=0, next_offset=5))
    feed.accept(a_fetched(seq=2, next_offset=9))
    feed.accept(a_fetched(seq=1, next_offset=7))
    assert feed.has_lost
    assert not feed.has_room
    assert feed.next_offset == 5
    feed.resume(2)
    feed.accept(a_fetched(epoch=2, seq=0, next_offset=9))
    assert not feed.has_lost
    assert feed.next_offset == 9


def test_a_restart_forgets_what_waits() -> None:
    feed = a_feed()
    feed.accept(a_fetched(records=(Record(0, 1, "a"),), next_offset=1, end_offset=4))
    feed.restart(2, 7)
    assert (feed.rows, feed.next_offset, feed.end, feed.peek()) == (0, 7, None, None)


@pytest.mark.parametrize("limit", ["rows", "bytes"])
def test_a_full_feed_has_no_room(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = a_feed()
    if limit == "rows":
        monkeypatch.setattr(feeds, "MAX_ROWS", 2)
    else:
        feed.max_bytes = 2
    assert feed.has_room
    feed.accept(a_fetched(records=(Record(0, 1, "a"), Record(1, 1, "b"))))
    assert not feed.has_room


@pytest.mark.parametrize(("partitions", "mebibytes"), [(1, 16), (4, 16), (8, 10), (100, 2)])
def test_what_waits_undecoded_is_bounded_for_all_partitions_together(partitions: int, mebibytes: int) -> None:
    assert share_of_bytes(partitions) >> 20 == mebibytes


def a_compressed(*records: Record) -> Fetched:
    """A fetch of one batch for each record."""
    tp = TP(NAMES[Topic.IMPRESSIONS], 0)
    data = b"".join(
        a_batch(MadeRecord(value=bytes(len(record.value))), base=record.offset, codec=4) for record in records
    )
    reader = RawPartitionRecords(
        TopicPartition(*tp), RawMemoryRecords(data), None, 0, check_crcs=True, read_committed=False
    )
    chunks = tuple(reader)
    return Fetched(tp, 1, 0, len(records), records[-1].offset + 1, None, chunks)


def test_a_fetch_that_unpacks_to_much_is_taken_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "unpacked", partial(unpacked, max_bytes=100))
    feed = a_feed()
    feed.accept(a_compressed(*(Record(offset, 1, "x" * 60) for offset in (0, 3, 7))))
    packed = feed.nbytes
    pieces = []
    while item := feed.peek():
        assert feed.peek() is not None  # again: the schema registry did not answer
        pieces.append((item.columns().offset.tolist(), item.rows, item.next_offset))
        feed.pop()
    assert pieces == [([0, 3], 2, 4), ([7], 1, 8)]
    assert packed > 0
    assert (feed.rows, feed.nbytes) == (0, 0)


def test_a_lost_item_that_nothing_follows_is_noticed_by_the_silence() -> None:
    feed = Feed()
    feed.restart(1, 0)
    feed.end = 3
    feed.notice_loss(100.0)
    feed.notice_loss(100.0 + LOST_SECONDS)
    assert not feed.has_lost
    feed.notice_loss(100.1 + LOST_SECONDS)
    assert feed.has_lost
    feed.resume(2)
    feed.accept(a_fetched(epoch=2, next_offset=3, end_offset=3))
    feed.notice_loss(101.0 + 2 * LOST_SECONDS)
    feed.notice_loss(102.0 + 9 * LOST_SECONDS)
    assert not feed.has_lost
