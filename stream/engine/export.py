"""The state's tables as an export has them, and back: only rows in use, and nothing that follows from other rows.

Slots of indexes change at random places with every event, and so do a user's newest impression and interaction. All
of them are made anew from the rows, so that an export changes only where something was added or counted.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from stream.engine.index import next_link, pair_slots, slots_for, slots_of_rows
from stream.engine.items import index_items
from stream.engine.layout import (
    ARENA,
    ASG,
    BY_IMPRESSION,
    COMBOS,
    IDS,
    IDS_BASE,
    IDS_USED,
    IMP_BASE,
    IMPS,
    IMPS_USED,
    INT_BASE,
    INTS,
    ITEMS_ON,
    ITEMS_USED,
    LEDGER,
    USER,
    USERS,
    USERS_USED,
    WATCH_USED,
)
from stream.engine.pages import growing_zeros, zeros
from stream.engine.rows import Array, Rows, capacity_for, flat, of_ring, ring_of, table_of
from stream.engine.tables import Store
from stream.engine.turns import index_turns

RINGS: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (IDS_BASE, IDS, ("id_keys", "id_tags")),
    (IMP_BASE, IMPS, ("imps", "imp_keys", "imp_tags")),
    (INT_BASE, INTS, ("ints", "int_keys", "int_tags")),
)
FLAT: tuple[tuple[int, tuple[str, ...]], ...] = (
    (USERS, ("user_keys", "user_tags")),  # and row 0, which is nobody's
    (ASG, ("assigned", "declared")),
    (ARENA, ("arena",)),
    (COMBOS, ("combo_keys", "combo_surface")),
    (LEDGER, ("ledger_keys", "ledger", "ledger_touched", "ledger_fragment")),
)
WHOLE = (
    "m", "policy", "frozen", "ends_at", "currency", "has_surfaces", "surfaces", "phases", "cap", "foretold", "feeds",
    "feeds_from", "troubles", "troubled", "declaring",
)  # fmt: skip
PREFIX = "state."


def export_tables(store: Store) -> dict[str, Rows]:
    """Views of the rows in use, valid until the next step."""
    a, m = store.a, store.m
    tables = {name: flat(a[name]) for name in WHOLE}
    for counter, names in FLAT:
        rows = int(m[counter]) + (1 if counter == USERS else 0)
        tables |= {name: flat(a[name][:rows], store.marks.get(name)) for name in names}
    for base, count, names in RINGS:
        tables |= {name: of_ring(a[name], int(m[base]), int(m[count]), store.marks[name]) for name in names}
    tables["assignments"] = flat(np.ascontiguousarray(a["users"]["assigned"][: int(m[USERS]) + 1]))
    return {PREFIX + name: rows for name, rows in tables.items()}


def load_tables(export: Mapping[str, Rows]) -> Store:
    """A store with the tables of an export."""
    rows = {name.removeprefix(PREFIX): table for name, table in export.items() if name.startswith(PREFIX)}
    arrays = {name: rows[name].joined.copy() for name in WHOLE}
    for _, names in FLAT:
        arrays |= {name: table_of(rows[name]) for name in names}
    for _, _, names in RINGS:
        arrays |= {name: ring_of(rows[name]) for name in names}
    arrays["users"] = _users(rows["assignments"].joined)
    if not len(rows["declared"].joined):  # no experiment declares anything, or nobody is assigned
        arrays["declared"] = rows["declared"].joined.copy()
    for name, counter in (("combo", COMBOS), ("ledger", LEDGER)):
        keys = arrays[f"{name}_keys"]
        arrays[f"{name}_slots"] = pair_slots(keys, int(arrays["m"][counter]), 2 * len(keys))
    store = Store(arrays)
    store.room_for_declared()
    store.room_for_turns()
    if len(store.a["turns"]):
        index_turns(store.tables())
    _index(store)
    if store.m[ITEMS_ON]:
        store.m[ITEMS_USED] = 0
        store.room_for_item_index()
        index_items(store.tables())
    return store


def _users(assigned: Array) -> Array:
    users = growing_zeros((capacity_for(len(assigned)),), USER)
    users["assigned"] = -1
    users["assigned"][: len(assigned)] = assigned
    return users


def _index(store: Store) -> None:
    """Make anew the slots of all ids and what users know, on all cores: none of it depends on another."""
    m = store.m
    tables = (
        ("id", int(m[IDS_BASE]), int(m[IDS]), "id_slots", IDS_USED),
        ("imp", int(m[IMP_BASE]), int(m[IMPS]), "imp_slots", IMPS_USED),
        ("user", 1, int(m[USERS]), "user_slots", USERS_USED),
        ("int", int(m[INT_BASE]), int(m[INTS]), "watch_slots", WATCH_USED),
    )
    with ThreadPoolExecutor() as pool:
        found = [pool.submit(_slots, store, name, base, count) for name, base, count, _, _ in tables]
        linked = pool.submit(link_users, store.tables())
        for (*_, name, used), future in zip(tables, found, strict=True):
            slots, m[used] = future.result()
            store.put(**{name: slots})  # link_users reads the same frame meanwhile, but no slots
        linked.result()


def _slots(store: Store, name: str, base: int, count: int) -> tuple[Array, int]:
    only = np.zeros(0, np.bool_)  # all
    if name == "int":  # those that name an item: index_items
        only = (store.a["ints"]["watches"] != 0) & (store.a["ints"]["refers"] == BY_IMPRESSION)
    tags, keys = store.a[f"{name}_tags"], store.a[f"{name}_keys"]
    slots = zeros(slots_for(count), np.uint64)
    return slots, int(slots_of_rows(tags, keys, only, base, count, slots))


@njit(cache=True, nogil=True)
def link_users(t):
    """Let every user know the newest impression and interaction."""
    for k in range(t.m[IMPS]):
        link = next_link(t.m[IMP_BASE], k)
        if link != 0:
            t.users[t.imps[link & (t.imps.shape[0] - 1)].user].impression = link
    for k in range(t.m[INTS]):
        link = next_link(t.m[INT_BASE], k)
        if link != 0:
            t.users[t.ints[link & (t.ints.shape[0] - 1)].user].interaction = link
