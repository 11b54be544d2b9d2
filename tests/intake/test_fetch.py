"""The raw path reads exactly what aiokafka's own parser reads, and refuses what it must not read."""

import logging
import random
import struct
from collections.abc import Iterator

import google_crc32c
import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.structs import ConsumerRecord, TopicPartition

from stream.engine.batch import SPARE_BYTES, UNREADABLE, Columns
from stream.intake import fetch, fetch_check
from stream.intake.compression import Oversized, Unpacker
from stream.intake.fetch import PLAIN, RawMemoryRecords, RawPartitionRecords, columns_of_records
from stream.intake.fetch_check import Row, rows_of
from stream.intake.record_sets import UnreadableRecords, columns
from tests.intake.record_set_maker import CODECS, Record, RecordSet, a_batch, a_marker, a_record_set, pack

TP = TopicPartition("impressions", 3)


@pytest.fixture(autouse=True)
def _restore_hooks() -> Iterator[None]:
    yield
    fetch.uninstall()


def read_plain(
    made: RecordSet, *, check_crcs: bool = True, isolation: int = 0
) -> tuple[list[Row], int, bool]:
    """Rows, next offset, whether it failed, as aiokafka has them."""
    memory_records, partition_records = PLAIN
    records = memory_records(made.data)
    if not records.has_next():
        return [], made.wanted, False
    reader = partition_records(
        TP, records, list(made.aborted), made.wanted, None, None, check_crcs, isolation
    )
    rows: list[ConsumerRecord] = []
    failed = False
    try:
        rows.extend(reader)
    except Exception:
        failed = True
    # aiokafka moves back after a whole batch below the wanted offset, which no broker sends; the raw path does not.
    rows = [row for row in rows if row.offset >= made.wanted]
    return rows_of(columns_of_records(rows)), max(made.wanted, reader.next_fetch_offset), failed


def read_raw(made: RecordSet, *, check_crcs: bool = True, isolation: int = 0) -> tuple[list[Row], int, bool]:
    records = RawMemoryRecords(made.data)
    if not records.has_next():
        return [], made.wanted, False
    reader = RawPartitionRecords(
        TP, records, made.aborted, made.wanted, check_crcs=check_crcs, read_committed=isolation == 1
    )
    try:
        chunks = list(reader)
        rows = rows_of(columns(chunks))
    except UnreadableRecords:
        return [], reader.next_fetch_offset, True
    assert all(chunk.next_offset == reader.next_fetch_offset for chunk in chunks)
    return rows, reader.next_fetch_offset, False


@pytest.mark.parametrize("seed", range(8))
def test_random_record_sets_give_equal_rows_on_both_paths(seed: int) -> None:
    choose = random.Random(seed)
    rows = 0
    for _ in range(300):
        transactions = choose.random() < 0.4
        codecs = choose.choice([*([codec] for codec in CODECS), list(CODECS)])
        made = a_record_set(choose, codecs=codecs, transactions=transactions)
        if made.data and choose.random() < 0.4:  # the broker cuts the last batch off
            made.data = made.data[: choose.randrange(len(made.data))]
        isolation = choose.choice([0, 1]) if transactions else 0
        check_crcs = choose.random() < 0.7
        plain = read_plain(made, check_crcs=check_crcs, isolation=isolation)
        assert read_raw(made, check_crcs=check_crcs, isolation=isolation) == plain
        rows += len(plain[0])
    assert rows > 15_000


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_never_gives_other_rows(seed: int) -> None:
    choose = random.Random(1000 + seed)
    noticed = 0
    for _ in range(60):
        made = a_record_set(choose, codecs=list(CODECS), transactions=False)
        if not made.data:
            continue
        sound = read_raw(made)[0]
        at = choose.randrange(len(made.data))
        if any(head <= at < head + 8 for head in made.heads):
            continue  # the base offset is outside the checksum: nobody can notice
        broken = bytearray(made.data)
        broken[at] ^= 1 << choose.randrange(8)
        made.data = bytes(broken)
        rows, _, failed = read_raw(made)
        assert rows == sound[: len(rows)]
        noticed += failed or len(rows) < len(sound)
        read_raw(made, check_crcs=False)  # must not read out of bounds, whatever it gives
    assert noticed > 10


def test_no_chunk_is_no_rows_but_a_readable_buffer() -> None:
    empty = columns([])
    assert len(empty) == 0
    assert len(empty.buf) == SPARE_BYTES
    assert rows_of(columns_of_records([])) == []


def test_several_chunks_become_one_set_of_columns() -> None:
    chunks = []
    for base, codec in ((0, 0), (10, 3), (20, 0), (30, 4)):
        data = a_batch(Record(value=b"a%d" % base), Record(1, value=None), base=base, codec=codec)
        reader = RawPartitionRecords(
            TP, RawMemoryRecords(data), None, base, check_crcs=True, read_committed=False
        )
        chunks += list(reader)
    joined = columns(chunks)
    assert joined.offset.tolist() == [0, 1, 10, 11, 20, 21, 30, 31]
    assert [row[3] for row in rows_of(joined)[::2]] == [b"a0", b"a10", b"a20", b"a30"]
    assert joined.value_len[1::2].tolist() == [-1] * 4


def test_batches_without_records_move_the_position() -> None:
    made = RecordSet(a_marker(4, 9, aborts=False) + a_batch(base=5, last=2), [], 4)
    assert read_raw(made) == ([], 8, False)


def test_good_batches_before_a_damaged_one_are_given_out_first() -> None:
    good, bad = a_batch(Record(), base=0), bytearray(a_batch(Record(), base=1))
    bad[-1] ^= 1
    assert [row[0] for row in read_raw(RecordSet(good + bytes(bad), [], 0))[0]] == [0]
    reader = RawPartitionRecords(
        TP, RawMemoryRecords(bytes(bad)), None, 1, check_crcs=True, read_committed=False
    )
    expected = (
        "impressions, partition 3: the record batch at offset 1 is damaged: its checksum does not match"
    )
    with pytest.raises(UnreadableRecords, match=expected):
        next(reader)


@pytest.mark.parametrize("magic", [0, 1])
def test_the_old_message_formats_are_refused_in_a_sentence(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 10**6)
    builder.append(0, timestamp=5 if magic else None, key=None, value=b"x")
    records = RawMemoryRecords(bytes(builder.build()))
    reader = RawPartitionRecords(TP, records, None, 0, check_crcs=True, read_committed=False)
    with pytest.raises(UnreadableRecords, match=r"offset 0 is in the message format of Kafka before 0\.11"):
        next(reader)


def lies(*, codec: int = 0, count: int = 1, body: bytes = b"") -> RecordSet:
    """A batch with a valid checksum whose header and body do not fit."""
    return RecordSet(a_batch(*(Record(i) for i in range(count)), codec=codec, body=body), [], 0)


def read(data: bytes) -> Columns:
    return columns(
        list(RawPartitionRecords(TP, RawMemoryRecords(data), None, 0, check_crcs=True, read_committed=False))
    )


def test_a_header_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(UnreadableRecords, match="header contradicts itself"):
        read(lies(count=5, body=b"\x01").data)


@pytest.mark.parametrize(
    "made",
    [
        lies(count=5, codec=4, body=pack(4, b"\x01")),  # fewer records than the header says
        lies(count=2, body=b"\xff" * 30),
        lies(codec=1, body=b"not gzip at all"),
        lies(codec=1, body=pack(1, b"x" * 999)[:-9]),
        lies(codec=2, body=b"\x82SNAPPY\0\0\0\0\1\0\0\0\1\0\0\0\x50x"),
        lies(codec=3, body=b"not lz4 at all!"),
        lies(codec=4, body=b"not zstd at all"),
        lies(codec=6, body=b"x" * 30),
    ],
)
def test_the_records_of_a_batch_that_cannot_be_unpacked_are_marked_and_its_neighbours_read(
    made: RecordSet,
) -> None:
    count = struct.unpack_from(">i", made.data, 57)[0]
    before, after = a_batch(Record(value=b"a"), base=0), a_batch(Record(value=b"b"), base=9)
    bad = bytearray(made.data)
    struct.pack_into(">q", bad, 0, 1)
    found = read(before + bytes(bad) + after)
    assert found.offset.tolist() == [0, *range(1, 1 + count), 9]
    assert found.value_len.tolist() == [1, *[UNREADABLE] * count, 1]
    assert set(found.key_len[1:-1].tolist()) == {-1}


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_batch_that_unpacks_to_more_than_the_bound_is_marked(codec: int) -> None:
    data = a_batch(Record(value=bytes(3 << 20)), base=0, codec=codec)
    chunks = list(
        RawPartitionRecords(TP, RawMemoryRecords(data), None, 0, check_crcs=True, read_committed=False)
    )
    assert columns(chunks).value_len.tolist() == [3 << 20]
    assert columns(chunks, max_batch_bytes=2 << 20).value_len.tolist() == [UNREADABLE]


@pytest.mark.parametrize("xerial", [False, True])
@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_small_batch_that_unpacks_to_a_huge_one_is_refused(codec: int, xerial: bool) -> None:
    bomb = pack(codec, bytes(3 << 20), xerial=xerial)
    unpacker = Unpacker(max_bytes=2 << 20)
    with pytest.raises(Oversized, match="larger than 2 MiB when unpacked"):
        unpacker.unpack(codec, memoryview(bomb))
    small = pack(codec, b"fits" * 1000, xerial=xerial)
    assert bytes(unpacker.unpack(codec, memoryview(small))) == b"fits" * 1000


def test_a_snappy_block_that_claims_gigabytes_is_refused_unread() -> None:
    with pytest.raises(Oversized):
        Unpacker().unpack(2, memoryview(b"\xff\xff\xff\xff\x0f" + b"x"))


def test_topics_that_are_not_ours_keep_aiokafkas_parser() -> None:
    fetch.install(frozenset({"impressions"}))
    data = a_batch(Record(key=b"k", value=b"v"))
    arguments = (None, 0, None, None, True, 0)
    other = fetcher.PartitionRecords(TopicPartition("other", 0), fetcher.MemoryRecords(data), *arguments)
    assert [(record.key, record.value) for record in other] == [(b"k", b"v")]
    ours = fetcher.PartitionRecords(TP, fetcher.MemoryRecords(data), *arguments)
    assert isinstance(ours, RawPartitionRecords)


def test_the_start_check_accepts_this_aiokafka() -> None:
    assert fetch_check.why_not_raw() == ""
    assert fetch_check.choose(frozenset({"impressions"})) is True
    assert fetcher.MemoryRecords is RawMemoryRecords


def test_an_aiokafka_that_calls_its_parser_otherwise_is_read_the_plain_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Renamed:
        def __init__(self, tp: object, records: object, position: int) -> None: ...

    monkeypatch.setattr(fetcher, "PartitionRecords", Renamed)
    assert "PartitionRecords takes tp, records, position" in fetch_check.why_not_raw()
    monkeypatch.setattr(fetch, "PLAIN", (PLAIN[0], Renamed))
    with caplog.at_level(logging.ERROR):
        assert fetch_check.choose(frozenset({"impressions"})) is False
    assert "READING RECORDS ONE BY ONE" in caplog.text
    assert fetcher.MemoryRecords is PLAIN[0]


def test_a_raw_path_that_reads_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PLAIN", (PLAIN[0], lambda *_: ReadsNothing()))
    assert "sample with codec 0 differently" in fetch_check.why_not_raw()


class ReadsNothing:
    """A parser that reads nothing."""

    next_fetch_offset = 0

    def __iter__(self) -> Iterator[ConsumerRecord]:
        return iter(())


def test_one_setting_forces_the_plain_path() -> None:
    assert fetch_check.choose(frozenset({"impressions"}), plain=True) is False
    assert fetcher.MemoryRecords is PLAIN[0]


def test_a_record_set_shorter_than_a_header_is_left_alone() -> None:
    assert not RawMemoryRecords(struct.pack(">q", 1)).has_next()


def test_checksums_without_the_compiled_part_of_their_library_are_computed_by_aiokafka(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(google_crc32c, "implementation", "c")
    assert fetch.fastest_crc32c() is google_crc32c.value
    monkeypatch.setattr(google_crc32c, "implementation", "python")
    assert fetch.fastest_crc32c()(b"123456789") == google_crc32c.value(b"123456789") == 0xE3069283
    assert fetch.fastest_crc32c() is not google_crc32c.value
