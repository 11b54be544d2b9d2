"""Consecutive blocks of a table: what is known of each."""

import numpy as np
import numpy.typing as npt

UNSAVED = -1


class Span:
    """By block from number `first` on: its hash, the number of the piece that has it, whether it must be compared.

    A new block is unsaved, and its hash is any. Blocks go at the front and come at the end without that the others are
    copied, but now and then.
    """

    def __init__(self, first: int, count: int) -> None:
        """So many unknown blocks."""
        self.first = first
        self._at = 0
        self._count = 0
        self._hashes = np.empty(0, np.uint64)
        self._owners = np.empty(0, np.int32)
        self._stale = np.empty(0, np.bool_)
        self._extend(count)

    def __len__(self) -> int:
        return self._count

    @property
    def _here(self) -> slice:
        return slice(self._at, self._at + self._count)

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """As they were compared last."""
        return self._hashes[self._here]

    @property
    def owners(self) -> npt.NDArray[np.int32]:
        """UNSAVED: no piece has the block as it was compared last."""
        return self._owners[self._here]

    @property
    def stale(self) -> npt.NDArray[np.bool_]:
        """May be another since it was compared."""
        return self._stale[self._here]

    def common(self, first: int, count: int) -> int:
        """How many of these blocks it has."""
        return max(0, min(first + count, self.first + self._count) - max(first, self.first))

    def move(self, first: int, count: int) -> npt.NDArray[np.int32]:
        """Have these blocks from now on, of which it has some: the owners of those that it has no longer.

        None comes before its first one.
        """
        skip = first - self.first
        gone = np.concatenate([self.owners[:skip], self.owners[skip + count :]])
        self.first = first
        self._at += skip
        self._count = min(self._count - skip, count)
        self._extend(count)
        return gone

    def _extend(self, count: int) -> None:
        if self._at + count > len(self._hashes):
            room = count + count // 8
            for name in ("_hashes", "_owners", "_stale"):
                old = getattr(self, name)
                new = np.zeros(room, old.dtype)  # pages that are not used yet cost nothing
                new[: self._count] = old[self._here]
                setattr(self, name, new)
            self._at = 0
        new_ones = slice(self._at + self._count, self._at + count)
        self._owners[new_ones] = UNSAVED
        self._stale[new_ones] = True
        self._count = count
