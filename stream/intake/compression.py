"""Unpack compressed record batches, each within a bound: a few bytes on the wire may claim gigabytes."""

import zlib

import cramjam
import numpy as np
from aiokafka.codec import snappy_decode

from stream.engine.batch import U8

MAX_BATCH_BYTES = 64 << 20  # unpacked; brokers accept 1 MiB packed unless told otherwise

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
_XERIAL = b"\x82SNAPPY\x00"  # the Java client frames snappy blocks; header of 16 bytes
_XERIAL_HEADER_BYTES = 16


class Oversized(ValueError):
    """A batch unpacks to more than the bound."""


class Unpacker:
    """Unpacks batches one after the other; not for several threads at once. Damaged input raises ValueError."""

    def __init__(self, max_bytes: int = MAX_BATCH_BYTES) -> None:
        self._max_bytes = max_bytes
        self._scratch: U8 = np.empty(0, np.uint8)

    def unpack(self, codec: int, packed: memoryview) -> bytes | memoryview:
        """The records' bytes of a batch whose attributes name `codec` (the lowest three bits)."""
        try:
            if codec == GZIP:
                return self._gunzip(packed)
            if codec == SNAPPY:
                return self._unsnap(packed)
            if codec == LZ4:
                return self._into_scratch(cramjam.lz4, packed)
            if codec == ZSTD:
                return self._into_scratch(cramjam.zstd, packed)
        except (cramjam.DecompressionError, zlib.error) as error:
            raise ValueError(f"damaged: {error}") from error
        raise ValueError(f"compressed by an unknown method ({codec})")

    def _gunzip(self, packed: memoryview) -> bytes:
        parts: list[bytes] = []
        room = self._max_bytes
        rest: bytes | memoryview = packed
        while len(rest):  # gzip files may be strung together
            member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(rest, room + 1))
            room -= len(parts[-1])
            if room < 0:
                raise self._oversized()
            if not member.eof:
                raise ValueError("damaged: it ends early")
            rest = member.unused_data
        return b"".join(parts)

    def _unsnap(self, packed: memoryview) -> bytes:
        size = 0
        for block in _snappy_blocks(packed):
            size += cramjam.snappy.decompress_raw_len(block)
            if size > self._max_bytes:
                raise self._oversized()
        return bytes(snappy_decode(packed))

    def _into_scratch(self, codec: object, packed: memoryview) -> memoryview:
        """Unpack into a buffer that is made larger when it turns out too small (frames may hide their size)."""
        while True:
            if len(self._scratch):
                try:
                    size = codec.decompress_into(packed, self._scratch)  # type: ignore[attr-defined]
                except cramjam.DecompressionError:
                    if len(self._scratch) == self._max_bytes:
                        raise self._oversized(or_damaged=True) from None
                else:
                    return memoryview(self._scratch[:size].tobytes())
            size = max(1 << 20, 8 * len(packed), 8 * len(self._scratch))
            self._scratch = np.empty(min(size, self._max_bytes), np.uint8)

    def _oversized(self, *, or_damaged: bool = False) -> Oversized:
        damaged = "damaged, or " if or_damaged else ""
        return Oversized(f"{damaged}larger than {self._max_bytes >> 20} MiB when unpacked")


def _snappy_blocks(packed: memoryview) -> list[memoryview]:
    """The raw snappy blocks of a batch, framed by the Java client or not."""
    if bytes(packed[: len(_XERIAL)]) != _XERIAL:
        return [packed]
    blocks = []
    at = _XERIAL_HEADER_BYTES
    while at < len(packed):
        end = at + 4 + int.from_bytes(packed[at : at + 4], "big")
        if end > len(packed):
            raise ValueError("damaged: it ends early")
        blocks.append(packed[at + 4 : end])
        at = end
    return blocks
