"""Raw records into checked columns: Confluent header, Avro datum, rules and partition in one pass.

Every record is read inside its own bounds, so a poisoned one gets a status and its neighbours do not notice.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from stream.contracts.reasons import Reason
from stream.contracts.topics import FIELDS, Topic
from stream.engine.batch import SPARE_BYTES, TEXT_MASK, TEXT_SHIFT, UNREADABLE, Batch, Columns
from stream.intake.avro_datum import new_stack, read_datum
from stream.intake.avro_program import Program
from stream.intake.murmur2 import partition_of
from stream.intake.resolve import own_program, resolved
from stream.intake.validate import broken_rule, rule_table

HEADER_BYTES = 5
USER_ID = 2  # its place in the FIELDS of every topic
SLOW = -1  # a passing status: fastavro must resolve this record

_NULL_VALUE, _BAD_HEADER = int(Reason.NULL_VALUE), int(Reason.BAD_HEADER)
_UNKNOWN_SCHEMA, _MALFORMED = int(Reason.UNKNOWN_SCHEMA), int(Reason.MALFORMED)
_UNREADABLE = int(Reason.UNREADABLE)
_NOWHERE = np.int64(-1)


def columns_of(
    values: Sequence[bytes | None], offsets: npt.ArrayLike, record_at_ms: npt.ArrayLike
) -> Columns:
    """Columns of encoded values in memory, None being a null value; keys are null.

    offsets, record_at_ms: as many integers as values.
    """
    try:
        value_len = np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]
        joined = bytearray().join([*values, bytes(SPARE_BYTES)])  # type: ignore[list-item]
    except TypeError:
        value_len = np.fromiter((-1 if v is None else len(v) for v in values), np.int64, len(values))
        joined = bytearray().join([*filter(None, values), bytes(SPARE_BYTES)])
    present = np.maximum(value_len, 0)
    rows = len(values)
    return Columns(
        buf=np.frombuffer(joined, np.uint8),
        offset=np.asarray(offsets, np.int64),
        record_at_ms=np.asarray(record_at_ms, np.int64),
        key_pos=np.zeros(rows, np.int64),
        key_len=np.full(rows, -1, np.int64),
        value_pos=np.cumsum(present) - present,
        value_len=value_len,
    )


def has_unknown(batch: Batch) -> bool:
    """Whether it has records with a schema id that its program knows nothing of, or refuses."""
    return bool((batch.status & 255 == _UNKNOWN_SCHEMA).any())


def unknown_ids(columns: Columns, program: Program) -> set[int]:
    """Schema ids in the records' headers that the program neither knows nor refuses.

    Poison may put any number there: ask a registry about each id once.
    """
    settled = np.array([*program.ids, *program.refused], np.int64)
    found = np.empty(len(columns), np.int64)
    columns = _of_one_kind(columns)
    count = _collect_unknown(columns.buf, columns.value_pos, columns.value_len, settled, found)
    return set(np.unique(found[:count]).tolist())


def decode(
    topic: Topic,
    columns: Columns,
    program: Program,
    *,
    partition: int,
    partitions: int,
    on_slow: Callable[[int], None] = lambda records: None,
) -> Batch:
    """Decode and check all records of one topic-partition; see contracts.reasons for the statuses.

    All arrays of the batch are contiguous and writable; columns' arrays that are not are copied. The batch's `buf` is
    that of the columns, or a longer copy of it when texts had to be added (enum symbols, or records that fastavro
    resolved); `value_pos` and `value_len` always show the original record. on_slow: told how many records fastavro
    resolved.
    """
    if program.topic is not topic:
        raise AssertionError(f"a program for {program.topic.word} cannot read {topic.word}")
    columns = _of_one_kind(columns)
    buf = columns.buf
    symbol_base = 0
    if program.symbols:
        symbol_base = len(buf)
        buf = _extended(buf, program.symbols)
    here = (partition, partitions)
    fields, status, misrouted = _read(buf, columns.value_pos, columns.value_len, program, symbol_base, here)
    slow = np.flatnonzero(status == SLOW)
    if len(slow):
        on_slow(len(slow))
        plain = [_resolved_at(columns, program, row) for row in slow.tolist()]
        added = columns_of(plain, slow, slow)
        at = added.value_pos + len(buf)
        buf = _extended(buf, added.buf)
        fields[slow], told, misrouted[slow] = _read(buf, at, added.value_len, own_program(topic), 0, here)
        # Where fastavro gave up, it was not at a field of ours.
        status[slow] = np.where(told & 255 == _MALFORMED, _MALFORMED, told)
    return Batch(
        topic=topic,
        buf=buf,
        offset=columns.offset,
        record_at_ms=columns.record_at_ms,
        value_pos=columns.value_pos,
        value_len=columns.value_len,
        fields=fields,
        status=status,
        misrouted=misrouted,
    )


def _of_one_kind(columns: Columns) -> Columns:
    """The same columns, each array contiguous and writable; copies those that are not.

    numba compiles a kernel anew for every kind of array, which takes seconds: a worker that does so in the middle
    of its work looks dead.
    """
    return Columns(
        *(np.require(getattr(columns, f.name), requirements=["C", "W"]) for f in dataclasses.fields(columns))
    )


def _extended(buf, more):
    """A copy of `buf` with more bytes behind it, and the spare ones behind those."""
    return np.concatenate([buf, np.frombuffer(more, np.uint8), np.zeros(SPARE_BYTES, np.uint8)])


def _resolved_at(columns: Columns, program: Program, row: int) -> bytes:
    pos = int(columns.value_pos[row])
    value = columns.buf[pos : pos + int(columns.value_len[row])].tobytes()
    schema_id = int.from_bytes(value[1:HEADER_BYTES], "big")
    return resolved(program.topic, program.slow[schema_id], value[HEADER_BYTES:])


def _read(buf, value_pos, value_len, program, symbol_base, here):
    """(fields, status, misrouted) of records anywhere in `buf`."""
    rows = len(value_pos)
    fields = np.empty((rows, len(FIELDS[program.topic])), np.int64)
    status = np.empty(rows, np.int64)
    misrouted = np.zeros(rows, np.bool_)
    _decode(
        buf, value_pos, value_len, program.ids, program.spans, program.code, program.nodes, program.kids,
        program.symbol_at, symbol_base, rule_table(program.topic), *here, fields, status, misrouted,
    )  # fmt: skip
    return fields, status, misrouted


@njit(inline="always")
def _schema_id(buf, pos, length):
    """The id in the Confluent header, -1 when that is not there."""
    if length < HEADER_BYTES or buf[pos] != 0:
        return _NOWHERE
    high = (np.int64(buf[pos + 1]) << 24) | (np.int64(buf[pos + 2]) << 16)
    return high | (np.int64(buf[pos + 3]) << 8) | np.int64(buf[pos + 4])


@njit(inline="always")
def _index_of(ids, schema_id):
    for index in range(len(ids)):
        if ids[index] == schema_id:
            return index
    return -1


@njit(cache=True, nogil=True)
def _collect_unknown(buf, value_pos, value_len, settled, found):
    """Write the unknown ids into `found` (repeated ones only when not in a row); returns how many."""
    count = 0
    last = _NOWHERE
    for i in range(len(value_pos)):
        schema_id = _schema_id(buf, value_pos[i], value_len[i])
        if schema_id == last or schema_id < 0:
            continue
        last = schema_id
        if _index_of(settled, schema_id) < 0:
            found[count] = schema_id
            count += 1
    return count


@njit(cache=True, nogil=True)
def _decode(
    buf, value_pos, value_len, ids, spans, code, nodes, kids,
    symbol_at, symbol_base, rules, partition, partitions, fields, status, misrouted,
):  # fmt: skip
    """Fill fields, status and misrouted, one row per record."""
    doubles = fields.view(np.float64)
    open_values = new_stack()
    last, index = _NOWHERE, -1
    for i in range(len(value_pos)):
        pos, length = value_pos[i], value_len[i]
        schema_id = _schema_id(buf, pos, length)
        if schema_id < 0:
            status[i] = _BAD_HEADER
            if length < 0:
                status[i] = _UNREADABLE if length == UNREADABLE else _NULL_VALUE
            continue
        if schema_id != last:
            last, index = schema_id, _index_of(ids, schema_id)
        if index < 0:
            status[i] = _UNKNOWN_SCHEMA
            continue
        start, stop = spans[index, 0], spans[index, 1]
        if start < 0:
            status[i] = SLOW
            continue
        done = read_datum(
            buf, pos + HEADER_BYTES, pos + length, code, start, stop, nodes, kids, open_values,
            symbol_at, symbol_base, fields, i,
        )  # fmt: skip
        if done == 0:
            done = broken_rule(buf, fields, doubles, rules, i)
        status[i] = done
        if done == 0 and partitions > 1:
            user = fields[i, USER_ID]
            home = partition_of(buf, user >> TEXT_SHIFT, user & TEXT_MASK, partitions)
            misrouted[i] = home != partition
