"""Kafka's default partitioner: the 32-bit MurmurHash2 of the key, sign bit cleared, modulo the partitions."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
import numpy as np
from numba import njit

from stream.engine.primitives import load64

U64 = np.uint64
LOW32 = U64(0xFFFFFFFF)
SEED = U64(0x9747B28C)
M = U64(0x5BD1E995)
R13, R15, R24, EIGHT, U1 = U64(13), U64(15), U64(24), U64(8), U64(1)
POSITIVE = U64(0x7FFFFFFF)


@njit(cache=True, nogil=True)
def murmur2(buf, pos, length):
    """MurmurHash2 as in the Java client, of buf[pos : pos + length], as uint64 below 2**32.

    Products of two 32-bit words fit into 64 bits, so they are formed there and cut.
    """
    h = SEED ^ U64(length)
    end = pos + (length & ~3)
    while pos < end:
        k = ((load64(buf, pos) & LOW32) * M) & LOW32
        k = ((k ^ (k >> R24)) * M) & LOW32
        h = ((h * M) & LOW32) ^ k
        pos += 4
    rest = length & 3
    if rest > 0:
        h ^= load64(buf, pos) & ((U1 << (EIGHT * U64(rest))) - U1)
        h = (h * M) & LOW32
    h = ((h ^ (h >> R13)) * M) & LOW32
    return h ^ (h >> R15)


@njit(cache=True, nogil=True)
def partition_of(buf, pos, length, partitions):
    """The partition of the key buf[pos : pos + length] among `partitions`."""
    return np.int64((murmur2(buf, pos, length) & POSITIVE) % U64(partitions))
