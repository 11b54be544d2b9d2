"""The arrays of the state with their growth and expiry: no rule of counting lives here."""

from typing import Any

import numpy as np
import numpy.typing as npt

from stream import heap
from stream.contracts.limits import MAX_ARMS, MAX_PHASES
from stream.engine.event_ids import UNIT, UUID, UUID_BYTES
from stream.engine.frame import Tables
from stream.engine.gone import number_users, pack_event_ids, renumber_users
from stream.engine.index import (
    LINK_MASK,
    MAX_LOAD,
    grown,
    grown_ring,
    pair_slots,
    power_of_two,
    rebuild,
    slots_for,
)
from stream.engine.layout import (
    ALWAYS,
    ARENA,
    AS_OF,
    ASG,
    ASG_FREE,
    ASSIGNED,
    COMBOS,
    DECLARED,
    EXPOSURE,
    IDS,
    IDS_BASE,
    IDS_USED,
    IMP_BASE,
    IMPRESSION,
    IMPS,
    IMPS_USED,
    INT_BASE,
    INTERACTION,
    INTS,
    ITEMS_ON,
    ITEMS_USED,
    LEDGER,
    LEDGER_COLUMNS,
    NODE,
    SCRATCH,
    SEEN,
    SEEN_ROWS,
    TOUCHED,
    TROUBLES,
    TURN,
    USER,
    USERS,
    USERS_USED,
    WATCH_USED,
)
from stream.engine.marks import MARKED, AddedRows, Marks
from stream.engine.pages import growing_zeros, zeros
from stream.engine.rows import SMALL, capacity_for

Array = npt.NDArray[Any]
MUCH_BYTES = 16 << 20  # given back at once, by
LARGE_BYTES = 512 << 20  # of state: clearing memory anew costs more than a smaller one keeps
KEPT_USERS = 0.75  # with fewer of them left, gone users are dropped before the table grows
KEPT_ID_BYTES = 0.75  # the same of the bytes of assignments' event_ids


class Store:
    """Named arrays `a` and counters `m`; `tables()` is what kernels get. Kernels never grow anything."""

    def __init__(self, arrays: dict[str, Array] | None = None) -> None:
        """Empty, or with these arrays in place of the empty ones."""
        self.a: dict[str, Array] = {}
        self.marks: dict[str, Marks] = {}
        self._added = AddedRows()
        self._tables = Tables()
        self._replaced_bytes = 0
        self.put(**_empty() | (arrays or {}))

    @property
    def m(self) -> npt.NDArray[np.int64]:
        """The counters."""
        return self.a["m"]

    def tables(self) -> Tables:
        """The arrays as kernels take them: always the same object."""
        return self._tables

    def put(self, **arrays: Array) -> None:
        """Replace arrays."""
        for name, array in arrays.items():
            old = self.a.get(name)
            if old is not None and old.ctypes.data != array.ctypes.data:  # else it has grown where it is
                self._replaced_bytes += old.nbytes
            self._set(name, array)
            if name in MARKED:
                self.marks[name] = Marks(array)
                if MARKED[name]:
                    self._set(MARKED[name], self.marks[name].blocks)

    def _set(self, name: str, array: Array) -> None:
        self.a[name] = array
        self._tables.put(name, array)

    def give_back(self) -> None:
        """Let the system have the memory of arrays that were replaced, when it is much."""
        if self._replaced_bytes >= MUCH_BYTES and self.nbytes >= LARGE_BYTES:
            self._replaced_bytes = 0
            heap.give_back()

    def mark_added(self) -> None:
        """Mark the rows that were added since the last call."""
        self._added.mark(self.m, self.marks, self.a)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.a.values())

    # ---- room

    def room_for_users(self, rows: int) -> None:
        """Make room for so many new users."""
        if int(self.m[USERS]) + rows + 2 > len(self.a["users"]):
            self._forget_gone_users()
        need = int(self.m[USERS]) + rows + 2
        if need > len(self.a["users"]):
            capacity = power_of_two(need)
            users = grown(self.a["users"], capacity)
            users["assigned"][len(self.a["users"]) :] = -1
            self.put(
                users=users, **{name: grown(self.a[name], capacity) for name in ("user_keys", "user_tags")}
            )
        self._room_in_slots("user_slots", USERS_USED, 1, int(self.m[USERS]), rows)

    def room_for_ids(self, rows: int) -> None:
        """Make room for so many new event ids."""
        self._room_in_ring(("id_keys", "id_tags"), IDS_BASE, IDS, rows)
        self._room_in_slots("id_slots", IDS_USED, int(self.m[IDS_BASE]), int(self.m[IDS]), rows)

    def room_for_impressions(self, rows: int) -> None:
        """Make room for so many new impressions."""
        nodes = ["imp_nodes"] if self.m[ITEMS_ON] else []
        self._room_in_ring(("imps", "imp_keys", "imp_tags", *nodes), IMP_BASE, IMPS, rows)
        base, count = int(self.m[IMP_BASE]), int(self.m[IMPS])
        self._room_in_slots("imp_slots", IMPS_USED, base, count, rows)
        if self.m[ITEMS_ON]:
            self._room_in_slots("item_slots", ITEMS_USED, base, count, rows)

    def room_for_item_index(self) -> None:
        """Make room for the indexes by user and item of all held rows."""
        for nodes, rows in (("imp_nodes", "imps"), ("int_nodes", "ints")):
            self.put(**{nodes: growing_zeros((len(self.a[rows]),), NODE)})
        self._room_in_slots(
            "item_slots", ITEMS_USED, int(self.m[IMP_BASE]), int(self.m[IMPS]), int(self.m[IMPS])
        )

    def room_for_interactions(self, rows: int) -> None:
        """Make room for so many new interactions."""
        nodes = ["int_nodes"] if self.m[ITEMS_ON] else []
        self._room_in_ring(("ints", "int_keys", "int_tags", *nodes), INT_BASE, INTS, rows)
        self._room_in_slots("watch_slots", WATCH_USED, int(self.m[INT_BASE]), int(self.m[INTS]), rows)

    def room_for_assignments(self, rows: int, id_bytes: int) -> None:
        """Make room for so many new assignments with event_ids of so many bytes together."""
        if int(self.m[ASG]) + rows > len(self.a["assigned"]):
            self.put(assigned=grown(self.a["assigned"], power_of_two(int(self.m[ASG]) + rows)))
        if int(self.m[ARENA]) + id_bytes > len(self.a["arena"]):
            self._drop_dead_event_ids()
        if int(self.m[ARENA]) + id_bytes > len(self.a["arena"]):
            self.put(arena=grown(self.a["arena"], power_of_two(int(self.m[ARENA]) + id_bytes)))
        self.room_for_declared()
        self.room_for_turns()

    def room_for_turns(self) -> None:
        """Let every assignment have its place among the user's turns, if any experiment is under as_of."""
        if len(self.a["turns"]) < len(self.a["assigned"]) and (self.a["policy"] == AS_OF).any():
            self.put(turns=grown(self.a["turns"], len(self.a["assigned"])))

    def room_for_declared(self) -> None:
        """Give every assignment a row of declared quantities, if any experiment declares some or ever did."""
        if not (self.a["feeds"].any() or len(self.a["declared"])):
            return
        for name, beside in (("declared", "assigned"), ("before_declared", "before")):
            if len(self.a[name]) < len(self.a[beside]):
                self.put(**{name: grown(self.a[name], len(self.a[beside]))})

    def room_for_touched(self, rows: int) -> None:
        """Make room for so many more assignments changed in this step."""
        need = int(self.m[TOUCHED] + self.m[SEEN_ROWS]) + rows
        if need > len(self.a["before"]):
            names = (
                "before",
                "before_row",
                "seen",
                "exposing",
                *(["before_declared"] if len(self.a["declared"]) else []),
            )
            self.put(**{name: grown(self.a[name], power_of_two(need)) for name in names})

    def room_for_combos(self, rows: int) -> None:
        """Make room for so many new combinations of slice values."""
        need = int(self.m[COMBOS]) + rows
        if need > len(self.a["combo_keys"]):
            self._grow_pairs("combo", int(self.m[COMBOS]), need, ("combo_surface",))

    def room_for_hours(self, rows: int) -> None:
        """Make room for so many new hours of the ledger."""
        need = int(self.m[LEDGER]) + rows
        if need > len(self.a["ledger_keys"]):
            self._grow_pairs(
                "ledger", int(self.m[LEDGER]), need, ("ledger", "ledger_touched", "ledger_fragment")
            )

    def room_for_cells(self, rows: int) -> None:
        """Make room for so many more panes touched in this step."""
        need = int(self.m[SCRATCH]) + rows
        if need > len(self.a["scratch_keys"]):
            self._grow_pairs("scratch", int(self.m[SCRATCH]), need, ("scratch",))

    def _grow_pairs(self, name: str, count: int, need: int, values: tuple[str, ...]) -> None:
        capacity = power_of_two(need)
        keys = grown(self.a[f"{name}_keys"], capacity)
        self.put(**{f"{name}_keys": keys, f"{name}_slots": pair_slots(keys, count, 2 * capacity)})
        self.put(**{value: grown(self.a[value], capacity) for value in values})

    def _room_in_ring(self, names: tuple[str, ...], base: int, count: int, rows: int) -> None:
        need = int(self.m[count]) + rows + 2
        if need > len(self.a[names[0]]):
            capacity = power_of_two(need)
            old_base, old_count = int(self.m[base]), int(self.m[count])
            self.put(**{name: grown_ring(self.a[name], capacity, old_base, old_count) for name in names})

    def _room_in_slots(self, name: str, used: int, base: int, count: int, rows: int) -> None:
        slots = self.a[name]
        if int(self.m[used]) + rows <= MAX_LOAD * len(slots):
            return
        most = min(int(self.m[used]), count)  # of what is live
        larger = zeros(max(len(slots), slots_for(most + rows)), np.uint64)
        self.m[used] = rebuild(slots, larger, base, count)
        self.put(**{name: larger})

    # ---- expiry

    def close_hours(self, keep: npt.NDArray[np.bool_]) -> None:
        """Drop all rows of the ledger but those to keep (bool, one per row)."""
        rows = np.flatnonzero(keep)
        for name in ("ledger_keys", "ledger", "ledger_touched", "ledger_fragment"):
            self.a[name][: len(rows)] = self.a[name][rows]
        self.m[LEDGER] = len(rows)
        self.put(ledger_slots=pair_slots(self.a["ledger_keys"], len(rows), len(self.a["ledger_slots"])))

    def _forget_gone_users(self) -> None:
        """Drop users without assignment and held event, if they are many; the others get new numbers."""
        numbers, kept = number_users(self.tables())
        if kept > KEPT_USERS * int(self.m[USERS]):
            return
        renumber_users(self.tables(), numbers)
        for name in ("user_keys", "user_tags", "imps", "ints"):
            self.marks[name].set_all()
        self.m[USERS] = kept
        slots = zeros(len(self.a["user_slots"]), np.uint64)
        self.m[USERS_USED] = rebuild(self.a["user_slots"], slots, 1, kept)
        self.put(user_slots=slots)

    def _drop_dead_event_ids(self) -> None:
        """Drop the event_ids of assignments that are gone or were replaced, if they are many."""
        rows = self.a["assigned"][: int(self.m[ASG])]
        lengths = rows["id_len"][rows["experiment"] >= 0].astype(np.int64)
        kept = int(np.where(lengths == UUID, UUID_BYTES, -(-lengths // UNIT) * UNIT).sum())
        if kept > KEPT_ID_BYTES * int(self.m[ARENA]):
            return
        arena = growing_zeros((capacity_for(kept),), np.uint8)
        pack_event_ids(rows["id_pos"].astype(np.int64) * UNIT, rows, self.a["arena"], arena)
        self.marks["assigned"].set_all()
        self.m[ARENA] = kept
        self.put(arena=arena)

    def forget(self, base: int, count: int, rows: int) -> None:
        """The oldest `rows` rows of a ring leave."""
        self.m[base] = (int(self.m[base]) + rows) & LINK_MASK
        self.m[count] -= rows


def _empty() -> dict[str, Array]:
    m = np.zeros(32, np.int64)
    m[[IDS_BASE, IMP_BASE, INT_BASE]] = 1
    m[ASG_FREE] = -1
    m[COMBOS] = 1  # combination 0: all dimensions unknown
    users = np.zeros(SMALL, USER)
    users["assigned"] = -1
    a: dict[str, Array] = {
        "m": m,
        "users": users,
        "imps": np.zeros(SMALL, IMPRESSION),
        "imp_nodes": np.zeros(0, NODE),
        "ints": np.zeros(SMALL, INTERACTION),
        "int_nodes": np.zeros(0, NODE),
        "assigned": np.zeros(SMALL, ASSIGNED),
        "turns": np.zeros(0, TURN),
        "declared": np.zeros((0, 2 * DECLARED), np.int64),
        "before": np.zeros(SMALL, ASSIGNED),
        "before_declared": np.zeros((0, 2 * DECLARED), np.int64),
        "before_row": np.zeros(SMALL, np.int32),
        "seen": np.zeros(SMALL, SEEN),
        "exposing": np.zeros(SMALL, EXPOSURE),
        "arena": np.zeros(SMALL, np.uint8),
        "scratch": np.zeros((SMALL, 6), np.int64),
        "ledger": np.zeros((SMALL, LEDGER_COLUMNS), np.int64),
        "ledger_touched": np.zeros(SMALL, np.int64),
        "ledger_fragment": np.zeros(SMALL, np.int64),
        "combo_surface": np.zeros(SMALL, np.int32),
        "policy": np.zeros(16, np.int8),
        "frozen": np.zeros(16, np.int8),
        "ends_at": np.zeros(16, np.int64),
        "currency": np.zeros(16, np.int32),
        "has_surfaces": np.zeros(16, np.int8),
        "surfaces": np.zeros((16, 1024), np.int8),
        "phases": np.full((16, MAX_PHASES), ALWAYS, np.int64),
        "cap": np.full(16, ALWAYS, np.int64),
        "foretold": np.zeros(16, np.int8),
        "feeds": np.zeros((16, 1024), np.uint8),
        "feeds_from": np.full((16, DECLARED), -1, np.int64),
        "troubles": np.zeros((16, MAX_ARMS * TROUBLES), np.int64),
        "troubled": np.zeros(16, np.int8),
        "declaring": np.zeros(16, np.int8),
    }
    for name in ("user", "id", "imp", "int"):
        a[f"{name}_keys"] = np.zeros(SMALL, np.uint64)
        a[f"{name}_tags"] = np.zeros(SMALL, np.uint32)
    for name in ("user", "id", "imp", "item", "watch"):
        a[f"{name}_slots"] = np.zeros(2 * SMALL, np.uint64)
    for name in ("scratch", "ledger", "combo"):
        keys = np.zeros((SMALL, 2), np.int64)
        a[f"{name}_keys"] = keys
        a[f"{name}_slots"] = pair_slots(keys, 1 if name == "combo" else 0, 2 * SMALL)
    return a
