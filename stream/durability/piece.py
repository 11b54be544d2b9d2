"""A piece: blocks of several tables in one stored object of bounded size, and a second one that is its copy."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cramjam
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_LEVEL = 1  # zstd's fastest real level: faster than a disk writes
_PREFIX = 8  # bytes that say how long the header is


@dataclass(frozen=True, slots=True)
class Piece:
    """A stored piece: where it is, how many bytes of blocks it was written with, and what its bytes must hash to."""

    path: str
    bytes: int
    checksum: str  # blake2b

    @property
    def paths(self) -> tuple[str, str]:
        """Where the bytes are, and where they are once more."""
        return self.path, f"{self.path}.copy"


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Blocks of one table: numbers (n,), contents (n, bytes of a block)."""

    table: str
    numbers: Array
    contents: Array


def pack(blocks: list[Blocks]) -> bytes:
    """The stored form."""
    raw = b"".join(
        np.ascontiguousarray(part).data for item in blocks for part in (item.numbers, item.contents)
    )
    tables = [[item.table, *item.contents.shape] for item in blocks]
    header = json.dumps({"bytes": len(raw), "tables": tables}).encode()
    packed = bytes(cramjam.zstd.compress(raw, level=_LEVEL))
    return len(header).to_bytes(_PREFIX, "little") + header + packed


def unpack(data: bytes) -> Iterator[Blocks]:
    """What `pack` was given; its checksum was good."""
    length = int.from_bytes(data[:_PREFIX], "little")
    header = json.loads(data[_PREFIX : _PREFIX + length])
    raw = np.empty(header["bytes"], np.uint8)
    if len(raw):
        cramjam.zstd.decompress_into(memoryview(data)[_PREFIX + length :], raw.data)
    at = 0
    for table, n, size in header["tables"]:
        numbers = raw[at : at + 8 * n].copy().view(np.int64)
        at += 8 * n
        yield Blocks(table, numbers, raw[at : at + n * size].reshape(n, size))
        at += n * size


def checksum(data: bytes) -> str:
    """What a stored object must hash to."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
