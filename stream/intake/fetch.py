"""What a consumer fetches, as columns: aiokafka's record parser is replaced, for our topics only.

aiokafka makes a Python object of every record. Here a fetch of a partition stays one Chunk, which aiokafka, and Faust
above it, treat like a single record; a step turns it into columns. aiokafka's own parser (the *plain* path, several
times slower) is the fall-back: see fetch_check.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import google_crc32c
import numpy as np
from aiokafka.consumer import fetcher
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord, TopicPartition

from stream.engine.batch import I64, SPARE_BYTES, Columns
from stream.intake.record_sets import (
    ATTRIBUTES,
    BASE,
    CONTROL,
    COUNT,
    CRC,
    CRC_FROM,
    END,
    HEAD,
    LAST,
    MALFORMED,
    OLD_FORMAT,
    PRODUCER,
    TRANSACTIONAL,
    WANTED,
    WHOLE,
    Chunk,
    batches_of,
    first_key,
    unreadable,
)

# The two names of aiokafka.consumer.fetcher that are replaced; fetch_check and a test pin how they are used.
HOOKS = ("MemoryRecords", "PartitionRecords")
PLAIN = tuple(getattr(fetcher, name) for name in HOOKS)

_ABORT_TYPE = b"\0\0"  # bytes 2 and 3 of a control record's key
_TROUBLE = {
    WHOLE: "",
    OLD_FORMAT: "in the message format of Kafka before 0.11, which is not read: produce it again with a newer client",
    MALFORMED: "damaged: its header contradicts itself",
}


class RawMemoryRecords:
    """Stands in for MemoryRecords: the bytes of one partition's answer."""

    __slots__ = ("buf",)

    def __init__(self, buf: bytes | memoryview) -> None:
        self.buf = memoryview(buf).toreadonly()  # kernels are compiled per kind of array

    def size_in_bytes(self) -> int:
        """Length, a cut-off tail included."""
        return len(self.buf)

    def has_next(self) -> bool:
        """Whether it begins with a whole batch."""
        return len(self.buf) >= 17 and struct.unpack_from(">i", self.buf, 8)[0] + 12 <= len(self.buf)


class RawPartitionRecords:
    """Stands in for PartitionRecords: an iterator of at most one Chunk.

    next_fetch_offset: the offset after the chunk once it is handed out; it also moves past batches without records.
    A damaged batch ends the chunk; it is met again, and raises UnreadableRecords, as the first one of the next fetch.
    """

    def __init__(
        self,
        tp: TopicPartition,
        records: RawMemoryRecords,
        aborted: Sequence[tuple[int, int]] | None,
        fetch_offset: int,
        *,
        check_crcs: bool,
        read_committed: bool,
    ) -> None:
        self.next_fetch_offset = fetch_offset
        self._tp = tp
        self._check_crcs = check_crcs
        self._aborted = sorted(aborted or (), key=lambda pair: pair[1]) if read_committed else None
        self._buf: memoryview | None = records.buf

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        if self._buf is None:
            raise StopIteration
        buf, self._buf = self._buf, None
        batches, status, at = batches_of(buf)
        trouble = _TROUBLE[status]
        if self._check_crcs and (good := _good_crcs(buf, batches)) < len(batches):
            at, trouble = int(batches[good, HEAD]), "damaged: its checksum does not match"
            batches = batches[:good]
        wanted = self.next_fetch_offset
        if len(batches):
            self.next_fetch_offset = max(wanted, int(batches[-1, BASE] + batches[-1, LAST]) + 1)
        batches = self._visible(buf, batches)
        rows = int(batches[:, COUNT].sum())
        if rows:
            batches[:, WANTED] = wanted
            return Chunk(self._tp, buf, batches, rows, self.next_fetch_offset)
        if trouble:
            offset = struct.unpack_from(">q", buf, at)[0]
            raise unreadable(self._tp, offset, trouble)
        raise StopIteration

    def _visible(self, buf: memoryview, batches: I64) -> I64:
        """The batches without control batches and, for read_committed, without aborted transactions."""
        kinds = batches[:, ATTRIBUTES] & (CONTROL | TRANSACTIONAL)
        if not kinds.any():
            return batches
        if self._aborted is None:
            data: I64 = batches[(kinds & CONTROL) == 0]
            return data
        aborted = list(self._aborted)
        producers: set[int] = set()
        keep = np.ones(len(batches), np.bool_)
        for i, (base, attributes, producer) in enumerate(batches[:, [BASE, ATTRIBUTES, PRODUCER]].tolist()):
            while aborted and aborted[0][1] <= base:
                producers.add(aborted.pop(0)[0])
            if attributes & CONTROL:
                if (first_key(buf, batches[i]) or b"")[2:4] == _ABORT_TYPE:
                    producers.discard(producer)
                keep[i] = False
            elif attributes & TRANSACTIONAL and producer in producers:
                keep[i] = False
        return batches[keep]


def install(topics: frozenset[str]) -> None:
    """Read these topics raw from now on, in every consumer of this process; others keep aiokafka's classes."""
    memory_records, partition_records = PLAIN

    def records_of(
        tp: TopicPartition,
        records: RawMemoryRecords,
        aborted: Any,
        fetch_offset: int,
        key_deserializer: Any,
        value_deserializer: Any,
        check_crcs: bool,
        isolation_level: int,
    ) -> Any:
        if tp.topic in topics and key_deserializer is None and value_deserializer is None:
            read_committed = isolation_level == fetcher.READ_COMMITTED
            return RawPartitionRecords(
                tp, records, aborted, fetch_offset, check_crcs=check_crcs, read_committed=read_committed
            )
        plain = memory_records(bytes(records.buf))
        deserializers = (key_deserializer, value_deserializer)
        return partition_records(
            tp, plain, aborted, fetch_offset, *deserializers, check_crcs, isolation_level
        )

    fetcher.MemoryRecords, fetcher.PartitionRecords = RawMemoryRecords, records_of


def uninstall() -> None:
    """Give all topics back to aiokafka's own classes."""
    fetcher.MemoryRecords, fetcher.PartitionRecords = PLAIN


def columns_of_records(records: Sequence[ConsumerRecord]) -> Columns:
    """The plain path's columns: aiokafka's own records (with bytes or None as key and value), joined once."""
    parts = [part for record in records for part in (record.key, record.value)]
    lengths = np.array([-1 if part is None else len(part) for part in parts], np.int64)
    starts = np.concatenate([[0], np.maximum(lengths, 0).cumsum()[:-1]]) if parts else lengths
    buf = bytearray().join([*(part for part in parts if part is not None), bytes(SPARE_BYTES)])
    return Columns(
        buf=np.frombuffer(buf, np.uint8),
        offset=np.array([record.offset for record in records], np.int64),
        record_at_ms=np.array([record.timestamp for record in records], np.int64),
        key_pos=starts[0::2],
        key_len=lengths[0::2],
        value_pos=starts[1::2],
        value_len=lengths[1::2],
    )


def fastest_crc32c() -> Callable[[bytes], int]:
    """The library's; without its compiled part it is a hundred times slower, and aiokafka's table only four times."""
    found: Callable[[bytes], int] = (
        google_crc32c.value if google_crc32c.implementation == "c" else calc_crc32c
    )
    return found


_crc32c = fastest_crc32c()


def _good_crcs(buf: memoryview, batches: I64) -> int:
    """How many batches precede the first one whose checksum is wrong."""
    for i, (head, end, crc) in enumerate(batches[:, [HEAD, END, CRC]].tolist()):
        if _crc32c(bytes(buf[head + CRC_FROM : end])) != crc:  # it takes nothing but bytes
            return i
    return len(batches)
