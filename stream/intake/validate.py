"""The rules every event must keep, declared once per topic, and the kernel that finds the first broken one.

What depends on more than the record itself (its Kafka time, the experiments' files) is the engine's to check.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
from numba import njit

from stream.contracts.limits import (
    MAX_AT_MS,
    MAX_ID_BYTES,
    MAX_LATENCY_MS,
    MAX_POSITION,
    MAX_PRE_VALUE,
    MAX_VALUE_MINOR,
    MIN_AT_MS,
)
from stream.contracts.reasons import Reason
from stream.contracts.topics import FIELDS, Topic
from stream.engine.batch import I64, NULL, TEXT_MASK, TEXT_SHIFT
from stream.engine.primitives import load64


class Kind(IntEnum):
    """What a field holds, and so how it is read and checked."""

    TEXT = 0
    CURRENCY = 1
    LONG = 2
    DOUBLE = 3


MAX_DOUBLE = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True)
class Rule:
    """One field: `low` <= value <= `high`, for texts the length in UTF-8 bytes. Null only when not required."""

    name: str
    kind: Kind = Kind.TEXT
    low: float = 1
    high: float = MAX_ID_BYTES
    required: bool = True


def _optional(name: str, kind: Kind = Kind.TEXT, low: float = 1, high: float = MAX_ID_BYTES) -> Rule:
    return Rule(name, kind, low, high, required=False)


_WHO_AND_WHEN = (Rule("event_id"), Rule("at", Kind.LONG, MIN_AT_MS, MAX_AT_MS), Rule("user_id"))

# One line per field, in the order of FIELDS.
RULES: dict[Topic, tuple[Rule, ...]] = {
    Topic.ASSIGNMENTS: (
        *_WHO_AND_WHEN,
        Rule("experiment"),
        Rule("arm"),
        _optional("country"),
        _optional("device"),
        _optional("segment"),
        _optional("pre_value", Kind.LONG, -MAX_PRE_VALUE, MAX_PRE_VALUE),
    ),
    Topic.IMPRESSIONS: (
        *_WHO_AND_WHEN,
        Rule("impression_id"),
        Rule("request_id"),
        Rule("item_id"),
        Rule("surface"),
        Rule("position", Kind.LONG, 0, MAX_POSITION),
        Rule("model"),
        Rule("model_version"),
        _optional("score", Kind.DOUBLE, -MAX_DOUBLE, MAX_DOUBLE),
        _optional("latency_ms", Kind.DOUBLE, 0, MAX_LATENCY_MS),
        _optional("country"),
        _optional("device"),
        _optional("category"),
    ),
    Topic.INTERACTIONS: (
        *_WHO_AND_WHEN,
        _optional("impression_id"),
        _optional("item_id"),
        Rule("kind"),
        _optional("value_minor", Kind.LONG, -MAX_VALUE_MINOR, MAX_VALUE_MINOR),
        _optional("currency", Kind.CURRENCY),
    ),
}


@cache
def rule_table(topic: Topic) -> I64:
    """RULES[topic] for the kernel: int64 (fields, 4) of kind, required, low, high; bounds of doubles as IEEE bits."""
    rules = RULES[topic]
    if tuple(rule.name for rule in rules) != FIELDS[topic]:
        raise AssertionError(f"the rules of {topic.word} are not in the order of FIELDS")
    table = np.empty((len(rules), 4), np.int64)
    for row, rule in zip(table, rules, strict=True):
        row[:2] = rule.kind, rule.required
        row[2:] = np.array([rule.low, rule.high], np.float64 if rule.kind is Kind.DOUBLE else np.int64).view(
            np.int64
        )
    return table


_CURRENCY, _LONG, _DOUBLE = int(Kind.CURRENCY), int(Kind.LONG), int(Kind.DOUBLE)
_EMPTY, _TOO_LONG, _INVALID_UTF8 = int(Reason.EMPTY), int(Reason.TOO_LONG), int(Reason.INVALID_UTF8)
_OUT_OF_RANGE, _NOT_FINITE, _BAD_CURRENCY = (
    int(Reason.OUT_OF_RANGE),
    int(Reason.NOT_FINITE),
    int(Reason.BAD_CURRENCY),
)
_A, _Z = ord("A"), ord("Z")
_HIGH_BITS = np.uint64(0x8080808080808080)
_U1, _EIGHT = np.uint64(1), np.uint64(8)


@njit(cache=True, nogil=True)
def is_ascii(buf, pos, length):
    """Whether no byte of buf[pos : pos + length] is 128 or more; eight at a time."""
    if length < 8:
        inside = (_U1 << (_EIGHT * np.uint64(length))) - _U1
        return load64(buf, pos) & inside & _HIGH_BITS == 0
    last = pos + length - 8
    seen = load64(buf, last)
    while pos < last:
        seen |= load64(buf, pos)
        pos += 8
    return seen & _HIGH_BITS == 0


@njit(cache=True, nogil=True)
def is_utf8(buf, pos, length):
    """Whether buf[pos : pos + length] is UTF-8 (RFC 3629: no surrogates, no overlong forms, up to U+10FFFF)."""
    end = pos + length
    while pos < end:
        first = buf[pos]
        if first < 0x80:
            pos += 1
            continue
        low, high = 0x80, 0xBF  # of the second byte
        if first < 0xC2 or first > 0xF4:
            return False
        if first < 0xE0:
            more = 1
        elif first < 0xF0:
            more = 2
            if first == 0xE0:
                low = 0xA0
            elif first == 0xED:
                high = 0x9F
        else:
            more = 3
            if first == 0xF0:
                low = 0x90
            elif first == 0xF4:
                high = 0x8F
        if end - pos <= more or buf[pos + 1] < low or buf[pos + 1] > high:
            return False
        for i in range(pos + 2, pos + 1 + more):
            if buf[i] & 0xC0 != 0x80:
                return False
        pos += 1 + more
    return True


@njit(cache=True, nogil=True)
def _is_currency(buf, pos, length):
    if length != 3:
        return False
    lowest = min(buf[pos], buf[pos + 1], buf[pos + 2])
    highest = max(buf[pos], buf[pos + 1], buf[pos + 2])
    return lowest >= _A and highest <= _Z


@njit(cache=True, nogil=True)
def broken_rule(buf, fields, doubles, rules, row):
    """The status of the first broken rule of one decoded row, 0 when all are kept.

    fields: int64 (rows, fields); doubles: the same memory as float64; rules: see rule_table.
    """
    for j in range(rules.shape[0]):
        value = fields[row, j]
        kind = rules[j, 0]
        reason = 0
        if value == NULL:
            if rules[j, 1]:
                reason = _EMPTY
        elif kind == _LONG:
            if value < rules[j, 2] or value > rules[j, 3]:
                reason = _OUT_OF_RANGE
        elif kind == _DOUBLE:
            bounds = rules[j].view(np.float64)
            if not np.isfinite(doubles[row, j]):
                reason = _NOT_FINITE
            elif doubles[row, j] < bounds[2] or doubles[row, j] > bounds[3]:
                reason = _OUT_OF_RANGE
        else:
            pos, length = value >> TEXT_SHIFT, value & TEXT_MASK
            if kind == _CURRENCY:
                if not _is_currency(buf, pos, length):
                    reason = _BAD_CURRENCY
            elif length < rules[j, 2]:
                reason = _EMPTY
            elif length > rules[j, 3]:
                reason = _TOO_LONG
            elif not is_ascii(buf, pos, length) and not is_utf8(buf, pos, length):
                reason = _INVALID_UTF8
        if reason:
            return reason + 256 * (j + 1)
    return 0
