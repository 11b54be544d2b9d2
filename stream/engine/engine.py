"""One partition's engine: takes the records of a step, keeps the state, puts out what changed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream.contracts.definitions import Definitions
from stream.contracts.limits import MAX_SLICE_VALUES
from stream.contracts.reasons import Outcome, Reason
from stream.contracts.topics import FIELDS, Topic
from stream.engine import ENGINE_VERSION
from stream.engine.assign import apply_assignments, drop_experiment
from stream.engine.attribute import (
    NEED_ITEMS,
    apply_impressions,
    apply_interactions,
    orphan_waiting,
)
from stream.engine.batch import NULL, TEXT_MASK, TEXT_SHIFT, Batch
from stream.engine.credit import expose_users
from stream.engine.emit import USER_DIMENSIONS, Emitter
from stream.engine.event_ids import UNIT
from stream.engine.experiments import Experiments
from stream.engine.export import export_tables, load_tables
from stream.engine.fold import CODES
from stream.engine.improve import improve_by_item
from stream.engine.items import drop_items, index_items
from stream.engine.layout import (
    BY_IMPRESSION,
    BY_ITEM,
    BY_NOTHING,
    CLICK,
    CONVERSION,
    DUPLICATE,
    IDS,
    IDS_BASE,
    IMP_BASE,
    IMPS,
    INT_BASE,
    INTS,
    ITEM_WATCHES,
    ITEMS_ON,
    LATE,
    MAX_DIMENSIONS,
    NEED_CELLS,
    NEED_HOURS,
    NEED_TOUCHED,
    OUTSIDE,
    T_DUPLICATE,
    T_LATE,
    T_REJECTED,
    UNKNOWN_IMPRESSION,
    WINDOW,
)
from stream.engine.migrations import upgraded
from stream.engine.names import Names
from stream.engine.outputs import Chunk, Outputs, Tally
from stream.engine.rows import Rows, flat
from stream.engine.screen import (
    count_outcomes,
    count_troubles,
    dedupe,
    encode_combos,
    encode_users,
    hash_texts,
    hours_in,
    is_readable,
    ledger_rows_of,
    received_at,
    screen,
    whole_latencies,
)
from stream.engine.segments import Segments
from stream.engine.tables import Store

I64 = npt.NDArray[np.int64]

MAX_CURRENCIES = 300
CLICK_KIND = "click"
UNCOUNTED = min(LATE, DUPLICATE, OUTSIDE)  # the smallest status
RINGS = {"ids": (IDS_BASE, IDS), "impressions": (IMP_BASE, IMPS), "interactions": (INT_BASE, INTS)}


@dataclass(frozen=True, slots=True)
class Step:
    """What an engine needs to know of a step beside its records."""

    number: int
    planned_at_ms: int
    caught_up: tuple[bool, bool, bool]
    definitions: Definitions


class Engine:
    """The state of one partition and the function from a step to its outputs.

    The same state and the same step give the same outputs. Nothing here reads a clock or does I/O.
    """

    def __init__(self, *, key: bytes, partition: int, partitions: int, definitions: Definitions) -> None:
        """key: the deployment's 16 bytes for hashing ids."""
        self.partition = partition
        self.partitions = partitions
        self.step = 0
        self.clock_ms = -1
        self.horizon_ms = -1
        self.newest = [-1, -1, -1]
        self.definitions = definitions
        self._key = np.frombuffer(key, np.uint64).copy()
        self._store = Store()
        self._segments = {ring: Segments() for ring in RINGS}
        self._segment_ms = -1
        self._tallies: dict[Tally, int] = {}
        self._names: dict[str, Names] = {}
        self._prepare()
        self.experiments.define(definitions)

    def _prepare(self) -> None:
        definitions = self.definitions
        unknown = [d for d in definitions.slice_dimensions if d not in FIELDS[Topic.IMPRESSIONS]]
        if unknown or len(definitions.slice_dimensions) > MAX_DIMENSIONS:
            raise ValueError(
                f"slice dimensions must be at most {MAX_DIMENSIONS} fields of impressions: {unknown}"
            )
        self.experiments = Experiments(
            self._store, self._dictionary("surface"), self._dictionary("currency"), self._dictionary("kind")
        )
        self._emitter = Emitter(self._store, self.experiments, self._dictionary)
        for kind in (CLICK_KIND, *definitions.conversion_kinds):
            self._dictionary("kind").code_of(kind)

    def _dictionary(self, name: str) -> Names:
        if name not in self._names:
            limit = MAX_CURRENCIES if name == "currency" else MAX_SLICE_VALUES
            self._names[name] = Names(limit, self._key)
        return self._names[name]

    @property
    def newest_ms(self) -> tuple[int, int, int]:
        """The largest accepted `at` by topic, -1 for none."""
        return self.newest[0], self.newest[1], self.newest[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the state's arrays."""
        return self._store.nbytes + self._emitter.nbytes + sum(names.nbytes for names in self._names.values())

    # ---- a step

    def execute(self, step: Step, batches: Mapping[Topic, Sequence[Batch]]) -> Outputs:
        """Take the records of the next step, by topic in offset order; return what changed."""
        if step.number != self.step + 1:
            raise ValueError(f"step {step.number} cannot follow step {self.step}")
        self._begin(step)
        before = {ring: int(self._store.m[count]) for ring, (_, count) in RINGS.items()}
        rows = 0
        for topic in Topic:
            taken = [batch for batch in batches.get(topic, ()) if len(batch)]
            rows += sum(map(len, taken))
            statuses = [self._take(batch, step) for batch in taken]
            if topic == Topic.IMPRESSIONS:
                expose_users(self._store.tables())
                self._improve(before["impressions"])
            # Not before all are taken: where a step's fetches were cut must not matter.
            for batch, status in zip(taken, statuses, strict=True):
                self._account(batch, status)
        self._close_segments(before)
        self._store.mark_added()
        self._store.give_back()
        self._advance_clock(step.caught_up)
        outputs = self._emitter.outputs(step.number, rows, self.clock_ms, self.horizon_ms)
        return replace(outputs, tallies=self._tallies)

    def live_chunks(self) -> list[Chunk]:
        """All partials that rolling windows may still need."""
        return self._emitter.live_chunks(self.clock_ms)

    def _begin(self, step: Step) -> None:
        self.step = step.number
        self._tallies = {}
        if step.definitions != self.definitions:
            self.definitions = step.definitions
            for kind in (CLICK_KIND, *step.definitions.conversion_kinds):
                self._dictionary("kind").code_of(kind)
            self.experiments.define(step.definitions, max(self.newest) + 1)
        self._store.m[WINDOW] = step.definitions.attribution_window_ms
        self._emitter.begin(step.number, self.clock_ms, self.definitions.slice_dimensions)
        self._expire()
        self._freeze()

    def _expire(self) -> None:
        window = self.definitions.attribution_window_ms
        for ring, (base, count) in RINGS.items():
            kept_for = window if ring == "impressions" else 0
            leaving = self._segments[ring].leave_before(self.horizon_ms - kept_for)
            if leaving and ring == "interactions":
                while orphan_waiting(self._store.tables(), leaving, UNKNOWN_IMPRESSION) < leaving:
                    self._store.room_for_hours(int(self._store.m[NEED_HOURS]))
            if leaving and ring == "impressions" and self._store.m[ITEMS_ON]:
                drop_items(self._store.tables(), leaving)
            self._store.forget(base, count, leaving)

    def _close_segments(self, before: dict[str, int]) -> None:
        self._segment_ms = max(self._segment_ms, self.clock_ms, *self.newest)
        for ring, (_, count) in RINGS.items():
            added = int(self._store.m[count]) - before[ring]
            if added:
                self._segments[ring].add(added, self._segment_ms, self.horizon_ms)

    def _freeze(self) -> None:
        n = len(self.experiments.names)
        ends = self._store.a["ends_at"][:n]
        over = (ends < self.horizon_ms - self.definitions.attribution_window_ms) & (
            self._store.a["frozen"][:n] == 0
        )
        for e in np.flatnonzero(over):
            self._store.a["frozen"][e] = 1
            drop_experiment(self._store.tables(), int(e))
        if over.any():
            self._emitter.drop_cohorts()

    def _advance_clock(self, caught_up: tuple[bool, bool, bool]) -> None:
        behind = [newest for newest, done in zip(self.newest, caught_up, strict=True) if not done]
        self.clock_ms = max(self.clock_ms, min(behind) if behind else max(self.newest))
        if self.clock_ms >= 0:
            self.horizon_ms = max(self.horizon_ms, self.clock_ms - self.definitions.allowed_lateness_ms)

    # ---- a batch

    def _take(self, batch: Batch, step: Step) -> I64:
        topic = batch.topic
        at = self._column(batch, "at")
        received = received_at(batch.record_at_ms, step.planned_at_ms)
        status: I64 = screen(batch.status, at, received, self.horizon_ms, topic != Topic.ASSIGNMENTS)
        self._store.room_for_hours(hours_in(received))
        ledger_rows, hours = ledger_rows_of(self._store.tables(), int(topic), received)
        take = (self._take_assignments, self._take_impressions, self._take_interactions)[topic]
        take(batch, at, status, ledger_rows, hours)
        newest = count_outcomes(self._store.tables(), ledger_rows, status, batch.misrouted, at)
        self.newest[topic] = max(self.newest[topic], newest)
        self._emitter.add_dead_letters(batch, status)
        return status

    def _account(self, batch: Batch, status: I64) -> None:
        """Count what became of a batch's records: nearly all are counted, so the others are looked at alone."""
        others = np.flatnonzero(status)
        self._tally(batch.topic, 0, len(batch) - len(others))
        if len(others):
            outcomes = np.bincount(status[others] - UNCOUNTED)
            for place in np.flatnonzero(outcomes).tolist():
                self._tally(batch.topic, place + UNCOUNTED, int(outcomes[place]))
            self._count_troubles(batch, others, status[others])

    def _tally(self, topic: Topic, status: int, count: int) -> None:
        """Count outcomes of this step's records, for metrics; the ledger counts by hour and restates."""
        if count:
            tally = topic.word, *outcome_of(status)
            self._tallies[tally] = self._tallies.get(tally, 0) + count

    def _count_troubles(self, batch: Batch, others: I64, status: I64) -> None:
        """Count late, repeated and readable rejected events at the arms their users are in, as far as known now.

        others: rows of the batch; status: theirs.
        """
        at, user_ids = self._column(batch, "at"), self._column(batch, "user_id")
        for kind, chosen in (
            (T_LATE, status == LATE),
            (T_DUPLICATE, status == DUPLICATE),
            (T_REJECTED, is_readable(status)),
        ):
            rows = others[chosen]
            if len(rows):
                ids = hash_texts(batch.buf, user_ids[rows], np.zeros(len(rows), np.int64), self._key)
                count_troubles(self._store.tables(), ids, at[rows], kind)

    def _column(self, batch: Batch, field: str) -> I64:
        return np.ascontiguousarray(batch.fields[:, FIELDS[batch.topic].index(field)])

    def _hash(self, batch: Batch, field: str, status: I64) -> Any:
        return hash_texts(batch.buf, self._column(batch, field), status, self._key)

    def _users_of_new(self, batch: Batch, status: I64) -> I64:
        self._store.room_for_ids(len(batch))
        dedupe(self._store.tables(), self._hash(batch, "event_id", status), status, int(batch.topic))
        self._store.room_for_users(len(batch))
        users: I64 = encode_users(self._store.tables(), self._hash(batch, "user_id", status), status)
        return users

    def _take_assignments(self, batch: Batch, at: I64, status: I64, ledger_rows: I64, hours: I64) -> None:
        experiments, arms = self._arms_of(batch, status)
        users = self._users_of_new(batch, status)
        slices = np.zeros(len(batch), np.int64)
        for place, dimension in enumerate(USER_DIMENSIONS):
            codes = self._dictionary(f"user.{dimension}").encode(
                batch.buf, self._column(batch, dimension), status
            )
            slices |= codes << (10 * place)
        event_ids = self._column(batch, "event_id")
        id_bytes = int((-(-(event_ids[status == 0] & TEXT_MASK) // UNIT) * UNIT).sum())
        self._store.room_for_assignments(len(batch), id_bytes)
        pre_values = self._column(batch, "pre_value")
        self._run(
            apply_assignments, status, users, experiments, arms, at, batch.buf, event_ids, slices,
            np.where(pre_values == NULL, 0, pre_values), *self._held_before(at),
        )  # fmt: skip

    def _held_before(self, at: I64) -> tuple[I64, I64, int]:
        """By row, how many of the oldest impressions and interactions are before it; and before when no event is."""
        rings = self._segments["impressions"], self._segments["interactions"]
        settled = min(self.horizon_ms, *(segments.oldest_ms(self.horizon_ms) for segments in rings))
        if not len(self._store.a["turns"]):  # only as_of asks
            return np.zeros(len(at), np.int64), np.zeros(len(at), np.int64), settled
        return rings[0].rows_before(at), rings[1].rows_before(at), settled

    def _arms_of(self, batch: Batch, status: I64) -> tuple[I64, I64]:
        """Numbers of experiment and arm by row; rejects rows whose arm cannot be."""
        experiments = np.zeros(len(batch), np.int64)
        arms = np.zeros(len(batch), np.int64)
        going_on = np.flatnonzero(status == 0)
        texts = self._column(batch, "experiment"), self._column(batch, "arm")
        named = self._hash(batch, "experiment", status)[going_on, 0]
        pairs = named ^ mix_all(self._hash(batch, "arm", status)[going_on, 0])
        _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")  # numbers are given in the order of arrival
        found = np.zeros((len(first), 3), np.int64)
        for place in order:
            i = going_on[first[place]]
            found[place] = self.experiments.arm_of(text_at(batch, texts[0][i]), text_at(batch, texts[1][i]))
        experiments[going_on] = found[inverse, 0]
        arms[going_on] = found[inverse, 1]
        status[going_on] = found[inverse, 2]
        return experiments, arms

    def _take_impressions(self, batch: Batch, at: I64, status: I64, ledger_rows: I64, hours: I64) -> None:
        users = self._users_of_new(batch, status)
        codes = np.zeros((len(batch), MAX_DIMENSIONS + 1), np.int64)
        for place, dimension in enumerate(self.definitions.slice_dimensions):
            column = self._column(batch, dimension)
            codes[:, place] = self._dictionary(dimension).encode(batch.buf, column, status)
        codes[:, MAX_DIMENSIONS] = self._dictionary("surface").encode(
            batch.buf, self._column(batch, "surface"), status
        )
        self._store.room_for_combos(len(batch))
        combos = encode_combos(self._store.tables(), codes, status)
        self._store.room_for_impressions(len(batch))
        ids, items = self._hash(batch, "impression_id", status), self._hash(batch, "item_id", status)
        self._run(
            apply_impressions, status, users, at, ids, items, combos,
            whole_latencies(self._column(batch, "latency_ms"), status), hours,
        )  # fmt: skip

    def _take_interactions(self, batch: Batch, at: I64, status: I64, ledger_rows: I64, hours: I64) -> None:
        users = self._users_of_new(batch, status)
        impression_ids, item_ids = self._column(batch, "impression_id"), self._column(batch, "item_id")
        refers = np.where(
            impression_ids != NULL, BY_IMPRESSION, np.where(item_ids != NULL, BY_ITEM, BY_NOTHING)
        )
        words = self._dictionary("kind").encode(batch.buf, self._column(batch, "kind"), status)
        currencies = self._dictionary("currency").encode(batch.buf, self._column(batch, "currency"), status)
        given = self._column(batch, "value_minor")
        values = np.where(given == NULL, 0, given)
        self._store.room_for_interactions(len(batch))
        ids, items = self._hash(batch, "impression_id", status), self._hash(batch, "item_id", status)
        self._run(
            apply_interactions, status, users, at, ids, items, refers, words, self._kinds()[words], values, currencies,
            ledger_rows, hours,
        )  # fmt: skip

    def _kinds(self) -> I64:
        """What each code of a kind means."""
        classes = np.zeros(CODES, np.int64)
        classes[self._dictionary("kind").code_of(CLICK_KIND)] = CLICK
        for kind in self.definitions.conversion_kinds:
            classes[self._dictionary("kind").code_of(kind)] |= CONVERSION
        return classes

    def _improve(self, first: int) -> None:
        """Credit interactions by item to better ones of the step's impressions, the ring's rows from `first` on."""
        row, stop = first, int(self._store.m[IMPS])
        if self._store.m[ITEM_WATCHES]:
            while (row := improve_by_item(self._store.tables(), row, stop)) < stop:
                self._make_room()

    def _run(self, kernel: Callable[..., int], status: I64, *columns: Any) -> None:
        """Call a kernel until all rows are done, making the room it asks for in between."""
        row = 0
        while True:
            row = kernel(self._store.tables(), row, status, *columns)
            if row < 0:
                row -= int(NEED_ITEMS)
                self._store.room_for_item_index()
                index_items(self._store.tables())
            elif row >= len(status):
                return
            else:
                self._make_room()

    def _make_room(self) -> None:
        """Make the room that a kernel asked for."""
        m = self._store.m
        self._store.room_for_cells(int(m[NEED_CELLS]))
        self._store.room_for_hours(int(m[NEED_HOURS]))
        self._store.room_for_touched(int(m[NEED_TOUCHED]))

    # ---- snapshots

    def export(self) -> dict[str, Rows]:
        """The whole state as tables by name, valid until the next step; `meta` is JSON."""
        meta = {
            "version": ENGINE_VERSION,
            "step": self.step,
            "clock_ms": self.clock_ms,
            "horizon_ms": self.horizon_ms,
            "newest_ms": self.newest,
            "definitions": self.definitions.to_json().decode(),
            "segment_ms": self._segment_ms,
            "names": {name: names.names for name, names in self._names.items()},
            "experiments": self.experiments.export(),
            "emitter": self._emitter.meta(),
        }
        tables = export_tables(self._store) | self._emitter.export()
        tables |= {f"segments.{ring}": segments.export() for ring, segments in self._segments.items()}
        tables["meta"] = flat(np.frombuffer(bytearray(json.dumps(meta).encode()), np.uint8))
        return tables

    @classmethod
    def load(
        cls, export: Mapping[str, Rows], *, key: bytes, partition: int, partitions: int,
        definitions: Definitions,
    ) -> Self:  # fmt: skip
        """The engine that an `export` of this version or an earlier one describes; the key must be that one's."""
        export = upgraded(export)
        meta = json.loads(bytes(export["meta"].joined))
        exported = Definitions.from_json(meta["definitions"].encode())
        engine = cls(key=key, partition=partition, partitions=partitions, definitions=exported)
        engine.step, engine.clock_ms, engine.horizon_ms = meta["step"], meta["clock_ms"], meta["horizon_ms"]
        engine.newest = list(meta["newest_ms"])
        engine._segments = {ring: Segments(export[f"segments.{ring}"]) for ring in RINGS}
        engine._segment_ms = meta["segment_ms"]
        engine._store = load_tables(export)
        engine._names = {
            name: Names(MAX_CURRENCIES if name == "currency" else MAX_SLICE_VALUES, engine._key, names)
            for name, names in meta["names"].items()
        }
        engine._prepare()
        engine.experiments.restore(meta["experiments"])
        engine.experiments.define(exported)
        engine._emitter.restore(export, meta["emitter"])
        if meta.get("recount"):
            engine._emitter.recount(engine.step + 1)
        return engine


def outcome_of(status: int) -> tuple[str, str]:
    """(outcome, reason) of a record's final status, in the words of the ledger."""
    if status > 0:
        return Outcome.REJECTED.name.lower(), Reason(status & 255).word
    outcome = {0: Outcome.COUNTED, DUPLICATE: Outcome.DUPLICATE, LATE: Outcome.LATE, OUTSIDE: Outcome.OUTSIDE}
    return outcome[status].name.lower(), ""


def text_at(batch: Batch, packed: int) -> str:
    """One text of a batch."""
    start, length = int(packed) >> TEXT_SHIFT, int(packed) & TEXT_MASK
    return bytes(batch.buf[start : start + length]).decode("utf-8", "replace")


def mix_all(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """`primitives.mix` of each key: without it the pairs (a, b) and (b, a) would be one."""
    k = keys ^ (keys >> np.uint64(33))
    k = k * np.uint64(0xFF51AFD7ED558CCD)
    k = k ^ (k >> np.uint64(33))
    k = k * np.uint64(0xC4CEB9FE1A85EC53)
    mixed: npt.NDArray[np.uint64] = k ^ (k >> np.uint64(33))
    return mixed
