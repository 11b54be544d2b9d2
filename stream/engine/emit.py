"""What a step puts out: the touched panes, totals and ledger rows with their names, rejected records, partials."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.contracts.limits import MAX_ARMS, MAX_PAYLOAD_BYTES
from stream.contracts.reasons import explain
from stream.contracts.topics import Topic
from stream.engine.batch import Batch
from stream.engine.experiments import Experiments
from stream.engine.fold import CODES, chunk_cells, fold_panes, fold_totals
from stream.engine.folded import Folded
from stream.engine.layout import (
    CHUNK_MS,
    FINE,
    FINE_COLUMNS,
    LEDGER,
    PANE_MS,
    QUIET_MS,
    ROLLING_MS,
    SCRATCH,
    SLICE_PANE_MS,
    WIDE_COLUMNS,
)
from stream.engine.names import Names
from stream.engine.outputs import COUNTS, DEAD_LETTERS, TOTALS, Chunk, Outputs, Table
from stream.engine.outputs import LEDGER as LEDGER_TABLE
from stream.engine.rows import Rows
from stream.engine.screen import HOUR_MS
from stream.engine.tables import Store

ALL = "all"
USER_DIMENSIONS = ("country", "device", "segment")

CHUNK_PANES = CHUNK_MS // PANE_MS
KEEP_HOURS_STEPS = 100  # a ledger row untouched for so many steps is closed
SWEEP_ROWS = 100_000
SWEEP_HOURS = 10_000
# fine and wide columns in the order of TOTALS' values
_MOMENT_ORDER = (0, 1, 2, 3, 4, 5, 6, 18, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20)
SMALL_SUMS = 12  # values before the moments


class Emitter:
    """Open panes and totals of one partition, and their rows as tables."""

    def __init__(self, store: Store, experiments: Experiments, dictionary: Callable[[str], Names]) -> None:
        """dictionary: names of a slice dimension's codes; `user.*` for user slices."""
        self.store = store
        self.experiments = experiments
        self.dictionary = dictionary
        self.panes = Folded((len(COUNTS),), (3,))
        self.slices = Folded((len(COUNTS),), (3,))
        self.totals = Folded((FINE_COLUMNS + WIDE_COLUMNS, 2), ())
        self.dimensions: tuple[str, ...] = ()
        self.step = 0
        self.clock_ms = -1
        self._swept_ms = -1
        self._swept_rows = 0
        self._swept_hours = 0
        self._first_new_hour = 0
        self._dead: list[tuple[Any, ...]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.panes.nbytes + self.slices.nbytes + self.totals.nbytes

    def begin(self, step: int, clock_ms: int, dimensions: tuple[str, ...]) -> None:
        """Start a step: close what has been quiet."""
        self.step, self.clock_ms, self.dimensions = step, clock_ms, dimensions
        self._dead = []
        grown = self.panes.rows + self.slices.rows > 2 * self._swept_rows + SWEEP_ROWS
        many_hours = int(self.store.m[LEDGER]) > 2 * self._swept_hours + SWEEP_HOURS
        if clock_ms - self._swept_ms >= QUIET_MS or grown or many_hours:
            self._sweep()
        self._first_new_hour = int(self.store.m[LEDGER])

    def _sweep(self) -> None:
        n = self.panes.rows
        chunk_ends = (self.panes.keys[:n, 1] * PANE_MS // CHUNK_MS + 1) * CHUNK_MS
        self.panes.keep(chunk_ends > self.clock_ms - ROLLING_MS - CHUNK_MS)
        self.slices.keep(self.slices.marks[: self.slices.rows, 2] > self.clock_ms - QUIET_MS)
        touched = self.store.a["ledger_touched"][: int(self.store.m[LEDGER])]
        self.store.close_hours(touched > self.step - KEEP_HOURS_STEPS)
        self._swept_ms, self._swept_rows = self.clock_ms, self.panes.rows + self.slices.rows
        self._swept_hours = int(self.store.m[LEDGER])

    def add_dead_letters(self, batch: Batch, status: npt.NDArray[np.int64]) -> None:
        """Keep the rejected rows of a batch."""
        for i in np.flatnonzero(status > 0):
            reason, field, rule = explain(batch.topic, int(status[i]))
            length = max(int(batch.value_len[i]), 0)
            start = int(batch.value_pos[i])
            payload = bytes(batch.buf[start : start + min(length, MAX_PAYLOAD_BYTES)])
            schema_id = int.from_bytes(payload[1:5], "big") if len(payload) >= 5 and payload[0] == 0 else -1
            self._dead.append(
                (
                    batch.topic.word,
                    int(batch.offset[i]),
                    int(batch.record_at_ms[i]),
                    reason,
                    field,
                    rule,
                    schema_id,
                    payload,
                    length,
                )
            )

    def outputs(self, step: int, rows: int, clock_ms: int, horizon_ms: int) -> Outputs:
        """Fold the step's changes and put out what they touched."""
        self.clock_ms = clock_ms  # what a wide step touched last is not quiet yet
        self._fold()
        tables = {
            "panes": self._panes(),
            "totals": self._totals(),
            "ledger": self._ledger(),
            "dead_letters": self._dead_letters(),
        }
        touched = self.panes.keys[: self.panes.rows][self.panes.marks[: self.panes.rows, 1] == step]
        return Outputs(step, tables, self._chunks(touched, clock_ms), rows, clock_ms, horizon_ms)

    def live_chunks(self, clock_ms: int) -> list[Chunk]:
        """All partials inside the longest window."""
        return self._chunks(self.panes.keys[: self.panes.rows], clock_ms)

    def _fold(self) -> None:
        m = self.store.m
        scratch = int(m[SCRATCH])
        self.panes.room(scratch)
        self.slices.room(scratch * len(self.dimensions))
        a, b = self.panes, self.slices
        a.rows, b.rows = fold_panes(
            self.store.tables(), len(self.dimensions), SLICE_PANE_MS // PANE_MS,
            a.slots, a.keys, a.sums, a.marks, a.rows, b.slots, b.keys, b.sums, b.marks, b.rows,
            self.step, self.clock_ms,
        )  # fmt: skip
        touched = int((self.store.a["fine_touched"][: int(m[FINE])] != 0).sum())
        self.totals.room(4 * touched)
        c = self.totals
        c.rows = fold_totals(self.store.tables(), c.slots, c.keys, c.sums, c.marks, c.rows, self.step)

    def _slice_names(
        self, codes: npt.NDArray[np.int64], dimensions: tuple[str, ...], prefix: str
    ) -> tuple[Any, Any]:
        """Object arrays (dimension, value) of slice codes; 0 is `all`."""
        dimension = np.full(len(codes), ALL, object)
        value = np.full(len(codes), "", object)
        for place, name in enumerate(dimensions):
            here = (codes - 1) // CODES == place
            names = np.array(self.dictionary(prefix + name).names, object)
            dimension[here] = name
            value[here] = names[(codes[here] - 1) % CODES]
        return dimension, value

    def _panes(self) -> Table:
        experiments, arms = self.experiments.names_of_arms()
        i = np.flatnonzero(self.panes.marks[: self.panes.rows, 1] == self.step)
        j = np.flatnonzero(self.slices.marks[: self.slices.rows, 1] == self.step)
        ea = np.concatenate([self.panes.keys[i, 0], self.slices.keys[j, 0] >> 32])
        codes = np.concatenate([np.zeros(len(i), np.int64), self.slices.keys[j, 0] & 0xFFFFFFFF])
        dimension, value = self._slice_names(codes, self.dimensions, "")
        sums = np.concatenate([self.panes.sums[i], self.slices.sums[j]])
        return {
            "experiment": experiments[ea],
            "arm": arms[ea],
            "dimension": dimension,
            "value": value,
            "pane_seconds": np.repeat([PANE_MS // 1000, SLICE_PANE_MS // 1000], [len(i), len(j)]),
            "pane_start_ms": np.concatenate(
                [self.panes.keys[i, 1] * PANE_MS, self.slices.keys[j, 1] * SLICE_PANE_MS]
            ),
            "fragment": np.concatenate([self.panes.marks[i, 0], self.slices.marks[j, 0]]),
        } | {name: sums[:, k] for k, name in enumerate(COUNTS)}

    def _totals(self) -> Table:
        experiments, arms = self.experiments.names_of_arms()
        i = np.flatnonzero(self.totals.marks[: self.totals.rows] == self.step)
        ea = self.totals.keys[i, 0]
        dimension, value = self._slice_names(self.totals.keys[i, 1], USER_DIMENSIONS, "user.")
        table: Table = {
            "experiment": experiments[ea],
            "arm": arms[ea],
            "dimension": dimension,
            "value": value,
        }
        for place, name in enumerate(TOTALS[1]):
            words = self.totals.sums[i, _MOMENT_ORDER[place]]
            small = place < SMALL_SUMS and name != "revenue_minor"
            table[name] = words[:, 0].copy() if small else words
        return table

    def _ledger(self) -> Table:
        n = int(self.store.m[LEDGER])
        a = self.store.a
        a["ledger_fragment"][self._first_new_hour : n] = self.step
        i = np.flatnonzero(a["ledger_touched"][:n] == -1)
        a["ledger_touched"][i] = self.step
        words = np.array([topic.word for topic in Topic], object)
        table: Table = {
            "topic": words[a["ledger_keys"][i, 0]],
            "hour_ms": a["ledger_keys"][i, 1] * HOUR_MS,
            "fragment": a["ledger_fragment"][i],
        }
        return table | {name: a["ledger"][i, k] for k, name in enumerate(LEDGER_TABLE[1])}

    def _dead_letters(self) -> Table:
        names = (*DEAD_LETTERS[0], *DEAD_LETTERS[1])
        columns = zip(*self._dead, strict=True) if self._dead else ((),) * len(names)
        return {name: list(column) for name, column in zip(names, columns, strict=True)}

    def _chunks(self, keys: npt.NDArray[np.int64], clock_ms: int) -> list[Chunk]:
        """The partials that these panes (arm, pane) belong to, whole."""
        pairs = np.stack([keys[:, 0] // MAX_ARMS, keys[:, 1] // CHUNK_PANES], axis=1)
        live = pairs[(pairs[:, 1] + 1) * CHUNK_MS > clock_ms - ROLLING_MS]
        cells = np.empty((MAX_ARMS * CHUNK_PANES, 2 + len(COUNTS)), np.int64)
        chunks = []
        for experiment, chunk in np.unique(live, axis=0).tolist():
            first = experiment * MAX_ARMS
            arms = self.experiments.arms[experiment]
            n = chunk_cells(
                self.panes.slots, self.panes.keys, self.panes.sums, first, len(arms),
                chunk * CHUNK_PANES, CHUNK_PANES, cells,
            )  # fmt: skip
            chunks.append(
                Chunk(
                    experiment=self.experiments.names[experiment],
                    chunk_start_ms=chunk * CHUNK_MS,
                    arms=[arms[arm - first] for arm in cells[:n, 0].tolist()],
                    pane_start_ms=(cells[:n, 1] * PANE_MS).tolist(),
                    counts=cells[:n, 2:].tolist(),
                )
            )
        return chunks

    # ---- snapshots

    def meta(self) -> dict[str, Any]:
        """What is not in arrays."""
        return {"swept_ms": self._swept_ms, "swept_rows": self._swept_rows, "swept_hours": self._swept_hours}

    def export(self) -> dict[str, Rows]:
        """The open panes and totals."""
        return self.panes.export("panes") | self.slices.export("slices") | self.totals.export("totals")

    def restore(self, export: Mapping[str, Rows], meta: dict[str, Any]) -> None:
        """Take what `export` and `meta` gave."""
        self.panes.restore("panes", export)
        self.slices.restore("slices", export)
        self.totals.restore("totals", export)
        self._swept_ms, self._swept_rows = meta["swept_ms"], meta["swept_rows"]
        self._swept_hours = meta["swept_hours"]
