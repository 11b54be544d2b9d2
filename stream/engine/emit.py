"""What a step puts out: the touched panes, totals and ledger rows with their names, rejected records, partials."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.contracts.limits import MAX_ARMS, MAX_PAYLOAD_BYTES, MAX_PHASES
from stream.contracts.reasons import explain
from stream.contracts.topics import Topic
from stream.engine.batch import Batch
from stream.engine.experiments import Experiments
from stream.engine.fold import CODES, NO_ROW, begin_anew, chunk_cells, fold_moved, fold_panes, fold_users
from stream.engine.folded import Folded
from stream.engine.layout import (
    ASG,
    CHUNK_MS,
    LEDGER,
    PANE_MS,
    QUIET_MS,
    ROLLING_MS,
    SCRATCH,
    SEEN_ROWS,
    SLICE_PANE_MS,
    TOUCHED,
    UNKNOWN_TROUBLED,
    UNKNOWN_TROUBLES,
)
from stream.engine.moments import MOMENTS, N
from stream.engine.names import Names
from stream.engine.outputs import (
    COHORTS,
    COUNTS,
    DEAD_LETTERS,
    DECLARED_METRICS,
    TROUBLES,
    WIDE,
    Chunk,
    Outputs,
    Table,
    Words,
)
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
UNKNOWN_ARM = "unknown"  # of no experiment
RECOUNTED_ROWS = 1 << 10  # users put into the sums at once where these are made anew
MOVED_ROWS = 4096  # combinations of arm and user slice gathered before they go into the totals
SINCE = np.array(["assignment", "exposure"], object)


class Emitter:
    """Open panes and totals of one partition, and their rows as tables."""

    def __init__(self, store: Store, experiments: Experiments, dictionary: Callable[[str], Names]) -> None:
        """dictionary: names of a slice dimension's codes; `user.*` for user slices."""
        self.store = store
        self.experiments = experiments
        self.dictionary = dictionary
        self.panes = Folded((len(COUNTS),), (3,))
        self.slices = Folded((len(COUNTS),), (3,))
        self.totals = Folded((len(MOMENTS), 2), ())
        self.cohorts = Folded((len(COHORTS[1]),), ())
        self._moved = Folded((len(MOMENTS), 2), ())
        self._moved.room(MOVED_ROWS)
        self._vectors = np.zeros((3, N), np.int64)  # a user before and after a step, and nothing
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
        return self.panes.nbytes + self.slices.nbytes + self.totals.nbytes + self.cohorts.nbytes

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

    def drop_cohorts(self) -> None:
        """Forget the cohorts of frozen experiments: they are put out, and nobody moves between them any more."""
        n = self.cohorts.rows
        experiments = self.cohorts.keys[:n, 0] // (2 * MAX_PHASES * MAX_ARMS)
        self.cohorts.keep(self.store.a["frozen"][experiments] == 0)

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
            "cohorts": self._cohorts(),
            "troubles": self._troubles(),
            "declared_metrics": self._declared(),
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
        self._fold_users()

    def _fold_users(self) -> None:
        moved, totals, cohorts, m = self._moved, self.totals, self.cohorts, self.store.m
        done = np.int64(0)
        while done != NO_ROW:
            cohorts.room(min(4096, 16 * (int(m[SEEN_ROWS] + m[TOUCHED]) - int(done))) + 16)
            done, rows, cohorts.rows = fold_users(
                self.store.tables(), done, self._vectors, moved.slots, moved.keys, moved.sums, 0,
                cohorts.slots, cohorts.keys, cohorts.sums, cohorts.marks, cohorts.rows, self.step,
            )  # fmt: skip
            totals.room(4 * rows)
            totals.rows = fold_moved(
                moved.keys, moved.sums, rows,
                totals.slots, totals.keys, totals.sums, totals.marks, totals.rows, self.step,
            )  # fmt: skip
            moved.slots[:] = 0

    def recount(self, step: int) -> None:
        """Add all users of running experiments to the sums as if they changed in that step, which puts out all sums."""
        self.step = step
        m = self.store.m
        for start in range(0, int(m[ASG]), RECOUNTED_ROWS):
            begin_anew(self.store.tables(), start, min(int(m[ASG]), start + RECOUNTED_ROWS))
            self._fold_users()
        self.totals.marks[: self.totals.rows] = step

    def _slice_names(
        self, codes: npt.NDArray[np.int64], dimensions: tuple[str, ...], prefix: str
    ) -> tuple[Words, Words]:
        """Dimension and value of slice codes; 0 is `all`."""
        names = [self.dictionary(prefix + name).names for name in dimensions]
        before = np.cumsum([1, *map(len, names)])
        place, code = np.divmod(codes - 1, CODES)
        values = np.where(codes == 0, 0, before[place] + code)
        return Words((ALL, *dimensions), place + 1), Words(("", *chain(*names)), values)

    def _panes(self) -> Table:
        i = np.flatnonzero(self.panes.marks[: self.panes.rows, 1] == self.step)
        j = np.flatnonzero(self.slices.marks[: self.slices.rows, 1] == self.step)
        ea = np.concatenate([self.panes.keys[i, 0], self.slices.keys[j, 0] >> 32])
        codes = np.concatenate([np.zeros(len(i), np.int64), self.slices.keys[j, 0] & 0xFFFFFFFF])
        dimension, value = self._slice_names(codes, self.dimensions, "")
        experiment, arm = self.experiments.words_of(ea)
        sums = np.concatenate([self.panes.sums[i], self.slices.sums[j]])
        return {
            "experiment": experiment,
            "arm": arm,
            "dimension": dimension,
            "value": value,
            "pane_seconds": np.repeat([PANE_MS // 1000, SLICE_PANE_MS // 1000], [len(i), len(j)]),
            "pane_start_ms": np.concatenate(
                [self.panes.keys[i, 1] * PANE_MS, self.slices.keys[j, 1] * SLICE_PANE_MS]
            ),
            "fragment": np.concatenate([self.panes.marks[i, 0], self.slices.marks[j, 0]]),
        } | {name: sums[:, k] for k, name in enumerate(COUNTS)}

    def _totals(self) -> Table:
        i = np.flatnonzero(self.totals.marks[: self.totals.rows] == self.step)
        table = self._whose(self.totals.keys[i, 0], self.totals.keys[i, 1])
        for place, name in enumerate(MOMENTS):
            words = self.totals.sums[i, place]
            table[name] = words if name in WIDE else words[:, 0].copy()
        return table

    def _cohorts(self) -> Table:
        i = np.flatnonzero(self.cohorts.marks[: self.cohorts.rows] == self.step)
        first, second = self.cohorts.keys[i, 0], self.cohorts.keys[i, 1]
        table = self._whose(first >> 1, second >> 24)
        table |= {"since": SINCE[first & 1], "start_date": second & 0xFFFFFF}
        return table | {name: self.cohorts.sums[i, k] for k, name in enumerate(COHORTS[1])}

    def _whose(self, arm_and_phase: npt.NDArray[np.int64], codes: npt.NDArray[np.int64]) -> Table:
        dimension, value = self._slice_names(codes, USER_DIMENSIONS, "user.")
        ea, phase = arm_and_phase // MAX_PHASES, arm_and_phase % MAX_PHASES
        experiment, arm = self.experiments.words_of(ea)
        return {
            "experiment": experiment,
            "arm": arm,
            "dimension": dimension,
            "value": value,
            "phase": phase,
        }

    def _troubles(self) -> Table:
        a = self.store.a
        touched = np.flatnonzero(a["troubled"])
        a["troubled"][touched] = 0
        counts = a["troubles"][touched].reshape(-1, len(TROUBLES[1]))
        numbers = (touched[:, None] * MAX_ARMS + np.arange(MAX_ARMS)).reshape(-1)
        some = counts.any(axis=1)
        experiments, arms = (list(words) for words in self.experiments.words_of(numbers[some]))
        counts = counts[some]
        if self.store.m[UNKNOWN_TROUBLED]:
            self.store.m[UNKNOWN_TROUBLED] = 0
            experiments, arms = [*experiments, ""], [*arms, UNKNOWN_ARM]
            counts = np.vstack([counts, self.store.m[UNKNOWN_TROUBLES:][: len(TROUBLES[1])]])
        return {"experiment": experiments, "arm": arms} | {
            name: counts[:, k] for k, name in enumerate(TROUBLES[1])
        }

    def _declared(self) -> Table:
        declaring = self.store.a["declaring"]
        rows = [
            (self.experiments.names[e], metric, slot, since)
            for e in np.flatnonzero(declaring)
            for slot, (metric, since) in enumerate(self.experiments.declared[e].items(), 1)
        ]
        declaring[:] = 0
        names = (*DECLARED_METRICS[0], *DECLARED_METRICS[1])
        return {name: [row[k] for row in rows] for k, name in enumerate(names)}

    def _ledger(self) -> Table:
        n = int(self.store.m[LEDGER])
        a = self.store.a
        a["ledger_fragment"][self._first_new_hour : n] = self.step
        i = np.flatnonzero(a["ledger_touched"][:n] == -1)
        a["ledger_touched"][i] = self.step
        table: Table = {
            "topic": Words([topic.word for topic in Topic], a["ledger_keys"][i, 0]),
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
        return {
            name: array
            for part in ("panes", "slices", "totals", "cohorts")
            for name, array in getattr(self, part).export(part).items()
        }

    def restore(self, export: Mapping[str, Rows], meta: dict[str, Any]) -> None:
        """Take what `export` and `meta` gave."""
        self.panes.restore("panes", export)
        self.slices.restore("slices", export)
        self.totals.restore("totals", export)
        self.cohorts.restore("cohorts", export)
        self._swept_ms, self._swept_rows = meta["swept_ms"], meta["swept_rows"]
        self._swept_hours = meta["swept_hours"]
