"""At start: does the raw path read what aiokafka's own parser reads? If not, or if told so, the plain path is taken."""

import asyncio
import inspect
import logging
import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import product
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.protocol.fetch import FetchRequest_v11
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from stream.engine.batch import Columns
from stream.intake import fetch, frames
from stream.intake.record_sets import CRC_FROM, columns

log = logging.getLogger(__name__)

Row = tuple[int, int, bytes | None, bytes | None]  # offset, time, key, value

# How aiokafka calls the classes that are replaced.
PARTITION_RECORDS_ARGUMENTS = [
    "tp", "records", "aborted_transactions", "fetch_offset", "key_deserializer", "value_deserializer", "check_crcs",
    "isolation_level",
]  # fmt: skip
CONNECTION_METHODS = {"connect": ["self"], "_read": ["self_ref"], "_handle_frame": ["self", "resp"]}
MEMORY_RECORDS_METHODS = ("has_next", "size_in_bytes")

_TP = TopicPartition("start-check", 0)
_CORRELATION_ID = 7
_BEFORE_ANSWER = 8  # size and correlation id
_WANTED = 101  # begins inside the first batch, at offset 100


def choose(topics: frozenset[str], *, plain: bool = False) -> bool:
    """Install the raw path for these topics if it works with this aiokafka and `plain` is not asked for; whether."""
    fetch.uninstall()
    frames.uninstall()
    if plain:
        log.warning("reading records one by one, as the setting says: several times slower")
        return False
    if reason := why_not_raw():
        log.error(
            "READING RECORDS ONE BY ONE, several times slower: the fast path does not fit this aiokafka (%s). "
            "Install a supported version.",
            reason,
        )
        return False
    fetch.install(topics)
    if reason := why_no_frames():
        log.error(
            "Copying what is fetched, a tenth slower: reading into place does not fit this aiokafka (%s). "
            "Install a supported version.",
            reason,
        )
        return True
    frames.install()
    return True


def why_not_raw() -> str:
    """What keeps the raw path from being used; empty when nothing does."""
    try:
        memory_records, partition_records = (getattr(fetcher, name) for name in fetch.HOOKS)
        arguments = list(inspect.signature(partition_records.__init__).parameters)[1:]
        if arguments != PARTITION_RECORDS_ARGUMENTS:
            return f"PartitionRecords takes {', '.join(arguments)}"
        if lacking := [name for name in MEMORY_RECORDS_METHODS if not hasattr(memory_records, name)]:
            return f"MemoryRecords lacks {', '.join(lacking)}"
        for (codec, sample), committed in product(_samples(), (False, True)):
            if _raw_rows(sample, committed) != _plain_rows(sample, committed):
                return f"the paths read a sample with codec {codec} differently"
    except Exception as error:  # whatever a new version does, the answer is the plain path
        return f"{type(error).__name__}: {error}"
    return ""


def why_no_frames() -> str:
    """What keeps answers from being read into place; empty when nothing does."""
    try:
        protocol, connection = frames.PLAIN
        for method, arguments in CONNECTION_METHODS.items():
            if list(inspect.signature(getattr(connection, method)).parameters) != arguments:
                return f"AIOKafkaConnection.{method} takes other arguments"
        if not issubclass(protocol, asyncio.StreamReaderProtocol):
            return "AIOKafkaProtocol is no StreamReaderProtocol"
        answer = _answer()
        if _read_into_place(answer) != FetchRequest_v11.RESPONSE_TYPE.decode(answer[_BEFORE_ANSWER:]):
            return "an answer is read differently"
    except Exception as error:  # whatever a new version does, the answer is aiokafka's own connection
        return f"{type(error).__name__}: {error}"
    return ""


def rows_of(read: Columns) -> list[Row]:
    """Columns as rows, for comparing."""
    data = read.buf.tobytes()

    def text(at: int, size: int) -> bytes | None:
        return None if size < 0 else data[at : at + size]

    keys = map(text, read.key_pos.tolist(), read.key_len.tolist())
    values = map(text, read.value_pos.tolist(), read.value_len.tolist())
    return list(zip(read.offset.tolist(), read.record_at_ms.tolist(), keys, values, strict=True))


def _raw_rows(sample: bytes, committed: bool) -> tuple[list[Row], int]:
    records = fetch.RawMemoryRecords(sample)
    reader = fetch.RawPartitionRecords(_TP, records, None, _WANTED, check_crcs=True, read_committed=committed)
    return rows_of(columns(list(reader))), reader.next_fetch_offset


def _plain_rows(sample: bytes, committed: bool) -> tuple[list[Row], int]:
    memory_records, partition_records = fetch.PLAIN
    isolation = fetcher.READ_COMMITTED if committed else fetcher.READ_UNCOMMITTED
    reader = partition_records(_TP, memory_records(sample), None, _WANTED, None, None, True, isolation)
    return rows_of(fetch.columns_of_records(list(reader))), reader.next_fetch_offset


def _answer() -> bytes:
    """What a broker sends: size, correlation id, and record sets that become views and that are copied."""
    sets = [b"x" * 50_000, b"y" * 100, b"", None]
    partitions = [(number, 0, 9, 9, 0, [(1, 2)], -1, records) for number, records in enumerate(sets)]
    answer = FetchRequest_v11.RESPONSE_TYPE(0, 0, 0, [("topic", partitions)]).encode()
    return struct.pack(">ii", 4 + len(answer), _CORRELATION_ID) + bytes(answer)


def _read_into_place(answer: bytes) -> Any:
    """The answer as a connection would give it, received in pieces."""
    loop = asyncio.new_event_loop()
    try:
        protocol = frames.FrameProtocol(loop.create_future(), asyncio.StreamReader(loop=loop), loop=loop)
        left = answer
        while left:
            room = protocol.get_buffer(-1)
            piece = left[: min(len(room), 1 + len(room) // 2)]
            room[: len(piece)] = piece
            protocol.buffer_updated(len(piece))
            left = left[len(piece) :]
        connection = object.__new__(frames.FrameConnection)
        connection._reader = None
        answered: Future[Any] = Future()
        connection._requests = deque([(_CORRELATION_ID, FetchRequest_v11(), answered)])
        frame = protocol.frames.get_nowait()
        assert isinstance(frame, frames.Frame)
        connection.take(frame)
        return answered.result(0)
    finally:
        loop.close()


def _samples() -> Iterator[tuple[int, bytes]]:
    """Per compression codec a record set: nulls, empties, headers, gaps in and between batches, a control batch."""
    for codec in range(5):
        first = _batch(codec, 100, [(0, None, b"v" * 300), (1, b"k", None), (5, b"", b"")])
        marker = _batch(0, 110, [(0, b"\0\0\0\1", b"")], control=True)
        last = _batch(codec, 140, [(i, b"user-%d" % i, b"value" * i) for i in range(50)])
        yield codec, first + marker + last


def _batch(
    codec: int, base: int, records: list[tuple[int, bytes | None, bytes | None]], *, control: bool = False
) -> bytes:
    builder: Any = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for delta, key, value in records:
        builder.append(delta, 1_700_000_000_000 + delta, key, value, [("h", None), ("h", b"x")])
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, base)
    if control:
        batch[CRC_FROM + 1] |= 32
        struct.pack_into(">I", batch, 17, calc_crc32c(memoryview(batch)[CRC_FROM:]))
    return bytes(batch)
