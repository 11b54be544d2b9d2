"""The messages of the topic `arm-partials`: absolute pane counts of an experiment, source partition and chunk.

Key: JSON `[experiment, partition, chunk_start_ms]`, readable in any Kafka tool; compaction works on it.
Value: one format byte, then Avro (`SCHEMA`). Counts are columns of the narrowest signed little-endian
integers that hold them: a busy chunk stays near one kilobyte and decodes without a loop over rows.
"""

import io
import json
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt
from aiokafka.partitioner import murmur2

from stream.engine.outputs import COUNTS, Chunk

PANE_MS = 10_000
CHUNK_MS = 300_000
PANES_IN_CHUNK = CHUNK_MS // PANE_MS
FORMAT = 1

SCHEMA = fastavro.parse_schema(
    {
        "type": "record",
        "name": "ArmPartial",
        "namespace": "liftstream.internal",
        "fields": [
            {"name": "generation", "type": "long"},
            {"name": "version", "type": "long"},  # the source partition's step
            {"name": "clock_ms", "type": "long"},
            {"name": "planned_at_ms", "type": "long"},
            {"name": "arms", "type": {"type": "array", "items": "string"}},
            {"name": "arm", "type": "bytes"},  # uint8 index into `arms`, one per row
            {"name": "pane", "type": "bytes"},  # uint8 index of the pane in the chunk, one per row
            {"name": "counts", "type": {"type": "array", "items": "bytes"}},  # one column per name of COUNTS
        ],
    }
)
_WIDTHS = tuple(np.dtype(code) for code in ("<i1", "<i2", "<i4", "<i8"))
_LIMITS = tuple((int(np.iinfo(dtype).min), int(np.iinfo(dtype).max), dtype) for dtype in _WIDTHS)
_DTYPE_OF_WIDTH = {dtype.itemsize: dtype for dtype in _WIDTHS}


class Malformed(ValueError):
    """Bytes that are no message of this topic, or one of a newer format."""


@dataclass(frozen=True, slots=True)
class PartialKey:
    """What a message is about."""

    experiment: str
    partition: int
    chunk_start_ms: int


@dataclass(frozen=True, slots=True)
class Partial:
    """A decoded value. arm: intp (rows,), index into arms. pane: intp (rows,), index in the chunk.

    counts: int64 (rows, len(COUNTS)). clock_ms: the source partition's watermark, -1 before its first event.
    """

    generation: int
    version: int
    clock_ms: int
    planned_at_ms: int
    arms: list[str]
    arm: npt.NDArray[np.intp]
    pane: npt.NDArray[np.intp]
    counts: npt.NDArray[np.int64]


def partition_for(experiment: str, partitions: int) -> int:
    """The partition of the topic that holds all messages of an experiment (murmur2 of its name)."""
    return (int(murmur2(experiment.encode())) & 0x7FFFFFFF) % partitions


def encode(
    chunk: Chunk, *, generation: int, version: int, partition: int, clock_ms: int, planned_at_ms: int
) -> tuple[bytes, bytes]:
    """Key and value of a chunk's message; the same chunk and step always give the same bytes."""
    arms = sorted(set(chunk.arms))
    index = {arm: i for i, arm in enumerate(arms)}
    counts = np.array(chunk.counts, np.int64).reshape(-1, len(COUNTS))
    value = {
        "generation": generation,
        "version": version,
        "clock_ms": clock_ms,
        "planned_at_ms": planned_at_ms,
        "arms": arms,
        "arm": bytes(index[arm] for arm in chunk.arms),
        "pane": _pane_indices(chunk),
        "counts": _narrow(counts),
    }
    out = io.BytesIO()
    out.write(bytes([FORMAT]))
    fastavro.schemaless_writer(out, SCHEMA, value)
    return encode_key(PartialKey(chunk.experiment, partition, chunk.chunk_start_ms)), out.getvalue()


def encode_key(key: PartialKey) -> bytes:
    """The record key."""
    parts = [key.experiment, key.partition, key.chunk_start_ms]
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()


def decode_key(data: bytes) -> PartialKey:
    """The inverse of `encode_key`. Raises Malformed."""
    try:
        experiment, partition, chunk_start_ms = json.loads(data)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed("the key is not [experiment, partition, chunk_start_ms]") from error
    if not (isinstance(experiment, str) and _is_count(partition) and _is_count(chunk_start_ms)):
        raise Malformed("the key is not [text, number, number]")
    if chunk_start_ms % CHUNK_MS:
        raise Malformed("the key's chunk does not start at a five-minute mark")
    return PartialKey(experiment, partition, chunk_start_ms)


def decode(data: bytes) -> Partial:
    """The inverse of `encode` for the value. Raises Malformed."""
    if data[:1] != bytes([FORMAT]):
        raise Malformed(f"the value is not of format {FORMAT}")
    stream = io.BytesIO(data[1:])
    try:
        fields: Any = fastavro.schemaless_reader(stream, SCHEMA, None)
        columns = [_widen(column, len(fields["arm"])) for column in fields["counts"]]
    except Exception as error:  # damaged Avro raises a dozen different types; all mean the same here
        raise Malformed("the value cannot be decoded") from error
    partial = Partial(
        generation=fields["generation"],
        version=fields["version"],
        clock_ms=fields["clock_ms"],
        planned_at_ms=fields["planned_at_ms"],
        arms=fields["arms"],
        arm=np.frombuffer(fields["arm"], np.uint8).astype(np.intp),
        pane=np.frombuffer(fields["pane"], np.uint8).astype(np.intp),
        counts=np.stack(columns, axis=1) if len(columns) == len(COUNTS) else np.empty((0, 0), np.int64),
    )
    if stream.read(1) or not _is_sound(partial):
        raise Malformed("the value contradicts itself")
    return partial


def _is_sound(partial: Partial) -> bool:
    rows = len(partial.arm)
    return bool(
        partial.counts.shape == (rows, len(COUNTS))
        and partial.pane.shape == (rows,)
        and partial.generation >= 0
        and partial.version >= 0
        and np.all(partial.arm < len(partial.arms))
        and np.all(partial.pane < PANES_IN_CHUNK)
    )


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**62


def _pane_indices(chunk: Chunk) -> bytes:
    """A byte for each row."""
    indices, rests = np.divmod(np.array(chunk.pane_start_ms, np.int64) - chunk.chunk_start_ms, PANE_MS)
    outside = (rests != 0) | (indices < 0) | (indices >= PANES_IN_CHUNK)
    if outside.any():
        pane_start_ms = chunk.pane_start_ms[int(outside.argmax())]
        raise ValueError(f"pane {pane_start_ms} is not in the chunk of {chunk.chunk_start_ms}")
    return indices.astype(np.uint8).tobytes()


def _narrow(counts: npt.NDArray[np.int64]) -> list[bytes]:
    """Each column in the narrowest type that holds it; its length divided by the rows tells the width."""
    if not len(counts):
        return [b""] * counts.shape[1]
    columns = []
    for column, low, high in zip(
        counts.T, counts.min(axis=0).tolist(), counts.max(axis=0).tolist(), strict=True
    ):
        dtype = next(dtype for least, most, dtype in _LIMITS if least <= low and high <= most)
        columns.append(column.astype(dtype).tobytes())
    return columns


def _widen(data: bytes, rows: int) -> npt.NDArray[np.int64]:
    if not rows:
        return np.frombuffer(data, np.int64)
    width, rest = divmod(len(data), rows)
    if rest:
        raise Malformed("a column is shorter than its rows")
    return np.frombuffer(data, _DTYPE_OF_WIDTH[width]).astype(np.int64)
