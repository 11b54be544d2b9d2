"""One experiment's kept partials and the sums over any window of them.

Sums are kept by chunk; the panes of a chunk are laid out only while an edge of a window lies in it. So memory
is about a kilobyte per chunk and partition, and a window costs one masked sum and two slices.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from stream.engine.outputs import COUNTS
from stream.rolling.partials import CHUNK_MS, PANE_MS, PANES_IN_CHUNK, Partial, decode

Counts = npt.NDArray[np.int64]


class ExperimentPanes:
    """The newest partial of every (source partition, chunk) of one experiment."""

    def __init__(self, decode: Callable[[bytes], Partial] = decode) -> None:
        """decode: of partials; one that remembers the newest of them spares decoding each of them twice."""
        self._decode = decode
        self.arms: dict[str, int] = {}  # every arm ever seen, and its index in the sums
        self._kept: dict[int, dict[int, tuple[int, bytes]]] = {}  # chunk: source: version, value
        self._slots: dict[int, int] = {}  # chunk: row of _chunks and _totals; rows behind them are zero
        self._chunks = np.empty(0, np.int64)
        self._totals = np.zeros((0, 0, len(COUNTS)), np.int64)
        self._laid_out: dict[int, Counts] = {}  # chunk: (PANES_IN_CHUNK, arms, counts)

    @property
    def chunks_held(self) -> int:
        """How many chunks are kept, over all source partitions together."""
        return len(self._slots)

    def put(self, partition: int, chunk_start_ms: int, value: bytes, partial: Partial) -> bool:
        """Keep the partial if it is newer than what is kept for its key; `value` is its encoded form."""
        chunk = chunk_start_ms // CHUNK_MS
        self._know(partial.arms)
        of_chunk = self._kept.setdefault(chunk, {})
        old = of_chunk.get(partition)
        # Equal versions have equal bytes; comparing those too keeps even a faulty sender free of order.
        if old is not None and (partial.version, value) <= old:
            return False
        self._reserve(chunk)
        if old is not None:
            self._add(chunk, self._decode(old[1]), sign=-1)
        self._add(chunk, partial, sign=1)
        of_chunk[partition] = partial.version, value
        return True

    def windows(self, as_of_ms: int, lengths_ms: Sequence[int]) -> list[Counts]:
        """Counts of [as_of - length, as_of) for each length: int64 (arms, len(COUNTS))."""
        edges = [(as_of_ms - length, as_of_ms) for length in lengths_ms]
        touched = {edge // CHUNK_MS for window in edges for edge in window}
        self._laid_out = {chunk: self._panes(chunk) for chunk in touched}
        return [self._between(start, stop) for start, stop in edges]

    def expire(self, before_ms: int) -> None:
        """Forget the chunks that end at `before_ms` or earlier."""
        gone = [chunk for chunk in self._slots if (chunk + 1) * CHUNK_MS <= before_ms]
        if not gone:
            return
        for chunk in gone:
            del self._slots[chunk], self._kept[chunk]
            self._laid_out.pop(chunk, None)
        rows = list(self._slots.values())
        self._chunks, self._totals = self._chunks[rows], self._totals[rows]
        self._slots = {chunk: row for row, chunk in enumerate(self._slots)}

    def _between(self, start_ms: int, stop_ms: int) -> Counts:
        first, head = divmod(start_ms, CHUNK_MS)
        last, tail = divmod(stop_ms, CHUNK_MS)
        head, tail = head // PANE_MS, tail // PANE_MS
        if first == last:
            return self._sum(self._laid_out[first][head:tail])
        whole = (self._chunks > first) & (self._chunks < last)
        edges = self._sum(self._laid_out[first][head:]) + self._sum(self._laid_out[last][:tail])
        return edges + self._sum(self._totals[whole])

    @staticmethod
    def _sum(rows: Counts) -> Counts:
        total: Counts = rows.sum(axis=0)
        return total

    def _panes(self, chunk: int) -> Counts:
        panes = self._laid_out.get(chunk)
        if panes is None:
            panes = np.zeros((PANES_IN_CHUNK, len(self.arms), len(COUNTS)), np.int64)
            for _, value in self._kept.get(chunk, {}).values():
                self._add_panes(panes, self._decode(value), sign=1)
        return panes

    def _add(self, chunk: int, partial: Partial, *, sign: int) -> None:
        arm = self._arm_indices(partial)
        np.add.at(self._totals[self._slots[chunk]], arm, sign * partial.counts)
        if chunk in self._laid_out:
            self._add_panes(self._laid_out[chunk], partial, sign=sign)

    def _add_panes(self, panes: Counts, partial: Partial, *, sign: int) -> None:
        np.add.at(panes, (partial.pane, self._arm_indices(partial)), sign * partial.counts)

    def _arm_indices(self, partial: Partial) -> npt.NDArray[np.intp]:
        index = np.array([self.arms[arm] for arm in partial.arms], np.intp)
        return index[partial.arm]

    def _know(self, arms: Sequence[str]) -> None:
        """Give new arms a place; sums laid out before are widened or dropped."""
        known = len(self.arms)
        for arm in arms:
            self.arms.setdefault(arm, len(self.arms))
        if len(self.arms) > known:
            self._totals = np.pad(self._totals, ((0, 0), (0, len(self.arms) - known), (0, 0)))
            self._laid_out = {}

    def _reserve(self, chunk: int) -> None:
        if chunk in self._slots:
            return
        row = self._slots[chunk] = len(self._slots)
        if row == len(
            self._chunks
        ):  # twice as many, or each chunk of a long backlog would copy all before it
            more = max(8, row)
            self._chunks = np.pad(self._chunks, (0, more))
            self._totals = np.pad(self._totals, ((0, more), (0, 0), (0, 0)))
        self._chunks[row] = chunk
