"""The front of a step: which rows go on, their users, their repeats, their texts as codes."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
import numpy.typing as npt
from numba import njit

from stream.contracts.limits import FUTURE_MS
from stream.contracts.reasons import UNREAD, Reason, status_of
from stream.engine.batch import I64, NULL
from stream.engine.credit import count_trouble
from stream.engine.index import find, home, likely_place, pair_find, pair_put, slot_of, tag_of
from stream.engine.layout import (
    COMBOS,
    DUPLICATE,
    IDS,
    IDS_BASE,
    IDS_USED,
    L_CONSUMED,
    L_COUNTED,
    L_DUPLICATE,
    L_LATE,
    L_MISROUTED,
    L_OUTSIDE,
    L_REJECTED,
    LATE,
    OUTSIDE,
    UNKNOWN_TROUBLED,
    UNKNOWN_TROUBLES,
    USERS,
    USERS_USED,
)
from stream.engine.ledger import restate
from stream.engine.primitives import U0, U1, U64, hash128, load64, mix, prefetch

AHEAD = 24
LATELY = 256  # texts of a column kept at hand
ODD = U64(0x9E3779B97F4A7C15)
SKEW_MS = 3_600_000  # a Kafka record time further ahead of the planner's clock is not believed
FUTURE = status_of(Reason.FUTURE_TIMESTAMP, 1)
USER_ID = 2  # its place in the FIELDS of every topic
_BROKEN_RULES = [int(reason) for reason in Reason if reason not in UNREAD]

HOUR_MS = 3_600_000


def received_at(record_at: I64, planned_at: int) -> I64:
    """Kafka record times as far as they can be believed: a producer may write any, or none (-1)."""
    return np.where(record_at >= 0, np.minimum(record_at, planned_at + SKEW_MS), planned_at)


@njit(cache=True, nogil=True)
def screen(decoded, at, received, horizon, may_be_late):
    """Status of each row after the rules of time: rejected as decoded or for the future, LATE, or 0."""
    n = decoded.shape[0]
    status = np.empty(n, np.int64)
    for i in range(n):
        status[i] = decoded[i]
        if decoded[i] != 0:
            continue
        if at[i] > received[i] + FUTURE_MS:
            status[i] = FUTURE
        elif may_be_late and at[i] < horizon:
            status[i] = LATE
    return status


@njit(cache=True, nogil=True)
def hash_texts(buf, packed, status, key):
    """128-bit ids of a text column, uint64 (rows, 2); zeros where null or not going on."""
    n = packed.shape[0]
    out = np.zeros((n, 2), np.uint64)
    for i in range(n):
        x = packed[i]
        if status[i] == 0 and x != NULL:
            out[i, 0], out[i, 1] = hash128(buf, x >> 20, x & 0xFFFFF, key[0], key[1])
            if out[i, 0] == U0:
                out[i, 0] = U64(1)
    return out


@njit(cache=True, nogil=True)
def encode_users(t, ids, status):
    """The user's row for each id, new users added; room for all rows is the caller's duty."""
    n = status.shape[0]
    out = np.zeros(n, np.int64)
    for i in range(n):
        if i + AHEAD < n:
            prefetch(t.user_slots, home(t.user_slots, ids[i + AHEAD, 0]))
        if i + AHEAD // 2 < n:
            prefetch(t.user_keys, likely_place(t.user_slots, t.user_keys, ids[i + AHEAD // 2, 0]))
        if status[i] != 0:
            continue
        link, slot = find(t.user_slots, t.user_keys, 1, t.m[USERS], ids[i, 0], ids[i, 1])
        if link == 0:
            t.m[USERS] += 1
            link = t.m[USERS]
            t.user_keys[link] = ids[i, 1]
            t.user_tags[link] = tag_of(ids[i, 0])
            t.user_slots[slot] = slot_of(ids[i, 0], link)
            t.users[link].assigned = -1
            t.users[link].impression = 0
            t.users[link].interaction = 0
            t.m[USERS_USED] += 1
        out[i] = link
    return out


@njit(cache=True, nogil=True)
def dedupe(t, ids, status, topic):
    """Mark repeats DUPLICATE and remember the new ids; one space of ids for each topic."""
    n = status.shape[0]
    salt = mix(U64(topic + 1))
    mask = t.id_keys.shape[0] - 1
    for i in range(n):
        if i + AHEAD < n:
            prefetch(t.id_slots, home(t.id_slots, ids[i + AHEAD, 0] ^ salt))
        if status[i] != 0:
            continue
        first = ids[i, 0] ^ salt
        link, slot = find(t.id_slots, t.id_keys, t.m[IDS_BASE], t.m[IDS], first, ids[i, 1])
        if link != 0:
            status[i] = DUPLICATE
            continue
        link = (t.m[IDS_BASE] + t.m[IDS]) & 0xFFFFFFFF
        t.m[IDS] += 1
        if link == 0:
            link = 1
            t.m[IDS] += 1
        t.id_keys[link & mask] = ids[i, 1]
        t.id_tags[link & mask] = tag_of(first)
        if t.id_slots[slot] == U0:
            t.m[IDS_USED] += 1
        t.id_slots[slot] = slot_of(first, link)


def is_readable(status: I64) -> npt.NDArray[np.bool_]:
    """Which rejected rows have a user_id: those that were decoded whole and broke a rule elsewhere."""
    if not (status > 0).any():
        return np.zeros(len(status), np.bool_)
    reasons, fields = status & 255, (status >> 8) - 1
    readable: npt.NDArray[np.bool_] = (status > 0) & np.isin(reasons, _BROKEN_RULES) & (fields != USER_ID)
    return readable


@njit(cache=True, nogil=True)
def count_troubles(t, ids, at, kind):
    """Count events that count for nothing at the arms of their users, whose ids are uint64 (rows, 2), 0 for null."""
    for i in range(ids.shape[0]):
        link = np.int64(0)
        if ids[i, 0] != U0:
            link, _ = find(t.user_slots, t.user_keys, 1, t.m[USERS], ids[i, 0], ids[i, 1])
        if link > 0:
            count_trouble(t, link, at[i], kind)
        else:
            t.m[UNKNOWN_TROUBLES + kind] += 1
            t.m[UNKNOWN_TROUBLED] = 1


@njit
def short_text(buf, pos, length):
    """A text of at most 16 bytes as two words, zeros behind it."""
    first = load64(buf, pos)
    second = load64(buf, pos + 8)
    if length < 8:
        first &= (U1 << U64(8 * length)) - U1
        second = U0
    elif length < 16:
        second &= (U1 << U64(8 * (length - 8))) - U1
    return first, second


@njit(cache=True, nogil=True)
def encode_names(buf, packed, status, key, slots, keys, count, limit, codes, fresh):
    """Codes of a text column of few values; new ones are added while there are fewer than `limit`.

    Null is 0, a value beyond the limit 1. `fresh` receives the rows that brought a new value; returns how many.
    Texts of this column that were met lately and are short are compared whole instead of hashed.
    """
    met = np.zeros((LATELY, 2), np.uint64)
    met_codes = np.zeros(LATELY, np.int64)
    met_lengths = np.full(LATELY, -1, np.int64)
    k = 0
    for i in range(packed.shape[0]):
        if status[i] != 0:
            continue
        x = packed[i]
        if x == NULL:
            codes[i] = 0
            continue
        pos = x >> 20
        length = x & 0xFFFFF
        place = np.int64(0)
        one, two = U0, U0
        if length <= 16:
            one, two = short_text(buf, pos, length)
            place = np.int64(mix(one ^ (two * ODD)) & U64(LATELY - 1))
            if met_lengths[place] == length and met[place, 0] == one and met[place, 1] == two:
                codes[i] = met_codes[place]
                continue
        first, second = hash128(buf, pos, length, key[0], key[1])
        link, slot = find(slots, keys, 1, count + k, first, second)
        if link == 0:
            if count + k >= limit:
                codes[i] = 1
                continue
            link = np.int64(count + k + 1)
            keys[link] = second
            slots[slot] = slot_of(first, link)
            fresh[k] = i
            k += 1
        codes[i] = link - 1
        if length <= 16:
            met[place, 0] = one
            met[place, 1] = two
            met_lengths[place] = length
            met_codes[place] = link - 1
    return k


@njit(cache=True, nogil=True)
def encode_combos(t, codes, status):
    """One code for each combination of eight codes (seven slice dimensions and the surface, last)."""
    n = status.shape[0]
    out = np.zeros(n, np.int64)
    for i in range(n):
        if status[i] != 0:
            continue
        a = np.int64(codes[i, 0]) | codes[i, 1] << 16 | codes[i, 2] << 32 | codes[i, 3] << 48
        b = np.int64(codes[i, 4]) | codes[i, 5] << 16 | codes[i, 6] << 32 | codes[i, 7] << 48
        r = pair_find(t.combo_slots, t.combo_keys, a, b)
        if r < 0:
            miss = r
            r = t.m[COMBOS]
            t.m[COMBOS] = r + 1
            pair_put(t.combo_slots, t.combo_keys, r, miss, a, b)
            t.combo_surface[r] = codes[i, 7]
        out[i] = r
    return out


@njit(cache=True, nogil=True)
def whole_latencies(given, status):
    """Latencies (doubles' bits) rounded to whole milliseconds, -1 where unknown."""
    latencies = given.view(np.float64)
    out = np.full(given.shape[0], -1, np.int64)
    for i in range(given.shape[0]):
        if status[i] == 0 and given[i] != NULL:
            out[i] = np.int64(np.rint(latencies[i]))
    return out


def hours_in(received: I64) -> int:
    """How many different hours."""
    hours = int(received.min()) // HOUR_MS, int(received.max()) // HOUR_MS
    return 1 if hours[0] == hours[1] else len(np.unique(received // HOUR_MS))


@njit(cache=True, nogil=True)
def ledger_rows_of(t, topic, received):
    """(row of the ledger, hour) for each record; room for the new hours is the caller's duty."""
    n = received.shape[0]
    rows = np.zeros(n, np.int64)
    hours = np.zeros(n, np.int64)
    last_hour = np.int64(-(1 << 62))
    row = np.int64(0)
    for i in range(n):
        hour = received[i] // HOUR_MS
        if hour != last_hour:
            restate(t, topic, hour, 0, 0)
            row = pair_find(t.ledger_slots, t.ledger_keys, np.int64(topic), np.int64(hour))
            last_hour = hour
        rows[i] = row
        hours[i] = hour
    return rows, hours


@njit(cache=True, nogil=True)
def count_outcomes(t, rows, status, misrouted, at):
    """Add each record and its outcome to its hour; returns the latest `at` of those that were accepted, -1 for none."""
    newest = np.int64(-1)
    for i in range(status.shape[0]):
        s = status[i]
        column = L_COUNTED
        if s > 0:
            column = L_REJECTED
        elif s == LATE:
            column = L_LATE
        else:
            newest = max(newest, at[i])
            if s == DUPLICATE:
                column = L_DUPLICATE
            elif s == OUTSIDE:
                column = L_OUTSIDE
        t.ledger[rows[i], L_CONSUMED] += 1
        t.ledger[rows[i], column] += 1
        if misrouted[i]:
            t.ledger[rows[i], L_MISROUTED] += 1
    return newest
