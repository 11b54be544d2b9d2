"""One number for a range of records, to notice that a topic no longer holds what a step was planned on.

Not cryptographic: it tells accident from identity, at a small part of a step's cost.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from collections.abc import Iterable

import numpy as np
from numba import njit

from stream.engine.batch import Batch
from stream.engine.primitives import load64, mix

_SHIFT = np.uint64(29)
_ONE = np.uint64(1)
_LANES = tuple(
    map(np.uint64, (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93))
)  # odd


def digest(batches: Iterable[Batch]) -> int:
    """Unsigned 64 bits over offset, Kafka record time and value of all rows, however they are cut into batches."""
    state = np.uint64(0)
    for batch in batches:
        state = np.uint64(
            _fold(state, batch.buf, batch.offset, batch.record_at_ms, batch.value_pos, batch.value_len)
        )
    return int(state)


@njit
def _taken_in(lane, word, multiplier):
    lane = (lane ^ word) * multiplier
    return lane ^ (lane >> _SHIFT)


@njit(cache=True, nogil=True)
def _fold(state, buf, offset, record_at_ms, value_pos, value_len):
    """A value goes through four lanes, for a single one would wait for each multiplication."""
    m1, m2, m3, m4 = _LANES
    for row in range(len(offset)):
        state = mix(state ^ np.uint64(offset[row]))
        state = mix(state ^ np.uint64(record_at_ms[row]) ^ (np.uint64(value_len[row]) << np.uint64(44)))
        if value_len[row] <= 0:
            continue
        one, two, three, four = m2, m3, m4, m1
        at = value_pos[row]
        end = at + value_len[row]
        while at + 32 <= end:
            one = _taken_in(one, load64(buf, at), m1)
            two = _taken_in(two, load64(buf, at + 8), m2)
            three = _taken_in(three, load64(buf, at + 16), m3)
            four = _taken_in(four, load64(buf, at + 24), m4)
            at += 32
        while at + 8 <= end:
            one = _taken_in(one, load64(buf, at), m1)
            at += 8
        if at < end:
            one = _taken_in(one, load64(buf, at) & ((_ONE << np.uint64(8 * (end - at))) - _ONE), m1)
        state = mix(state ^ one ^ two * m1 ^ three * m2 ^ four * m3)
    return state
