"""The event_ids of assignments, of which only the order matters: of two at equal times the larger one is in force.

They stand in the arena as they are, but for UUIDs in their usual form (36 characters, hexadecimal digits in lower
case): those are 16 bytes, and `id_len` of their row is UUID. Each begins at a multiple of UNIT bytes, which is what
`id_pos` counts: 32 bits of it reach 32 GiB.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.layout import ARENA

UNIT = 8  # bytes
UUID = -1  # id_len
UUID_TEXT_BYTES, UUID_BYTES = 36, 16
_DASH, _ZERO, _A = ord("-"), ord("0"), ord("a")
_TEN = 10


@njit
def _digit(char):
    """The value of a hexadecimal digit in lower case, or -1."""
    if _ZERO <= char and char < _ZERO + _TEN:
        return np.int64(char) - _ZERO
    if _A <= char and char < _A + 6:
        return np.int64(char) - _A + _TEN
    return np.int64(-1)


@njit
def _is_dash(k):
    """Whether the k-th character of a UUID is a dash."""
    return k == 8 or k == 13 or k == 18 or k == 23


@njit
def _is_uuid(buf, pos, length):
    if length != UUID_TEXT_BYTES:
        return False
    for k in range(UUID_TEXT_BYTES):
        if _is_dash(k):
            if buf[pos + k] != _DASH:
                return False
        elif _digit(buf[pos + k]) < 0:
            return False
    return True


@njit
def bytes_of_id(length):
    """How many bytes of the arena an event_id of this `id_len` takes."""
    return np.int64(UUID_BYTES) if length == UUID else -(-np.int64(length) // UNIT) * UNIT


@njit
def keep_id(t, row, buf, pos, length):
    """Copy an event_id into the arena; room for it is the caller's duty."""
    start = t.m[ARENA]
    t.assigned[row].id_pos = start // UNIT
    if not _is_uuid(buf, pos, length):
        for k in range(length):
            t.arena[start + k] = buf[pos + k]
        t.assigned[row].id_len = length
        t.m[ARENA] = start + bytes_of_id(length)
        return
    k = 0
    for i in range(UUID_BYTES):
        if _is_dash(k):
            k += 1
        t.arena[start + i] = _digit(buf[pos + k]) << 4 | _digit(buf[pos + k + 1])
        k += 2
    t.assigned[row].id_len = UUID
    t.m[ARENA] = start + UUID_BYTES


@njit
def _char_of(t, row, k):
    """The k-th byte of a kept event_id."""
    pos = np.int64(t.assigned[row].id_pos) * UNIT
    if t.assigned[row].id_len != UUID:
        return np.int64(t.arena[pos + k])
    if _is_dash(k):
        return np.int64(_DASH)
    digit = k - (1 if k > 8 else 0) - (1 if k > 13 else 0) - (1 if k > 18 else 0) - (1 if k > 23 else 0)
    value = (np.int64(t.arena[pos + digit // 2]) >> (4 if digit % 2 == 0 else 0)) & 15
    return value + (_ZERO if value < _TEN else _A - _TEN)


@njit
def compare_id(t, row, buf, pos, length):
    """Below, at or above 0: the kept event_id of a row is smaller than this one, equal, or larger; byte by byte."""
    kept = np.int64(t.assigned[row].id_len)
    if kept == UUID:
        kept = np.int64(UUID_TEXT_BYTES)
    for k in range(min(kept, np.int64(length))):
        difference = _char_of(t, row, k) - np.int64(buf[pos + k])
        if difference != 0:
            return difference
    return kept - np.int64(length)
