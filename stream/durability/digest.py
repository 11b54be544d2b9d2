"""One number for a range of records, to notice that a topic no longer holds what a step was planned on.

Not cryptographic: it tells accident from identity, at about a twentieth of a step's cost.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from collections.abc import Iterable

import numpy as np
from numba import njit

from stream.engine.batch import Batch
from stream.engine.primitives import load64, mix

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_ONE = np.uint64(1)


def digest(batches: Iterable[Batch]) -> int:
    """Unsigned 64 bits over offset, Kafka record time and value of all rows, however they are cut into batches."""
    state = np.uint64(0)
    for batch in batches:
        state = np.uint64(
            _fold(state, batch.buf, batch.offset, batch.record_at_ms, batch.value_pos, batch.value_len)
        )
    return int(state)


@njit(cache=True, nogil=True)
def _fold(state, buf, offset, record_at_ms, value_pos, value_len):
    for row in range(len(offset)):
        state = mix(state ^ np.uint64(offset[row]))
        state = mix(state ^ np.uint64(record_at_ms[row]) ^ (np.uint64(value_len[row]) << np.uint64(44)))
        if value_len[row] <= 0:
            continue
        at = value_pos[row]
        end = at + (value_len[row] & ~7)
        while at < end:
            state = (state ^ load64(buf, at)) * _MULTIPLIER
            state ^= state >> _SHIFT
            at += 8
        rest = value_len[row] & 7
        if rest > 0:
            state = (state ^ (load64(buf, at) & ((_ONE << np.uint64(8 * rest)) - _ONE))) * _MULTIPLIER
            state ^= state >> _SHIFT
    return state
