"""How a table's rows look in pieces, and which rows there are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import descr_to_dtype, dtype_to_descr

from stream.engine.marks import rows_of_block
from stream.engine.rows import Rows, with_room

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a manifest says of a table. parts: (number of the first row, count) of each run of rows in memory."""

    name: str
    dtype: Any  # as numpy's .npy format describes it
    tail: tuple[int, ...]  # shape of a row
    parts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, name: str, rows: Rows) -> "Shape":
        """That of a table of an export."""
        array = rows.parts[0][1]
        parts = tuple((first, len(part)) for first, part in rows.parts)
        return cls(name, dtype_to_descr(array.dtype), array.shape[1:], parts)

    def is_like(self, other: "Shape") -> bool:
        """Rows of both look the same."""
        return dtype_of(self.dtype) == dtype_of(other.dtype) and self.tail == other.tail

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return dtype_of(self.dtype).itemsize * int(np.prod(self.tail, dtype=np.int64))

    @property
    def block_rows(self) -> int:
        """Rows of a block."""
        return rows_of_block(self.row_bytes)

    @property
    def block_bytes(self) -> int:
        """Bytes of a whole block."""
        return self.row_bytes * self.block_rows

    @property
    def runs(self) -> list[tuple[int, int]]:
        """(number of the first block, blocks) of parts that follow each other: links wrap around, else it is one."""
        runs: list[tuple[int, int]] = []
        for first, count in self.parts:
            if runs and sum(runs[-1]) == first:
                runs[-1] = runs[-1][0], runs[-1][1] + count
            else:
                runs.append((first, count))
        return [self.blocks_of(first, count) for first, count in runs]

    def blocks_of(self, first: int, count: int) -> tuple[int, int]:
        """(number of the first block, blocks) that so many rows from number `first` on touch."""
        lo = first // self.block_rows
        return lo, (-(-(first + count) // self.block_rows) - lo) if count else 0

    def empty(self) -> Rows:
        """Such rows, to be filled."""
        return with_room(self.parts, dtype_of(self.dtype), self.tail)


def dtype_of(described: Any) -> np.dtype[Any]:
    """JSON has no tuples, numpy insists on them."""
    if isinstance(described, str):
        return np.dtype(described)
    fields = [(name, given, *map(tuple, shape)) for name, given, *shape in described]
    return descr_to_dtype(fields)
