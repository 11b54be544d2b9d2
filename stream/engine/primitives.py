"""What every kernel is made of: unaligned loads, prefetch, variable-length integers, keyed hashes, two-word sums.

Kernels have no bounds checks: callers keep SPARE_BYTES behind every buffer and check lengths first.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic

U64 = np.uint64
I64 = np.int64
U0, U1, U7, U8, U32, U63, U64BITS = U64(0), U64(1), U64(7), U64(8), U64(32), U64(63), U64(64)
LOW32 = U64(0xFFFFFFFF)
CACHE_LINE = 64  # bytes


@intrinsic
def load64(typingctx: Any, arr: Any, at: Any) -> Any:
    """Eight bytes of a uint8 array at any position, little-endian, as uint64."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [args[1]])
        return builder.load(builder.bitcast(byte, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(arr, types.int64), build


def _hint(most_bytes: int, signature: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        dtype = signature.args[0].dtype
        size = (
            dtype.size
            if isinstance(dtype, types.Record)
            else context.get_abi_sizeof(context.get_data_type(dtype))
        )
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        i8p, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        byte = builder.gep(
            builder.bitcast(data, i8p), [builder.mul(args[1], ir.Constant(ir.IntType(64), size))]
        )
        name = "llvm.prefetch.p0"
        hint = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(ir.VoidType(), [i8p, i32, i32, i32]), name
        )
        hinted = list(range(0, min(size, most_bytes), CACHE_LINE))
        if size <= most_bytes and CACHE_LINE % size and size % CACHE_LINE:  # a row may end in one line more
            hinted.append(size - 1)
        for line in hinted:
            there = builder.gep(byte, [ir.Constant(ir.IntType(64), line)])
            builder.call(hint, [there, ir.Constant(i32, 0), ir.Constant(i32, 3), ir.Constant(i32, 1)])
        return context.get_dummy_value()

    return signature, build


@intrinsic
def prefetch(typingctx: Any, arr: Any, at: Any) -> Any:
    """Hint that arr[at] (one-dimensional, any item type, whole rows) will be read soon."""
    return _hint(1 << 20, types.void(arr, types.int64))


@intrinsic
def prefetch_line(typingctx: Any, arr: Any, at: Any) -> Any:
    """Hint that the first CACHE_LINE bytes of arr[at] will be read soon."""
    return _hint(CACHE_LINE, types.void(arr, types.int64))


if config.DISABLE_JIT:  # what the intrinsics mean, so that kernels also run as plain Python

    def load64(arr: Any, at: Any) -> Any:  # noqa: D103
        return U64(int.from_bytes(arr[at : at + 8].tobytes(), "little"))

    def prefetch(arr: Any, at: Any) -> Any:  # noqa: D103
        return None

    prefetch_line = prefetch


@njit
def varint(buf, pos, end):
    """A zig-zag integer of Avro or Kafka: (value, next position), next position -1 when it does not fit."""
    if pos >= end:
        return np.int64(0), np.int64(-1)
    b = buf[pos]
    if b < 128:
        return np.int64(b >> 1) ^ -np.int64(b & 1), np.int64(pos + 1)
    r = U64(b & 127)
    shift = U7
    pos += 1
    while True:
        if pos >= end or shift > U63:
            return np.int64(0), np.int64(-1)
        b = buf[pos]
        pos += 1
        r |= U64(b & 127) << shift
        if b < 128:
            return np.int64(r >> U1) ^ -np.int64(r & U1), np.int64(pos)
        shift += U7


@njit
def mix(k):
    """A 64-bit finaliser (MurmurHash3's): spreads an integer key over all bits."""
    k ^= k >> U64(33)
    k *= U64(0xFF51AFD7ED558CCD)
    k ^= k >> U64(33)
    k *= U64(0xC4CEB9FE1A85EC53)
    k ^= k >> U64(33)
    return k


@njit
def _rotl(x, r):
    return (x << r) | (x >> (U64BITS - r))


@njit
def _sip_round(a, b, c, d):
    a += b
    b = _rotl(b, U64(13)) ^ a
    a = _rotl(a, U32)
    c += d
    d = _rotl(d, U64(16)) ^ c
    a += d
    d = _rotl(d, U64(21)) ^ a
    c += b
    b = _rotl(b, U64(17)) ^ c
    c = _rotl(c, U32)
    return a, b, c, d


@njit
def _sip_end(a, b, c, d):
    """The three rounds before a word of the result."""
    a, b, c, d = _sip_round(a, b, c, d)
    a, b, c, d = _sip_round(a, b, c, d)
    return _sip_round(a, b, c, d)


@njit
def hash128(buf, pos, length, key0, key1):
    """The keyed 128-bit hash of ids: SipHash-1-3 (Aumasson and Bernstein 2012) of buf[pos : pos + length]."""
    a = key0 ^ U64(0x736F6D6570736575)
    b = key1 ^ U64(0x646F72616E646F6D) ^ U64(0xEE)
    c = key0 ^ U64(0x6C7967656E657261)
    d = key1 ^ U64(0x7465646279746573)
    end = pos + (length & ~7)
    while pos < end:
        word = load64(buf, pos)
        a, b, c, d = _sip_round(a, b, c, d ^ word)
        a ^= word
        pos += 8
    rest = length & 7
    word = U64(length & 255) << U64(56)
    if rest > 0:
        word |= load64(buf, pos) & ((U1 << U64(8 * rest)) - U1)
    a, b, c, d = _sip_round(a, b, c, d ^ word)
    a, b, c, d = _sip_end(a ^ word, b, c ^ U64(0xEE), d)
    low = a ^ b ^ c ^ d
    a, b, c, d = _sip_end(a, b ^ U64(0xDD), c, d)
    return low, a ^ b ^ c ^ d


@njit
def add128(sums, row, column, value):
    """sums[row, column] += value; sums is int64 (rows, columns, 2): low word, high word."""
    old = U64(sums[row, column, 0])
    new = old + U64(value)
    sums[row, column, 0] = np.int64(new)
    sums[row, column, 1] += (np.int64(1) if new < old else np.int64(0)) + (np.int64(value) >> 63)


@njit
def _mul128(x, y):
    ux, uy = U64(x), U64(y)
    x0, x1, y0, y1 = ux & LOW32, ux >> U32, uy & LOW32, uy >> U32
    t = x0 * y0
    w0 = t & LOW32
    t = x1 * y0 + (t >> U32)
    c1, c2 = t & LOW32, t >> U32
    t = x0 * y1 + c1
    low = (t << U32) | w0
    high = np.int64(x1 * y1 + c2 + (t >> U32))
    if x < 0:
        high -= y
    if y < 0:
        high -= x
    return low, high


@njit
def add_product128(sums, row, column, x, y):
    """sums[row, column] += x * y, exact in two words."""
    low, high = _mul128(np.int64(x), np.int64(y))
    old = U64(sums[row, column, 0])
    new = old + low
    sums[row, column, 0] = np.int64(new)
    sums[row, column, 1] += high + (np.int64(1) if new < old else np.int64(0))


def int128_of(words: Any) -> int:
    """The Python integer of one (low, high) pair."""
    return (int(words[1]) << 64) + (int(words[0]) & 0xFFFFFFFFFFFFFFFF)
