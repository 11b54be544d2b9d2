"""The kernel that reads one Avro datum into a row of columns by running a program of avro_program.

Where this reader is on purpose not fastavro: texts that nobody asked for are skipped without a UTF-8 check; a
negative length, branch or symbol is malformed (fastavro counts it from the end), and so are an integer of more than
ten bytes and data nested deeper than MAX_DEPTH. A text too long to be described (1 MiB) is cut, for the rules to
reject.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
import numpy as np
from numba import njit

from stream.contracts.reasons import Reason
from stream.engine.batch import NULL, TEXT_MASK, TEXT_SHIFT
from stream.engine.primitives import load64, varint
from stream.intake.avro_program import (
    ABSENT,
    ARRAY,
    BYTES,
    CHOICE,
    DOUBLE,
    FIXED,
    FLOAT,
    LONG,
    LONG_AS_DOUBLE,
    MAP,
    NOTHING,
    RECORD,
    SKIP,
    SYMBOL,
    TEXT,
    UNION,
)

MAX_DEPTH = 64  # of skipped values inside each other

_MALFORMED, _TRAILING_BYTES = int(Reason.MALFORMED), int(Reason.TRAILING_BYTES)
_MIN_LONG = -(1 << 63)
_INFINITE_BITS = 0x7FF << 52
_LOW32 = np.uint64(0xFFFFFFFF)
_NOWHERE = np.int64(-1)


@njit(inline="always")
def new_stack():
    """Room for what read_datum must remember of open values."""
    return np.empty((MAX_DEPTH, 2), np.int64)


@njit(inline="always")
def _after_bytes(buf, pos, end):
    """The position behind a length and as many bytes; -1 when they are not there."""
    length, pos = varint(buf, pos, end)
    if pos < 0 or length < 0 or length > end - pos:
        return _NOWHERE
    return pos + length


@njit(cache=True, nogil=True)
def _after_scalar(kind, argument, buf, pos, end):
    """The position behind a value that holds no others; -1 when it does not end by `end`."""
    if kind == NOTHING:
        return np.int64(pos)
    if kind == BYTES:
        return _after_bytes(buf, pos, end)
    if kind == FIXED:
        return pos + argument if argument <= end - pos else _NOWHERE
    value, pos = varint(buf, pos, end)
    if kind == CHOICE and (value < 0 or value >= argument):
        return _NOWHERE
    return pos


@njit(cache=True, nogil=True)
def _next_block(buf, pos, end):
    """(items, position of the first) of the next block of an array or a map; 0 items end it, position -1: malformed."""
    items, pos = varint(buf, pos, end)
    if items == _MIN_LONG:  # has no positive counterpart
        return items, _NOWHERE
    if pos >= 0 and items < 0:  # the block's size in bytes follows
        items = -items
        pos = varint(buf, pos, end)[1]
    return items, pos


@njit(cache=True, nogil=True)
def _next_inside(nodes, kids, buf, pos, end, open_values, depth):
    """(node, position, depth) of the next value inside the innermost open one; ended ones are closed.

    open_values: rows of (node, kids read of a record or items left of a block). Depth 0: all are closed.
    """
    while depth > 0:
        top = depth - 1
        kind, argument, count = nodes[open_values[top, 0]]
        if kind == RECORD:
            kid = open_values[top, 1]
            if kid < count:
                open_values[top, 1] = kid + 1
                return kids[argument + kid], pos, depth
            depth = top
            continue
        if open_values[top, 1] == 0:
            items, pos = _next_block(buf, pos, end)
            if pos < 0:
                break
            if items == 0:
                depth = top
                continue
            if kind == ARRAY and nodes[argument, 0] == NOTHING:
                continue
            if items > end - pos:  # an item has at least one byte
                return _NOWHERE, _NOWHERE, depth
            open_values[top, 1] = items
        open_values[top, 1] -= 1
        if kind == MAP:
            pos = _after_bytes(buf, pos, end)
        return argument, pos, depth
    return _NOWHERE, pos, depth


@njit(cache=True, nogil=True)
def _skip(nodes, kids, node, buf, pos, end, open_values):
    """The position behind a value of `node` that starts at `pos`; -1 when it does not end by `end`.

    Not recursive: a recursive kernel crashes when it is loaded from the cache.
    """
    depth = 0
    while True:
        kind, argument, count = nodes[node]
        if kind == UNION:
            branch, pos = varint(buf, pos, end)
            if pos < 0 or branch < 0 or branch >= count:
                return _NOWHERE
            node = kids[argument + branch]
            continue
        if kind in (RECORD, ARRAY, MAP):
            if depth == len(open_values):
                return _NOWHERE
            open_values[depth, 0], open_values[depth, 1] = node, 0
            depth += 1
        else:
            pos = _after_scalar(kind, argument, buf, pos, end)
            if pos < 0:
                return _NOWHERE
        node, pos, depth = _next_inside(nodes, kids, buf, pos, end, open_values, depth)
        if pos < 0 or depth == 0:
            return pos


@njit(inline="always")
def _float_at(buf, pos):
    return np.float64(np.uint32(load64(buf, pos) & _LOW32).view(np.float32))


@njit(inline="always")
def _not_null(value, instead):
    """A value that only looks like NULL becomes one that no rule accepts."""
    return np.int64(instead) if value == NULL else np.int64(value)


@njit(cache=True, nogil=True)
def read_datum(
    buf, pos, end, code, start, stop, nodes, kids, open_values, symbol_at, symbol_base, fields, row
):
    """Run the instructions start <= i < stop on one datum; its status."""
    for i in range(start, stop):
        what, field, null = code[i, 0], code[i, 1], code[i, 2]
        bad = _MALFORMED + 256 * (field + 1)
        if null >= 0:
            branch, pos = varint(buf, pos, end)
            if pos < 0 or branch < 0 or branch > 1:
                return bad
            if branch == null:
                what = ABSENT
        if what == TEXT:
            length, pos = varint(buf, pos, end)
            if pos < 0 or length < 0 or length > end - pos:
                return bad
            fields[row, field] = (pos << TEXT_SHIFT) | min(length, TEXT_MASK)
            pos += length
        elif what == ABSENT:
            fields[row, field] = NULL
        elif what == LONG:
            value, pos = varint(buf, pos, end)
            if pos < 0:
                return bad
            fields[row, field] = _not_null(value, _MIN_LONG)
        elif what == DOUBLE:
            if end - pos < 8:
                return bad
            fields[row, field] = _not_null(np.int64(load64(buf, pos)), _INFINITE_BITS)
            pos += 8
        elif what == FLOAT:
            if end - pos < 4:
                return bad
            fields[row, field] = _not_null(_float_at(buf, pos).view(np.int64), _INFINITE_BITS)
            pos += 4
        elif what == LONG_AS_DOUBLE:
            value, pos = varint(buf, pos, end)
            if pos < 0:
                return bad
            fields[row, field] = np.float64(value).view(np.int64)
        elif what == SYMBOL:
            value, pos = varint(buf, pos, end)
            if pos < 0 or value < 0 or value >= code[i, 4]:
                return bad
            symbol = code[i, 3] + value
            fields[row, field] = ((symbol_base + symbol_at[symbol, 0]) << TEXT_SHIFT) | symbol_at[symbol, 1]
        elif what == SKIP:
            pos = _skip(nodes, kids, code[i, 3], buf, pos, end, open_values)
            if pos < 0:
                return _MALFORMED
    return 0 if pos == end else _TRAILING_BYTES
