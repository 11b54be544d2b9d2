"""Rows that steps add to and put out: open panes and totals, each a small table by a pair of integers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.engine.fold import keep_rows
from stream.engine.index import grown, pair_slots, power_of_two
from stream.engine.rows import SMALL, Rows, flat

Array = npt.NDArray[Any]


class Folded:
    """keys (rows, 2), sums (rows, ...), marks (rows, ...): what the kernels of `fold` fill."""

    def __init__(self, sums: tuple[int, ...], marks: tuple[int, ...]) -> None:
        """Shapes of one row of sums and of marks."""
        self.keys: Array = np.zeros((SMALL, 2), np.int64)
        self.slots: Array = np.zeros(2 * SMALL, np.int32)
        self.sums: Array = np.zeros((SMALL, *sums), np.int64)
        self.marks: Array = np.zeros((SMALL, *marks), np.int64)
        self.rows = 0

    def room(self, rows: int) -> None:
        """Make room for so many new rows."""
        if self.rows + rows <= len(self.keys):
            return
        capacity = power_of_two(self.rows + rows)
        self.keys = grown(self.keys, capacity)
        self.sums = grown(self.sums, capacity)
        self.marks = grown(self.marks, capacity)
        self.slots = pair_slots(self.keys, self.rows, 2 * capacity)

    def keep(self, keep: npt.NDArray[np.bool_]) -> None:
        """Drop all rows but those to keep (bool, one per row)."""
        if not keep.all():
            self.rows = keep_rows(self.keys, self.sums, self.marks, keep)
            self.slots = pair_slots(self.keys, self.rows, len(self.slots))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.keys.nbytes + self.slots.nbytes + self.sums.nbytes + self.marks.nbytes

    def export(self, name: str) -> dict[str, Rows]:
        """The rows under `name.*`."""
        n = self.rows
        return {
            f"{name}.keys": flat(self.keys[:n]),
            f"{name}.sums": flat(self.sums[:n]),
            f"{name}.marks": flat(self.marks[:n]),
        }

    def restore(self, name: str, export: Mapping[str, Rows]) -> None:
        """Take the rows of an export."""
        keys = export[f"{name}.keys"].joined
        n = len(keys)
        self.room(n)
        self.keys[:n] = keys
        self.sums[:n] = export[f"{name}.sums"].joined
        self.marks[:n] = export[f"{name}.marks"].joined
        self.rows = n
        self.slots = pair_slots(self.keys, n, len(self.slots))
