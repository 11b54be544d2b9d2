"""Kafka record sets (message format v2) to columns: two kernels, no Python object per record.

A record set is what a broker answers for one partition: batches of records, each with a header of 61 bytes and a
body that may be compressed. https://kafka.apache.org/documentation/#recordbatch
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from aiokafka.structs import TopicPartition
from numba import njit

from stream.engine.batch import I64, SPARE_BYTES, U8, UNREADABLE, Columns
from stream.engine.primitives import varint
from stream.errors import LiftstreamError
from stream.intake.compression import MAX_BATCH_BYTES, Unpacker

log = logging.getLogger(__name__)

# The columns of a batch table, int64: where the batch begins and its body lies in the buffer, then its header.
HEAD, BODY, END, BASE, LAST, ATTRIBUTES, FIRST_MS, MAX_MS, PRODUCER, COUNT, CRC, WANTED, LOST = range(13)
BATCH_COLUMNS = 13
HEADER_BYTES = 61
CRC_FROM = 21  # bytes into the batch; the CRC covers all that follows

COMPRESSED, APPEND_TIME, TRANSACTIONAL, CONTROL = 7, 8, 16, 32  # bits of ATTRIBUTES

WHOLE, OLD_FORMAT, MALFORMED = range(3)  # how a walk ended

PIECE_BYTES = 64 << 20  # of compressed batches that are unpacked together
PIECE_ROWS = 100_000
_MIN_RECORD_BYTES = 7
_NO_LIMIT = 1 << 62


class UnreadableRecords(LiftstreamError):
    """A record set is damaged or of a format from before Kafka 0.11; brokers let no producer write such."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The records of one fetch of one partition, still as the broker sent them.

    buf: the bytes. batches: int64 (batches, BATCH_COLUMNS), at least one row.
    rows: how many records the headers promise; fewer are read when the fetch began inside a batch.
    next_offset: where the next fetch begins; may lie behind the last record, where the log has gaps.
    """

    tp: TopicPartition
    buf: memoryview
    batches: I64
    rows: int
    next_offset: int


def batches_of(buf: memoryview) -> tuple[I64, int, int]:
    """The batch table of a record set, how the walk ended, and at which byte. A cut-off tail is left out."""
    table = np.empty((len(buf) // HEADER_BYTES + 1, BATCH_COLUMNS), np.int64)
    rows, at, status = _walk(np.frombuffer(buf, np.uint8), table)
    return table[:rows].copy(), status, at


def columns(chunks: Sequence[Chunk], *, max_batch_bytes: int = MAX_BATCH_BYTES) -> Columns:
    """The records of chunks of one partition, in order.

    Those of a batch that cannot be unpacked, or to no more than `max_batch_bytes`, have a value_len of UNREADABLE: a
    producer can write such a batch, and must not stop anybody with it. Raises UnreadableRecords for one that claims
    more records than could be in it.
    """
    bodies: list[memoryview] = []
    tables = [np.empty((0, BATCH_COLUMNS), np.int64)]
    at = 0
    for chunk in chunks:
        whole, _ = unpacked(chunk, max_bytes=_NO_LIMIT, max_rows=_NO_LIMIT, max_batch_bytes=max_batch_bytes)
        table = whole.batches.copy()
        start, end = int(table[0, HEAD]), int(table[-1, END])
        table[:, [BODY, END]] += at - start
        bodies.append(whole.buf[start:end])
        tables.append(table)
        at += end - start
    buf = _joined(bodies)
    out = np.empty((6, sum(chunk.rows for chunk in chunks)), np.int64)
    rows = _parse(_read_only(buf), np.concatenate(tables), out)
    offset, record_at_ms, key_pos, key_len, value_pos, value_len = out[:, :rows]
    return Columns(buf, offset, record_at_ms, key_pos, key_len, value_pos, value_len)


def _joined(bodies: Sequence[memoryview | bytes]) -> U8:
    """The bytes of all bodies and SPARE_BYTES; those of a single one where they are, if others follow them.

    Writable, as in all Columns: numba compiles a kernel once more for read-only arrays.
    """
    if len(bodies) == 1 and isinstance(whole := getattr(bodies[0], "obj", None), np.ndarray):
        at = np.frombuffer(bodies[0], np.uint8).ctypes.data - whole.ctypes.data
        if at + len(bodies[0]) + SPARE_BYTES <= len(whole):
            there: U8 = whole[at : at + len(bodies[0]) + SPARE_BYTES]
            return there
    return np.frombuffer(bytearray().join([*bodies, bytes(SPARE_BYTES)]), np.uint8)


def _read_only(buf: U8) -> U8:
    view = buf.view()
    view.flags.writeable = False
    return view


def first_key(buf: memoryview, batch: I64) -> bytes | None:
    """The key of the first record of an uncompressed batch (one row of a batch table); None for null or damaged."""
    table = batch[None, :].copy()
    raw: U8 = np.frombuffer(buf, np.uint8)
    size, body = _first_length(raw, table[0, BODY], table[0, END])
    table[0, [COUNT, WANTED, END]] = 1, -1, body + size
    out = np.empty((6, 1), np.int64)
    if body < 0 or body + size > batch[END] or _parse(raw, table, out) != 1 or out[3, 0] < 0:
        return None
    return bytes(buf[out[2, 0] : out[2, 0] + out[3, 0]])


def is_compressed(chunk: Chunk) -> bool:
    """Whether any of its batches is."""
    return bool((chunk.batches[:, ATTRIBUTES] & COMPRESSED).any())


def unpacked(
    chunk: Chunk,
    *,
    max_bytes: int = PIECE_BYTES,
    max_rows: int = PIECE_ROWS,
    max_batch_bytes: int = MAX_BATCH_BYTES,
) -> tuple[Chunk, Chunk | None]:
    """The first batches of a chunk without compression, and the others as they were, if any.

    Stops after the batch that reaches a bound: a fetch of one MiB may unpack to many GiB. Raises UnreadableRecords.
    """
    if not is_compressed(chunk):
        return chunk, None
    unpacker = Unpacker(max_batch_bytes)
    table = chunk.batches.copy()
    bodies: list[memoryview | bytes] = []
    at = rows = taken = 0
    while taken < len(table) and at < max_bytes and rows < max_rows:
        batch = table[taken]
        bodies.append(_body(chunk, batch, unpacker))
        batch[[HEAD, BODY]] = at
        at += len(bodies[-1])
        batch[END] = at
        batch[ATTRIBUTES] &= ~COMPRESSED
        rows += int(batch[COUNT])
        taken += 1
    buf = memoryview(_joined(bodies).data)[:at]
    if taken == len(table):
        return Chunk(chunk.tp, buf, table, chunk.rows, chunk.next_offset), None
    last = table[taken - 1]
    first = Chunk(chunk.tp, buf, table[:taken], rows, int(last[BASE] + last[LAST]) + 1)
    rest = Chunk(chunk.tp, chunk.buf, chunk.batches[taken:], chunk.rows - rows, chunk.next_offset)
    return first, rest


def _body(chunk: Chunk, batch: I64, unpacker: Unpacker) -> memoryview | bytes:
    """A batch's records; nothing, and LOST set, where they cannot be unpacked."""
    base = int(batch[BASE])
    if (
        batch[COUNT] * _MIN_RECORD_BYTES > MAX_BATCH_BYTES
    ):  # the count decides how much memory the columns take
        raise unreadable(chunk.tp, base, "damaged: its header says more records than it can hold")
    packed = chunk.buf[int(batch[BODY]) : int(batch[END])]
    codec = int(batch[ATTRIBUTES]) & COMPRESSED
    if not codec:
        return packed
    try:
        return unpacker.unpack(codec, packed)
    except ValueError as error:
        log.warning(
            "%s, partition %d: the record batch at offset %d is %s: its records are rejected.",
            chunk.tp.topic, chunk.tp.partition, base, error,
        )  # fmt: skip
        batch[LOST] = 1
        return b""


def unreadable(tp: TopicPartition, offset: int, why: str) -> UnreadableRecords:
    """The error that names where the unreadable batch is."""
    return UnreadableRecords(
        f"{tp.topic}, partition {tp.partition}: the record batch at offset {offset} is {why}"
    )


@njit(inline="always")
def _be32(b, p):
    return (
        (np.int64(b[p]) << 24) | (np.int64(b[p + 1]) << 16) | (np.int64(b[p + 2]) << 8) | np.int64(b[p + 3])
    )


@njit(inline="always")
def _be32_signed(b, p):
    return (_be32(b, p) ^ 0x80000000) - 0x80000000


@njit(inline="always")
def _be64(b, p):
    return (_be32(b, p) << 32) | _be32(b, p + 4)


@njit(cache=True, nogil=True)
def _walk(buf, table):
    """Batch headers of `buf` into rows of `table`: (rows, byte where it ended, how)."""
    size = len(buf)
    at = 0
    row = 0
    while size - at >= 17:  # offset, length, epoch and magic
        length = _be32_signed(buf, at + 8)
        magic = buf[at + 16]
        if length < 14:
            return row, at, MALFORMED
        end = at + 12 + length
        if end > size:
            break
        if magic < 2:
            return row, at, OLD_FORMAT
        body = length - (HEADER_BYTES - 12)
        if magic > 2 or body < 0:
            return row, at, MALFORMED
        attributes = (np.int64(buf[at + 21]) << 8) | np.int64(buf[at + 22])
        last = _be32_signed(buf, at + 23)
        count = _be32_signed(buf, at + 57)
        if count < 0 or last < 0 or count > last + 1:
            return row, at, MALFORMED
        if (attributes & COMPRESSED) == 0 and count * _MIN_RECORD_BYTES > body:
            return row, at, MALFORMED
        batch = table[row]
        batch[HEAD] = at
        batch[BODY] = at + HEADER_BYTES
        batch[END] = end
        batch[BASE] = _be64(buf, at)
        batch[LAST] = last
        batch[ATTRIBUTES] = attributes
        batch[FIRST_MS] = _be64(buf, at + 27)
        batch[MAX_MS] = _be64(buf, at + 35)
        batch[PRODUCER] = _be64(buf, at + 43)
        batch[COUNT] = count
        batch[CRC] = _be32(buf, at + 17)
        batch[WANTED] = -1
        batch[LOST] = 0
        row += 1
        at = end
    return row, at, WHOLE


@njit(cache=True, nogil=True)
def _first_length(buf, at, end):
    """The length of a batch's first record, and where it begins."""
    return varint(buf, at, end)


@njit(cache=True, nogil=True)
def _parse(buf, table, out):
    """Records of every batch in `table` into the columns `out`, from its WANTED offset on; returns how many."""
    row = np.int64(0)
    for b in range(len(table)):
        following = _parse_batch(buf, table[b], out, row) if table[b, LOST] == 0 else np.int64(-1)
        row = following if following >= 0 else _give_up_batch(table[b], out, row)
    return row


@njit
def _parse_batch(buf, batch, out, row):
    """The place after the last record of a batch, or -1 where one is malformed.

    A record: length, attributes (one byte), time delta, offset delta, key, value, headers; all numbers zig-zag varints.
    """
    malformed = np.int64(-1)
    at = batch[BODY]
    end = batch[END]
    append_time = batch[ATTRIBUTES] & APPEND_TIME
    for _ in range(batch[COUNT]):
        length, at = varint(buf, at, end)
        if at < 0 or length < 6 or length > end - at:
            return malformed
        stop = at + length
        delta_ms, at = varint(buf, at + 1, stop)
        if at < 0:
            return malformed
        delta, at = varint(buf, at, stop)
        if at < 0:
            return malformed
        key_len, key = varint(buf, at, stop)
        if key < 0 or key_len > stop - key:
            return malformed
        value_len, value = varint(buf, key + max(key_len, 0), stop)
        if value < 0 or value_len > stop - value:
            return malformed
        if _after_headers(buf, value + max(value_len, 0), stop) != stop:
            return malformed
        at = stop
        offset = batch[BASE] + delta
        if offset >= batch[WANTED]:
            out[0, row] = offset
            out[1, row] = batch[MAX_MS] if append_time else batch[FIRST_MS] + delta_ms
            out[2, row] = key
            out[3, row] = max(key_len, -1)
            out[4, row] = value
            out[5, row] = max(value_len, -1)
            row += 1
    return np.int64(row) if at == end else malformed


@njit
def _give_up_batch(batch, out, row):
    """As many records as the header promises, the last one at the last offset, without key and value."""
    for k in range(batch[COUNT]):
        offset = batch[BASE] + (k if k + 1 < batch[COUNT] else batch[LAST])
        if offset >= batch[WANTED]:
            out[0, row] = offset
            out[1, row] = batch[MAX_MS] if batch[ATTRIBUTES] & APPEND_TIME else batch[FIRST_MS]
            out[2, row] = 0
            out[3, row] = -1
            out[4, row] = 0
            out[5, row] = UNREADABLE
            row += 1
    return np.int64(row)


@njit(inline="always")
def _after_headers(buf, at, stop):
    """Where a record's headers end; -1 when they do not fit. The engine has no use for them."""
    count, at = varint(buf, at, stop)
    if at < 0 or count < 0:
        return np.int64(-1)
    for _ in range(count):
        size, at = varint(buf, at, stop)
        if at < 0 or size < 0 or size > stop - at:
            return np.int64(-1)
        size, at = varint(buf, at + size, stop)
        if at < 0 or size > stop - at:
            return np.int64(-1)
        at += max(size, 0)
    return at
