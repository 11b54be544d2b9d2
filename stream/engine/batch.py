"""Records of one topic and partition as columns: first raw (Columns), then decoded (Batch)."""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from stream.contracts.topics import Topic

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

SPARE_BYTES = 32  # readable bytes that follow the last record in every `buf`
NULL = -(
    1 << 50
)  # a null field: outside every range of longs, below every text, and a NaN as a double's bits
UNREADABLE = -2  # as a value_len
TEXT_SHIFT = 20  # a text field is `position << 20 | length` into `buf`
TEXT_MASK = (1 << TEXT_SHIFT) - 1


@dataclass(frozen=True, slots=True)
class Columns:
    """Raw records. `buf` uint8 with SPARE_BYTES at its end; all others int64 of shape (rows,).

    offset: Kafka offset, ascending. record_at_ms: Kafka record time, epoch milliseconds UTC.
    key_len, value_len: -1 for null; value_len UNREADABLE where the record's batch cannot be unpacked.
    """

    buf: U8
    offset: I64
    record_at_ms: I64
    key_pos: I64
    key_len: I64
    value_pos: I64
    value_len: I64

    def __len__(self) -> int:
        return len(self.offset)


@dataclass(frozen=True, slots=True)
class Batch:
    """Decoded records of one topic.

    fields: int64 (rows, len(FIELDS[topic])), row-major. Longs as they are; doubles as their IEEE bits; texts as
        `position << 20 | length` into `buf`; null is NULL. Undefined where status is not 0.
    status: int64 (rows,), see contracts.reasons.
    misrouted: bool (rows,): murmur2(user_id) belongs to another partition.
    """

    topic: Topic
    buf: U8
    offset: I64
    record_at_ms: I64
    value_pos: I64
    value_len: I64
    fields: I64
    status: I64
    misrouted: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offset)

    def rows(self, start: int, stop: int) -> "Batch":
        """The rows start <= i < stop; arrays are views, `buf` is shared."""
        part = {
            f.name: getattr(self, f.name)[start:stop] for f in fields(self) if f.name not in ("topic", "buf")
        }
        return Batch(topic=self.topic, buf=self.buf, **part)
