"""What nothing refers to any more is dropped, and the rest moves together: users, event_ids of assignments."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
import numpy as np
from numba import njit

from stream.engine.event_ids import UNIT, UUID, UUID_BYTES, bytes_of_id
from stream.engine.index import LINK_MASK, alive
from stream.engine.layout import IMP_BASE, IMPS, INT_BASE, INTS, USERS
from stream.engine.primitives import LOW32, U0, U64


@njit
def is_here(t, user):
    """Whether anything refers to the user."""
    u = t.users[user]
    if u.assigned >= 0:
        return True
    q = np.int64(u.impression)
    if alive(q, t.m[IMP_BASE], t.m[IMPS]) and t.imps[q & (t.imps.shape[0] - 1)].user == user:
        return True
    q = np.int64(u.interaction)
    return alive(q, t.m[INT_BASE], t.m[INTS]) and t.ints[q & (t.ints.shape[0] - 1)].user == user


@njit(cache=True, nogil=True)
def number_users(t):
    """(new number by user, 0 for those who are gone; how many stay)."""
    numbers = np.zeros(t.m[USERS] + 1, np.int64)
    kept = 0
    for user in range(1, t.m[USERS] + 1):
        if is_here(t, user):
            kept += 1
            numbers[user] = kept
    return numbers, kept


@njit(cache=True, nogil=True)
def renumber_users(t, numbers):
    """Move the users to their new numbers wherever these stand; slots of gone users are emptied later by a rebuild."""
    gone = numbers.shape[0]  # a link that is dead once the users are fewer
    for i in range(t.user_slots.shape[0]):
        s = t.user_slots[i]
        if s != U0:
            number = numbers[np.int64(s & LOW32)]
            t.user_slots[i] = (s & ~LOW32) | U64(number if number > 0 else gone)
    for user in range(1, numbers.shape[0]):
        if numbers[user] > 0:
            t.users[numbers[user]] = t.users[user]
            t.user_keys[numbers[user]] = t.user_keys[user]
            t.user_tags[numbers[user]] = t.user_tags[user]
    for user in range(numbers.max() + 1, t.users.shape[0]):
        t.users[user].assigned = -1
    for k in range(t.m[IMPS]):
        link = (t.m[IMP_BASE] + k) & LINK_MASK
        if link == 0:  # skipped when links wrap around: no row
            continue
        p = link & (t.imps.shape[0] - 1)
        t.imps[p].user = numbers[t.imps[p].user]
    for k in range(t.m[INTS]):
        link = (t.m[INT_BASE] + k) & LINK_MASK
        if link == 0:  # skipped when links wrap around: no row
            continue
        p = link & (t.ints.shape[0] - 1)
        t.ints[p].user = numbers[t.ints[p].user]


@njit(cache=True, nogil=True)
def pack_event_ids(starts, assigned, arena, out):
    """Copy the event_ids of all assignments that are still there to `out`, of zeros, and note their new places.

    starts: the byte of `arena` at which each row's one begins. Gives the bytes taken.
    """
    end = np.int64(0)
    for row in range(assigned.shape[0]):
        s = assigned[row]
        if s.experiment < 0:
            continue
        length = np.int64(UUID_BYTES) if s.id_len == UUID else np.int64(s.id_len)
        for k in range(length):
            out[end + k] = arena[starts[row] + k]
        s.id_pos = end // UNIT
        end += bytes_of_id(s.id_len)
    return end
