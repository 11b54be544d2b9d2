"""Exports of earlier engine versions, brought up to the present one step by step."""

import json
from collections.abc import Callable, Mapping

import numpy as np

from stream.engine import ENGINE_VERSION
from stream.engine.export import FLAT, PREFIX, RINGS, WHOLE
from stream.engine.index import LINK_MASK
from stream.engine.layout import IDS, IDS_BASE, IMP_BASE, IMPS, INT_BASE, INTERACTION, INTS, USERS
from stream.engine.rows import Array, Rows, flat, of_ring
from stream.engine.segments import SEGMENT

Export = Mapping[str, Rows]


def upgraded(export: Export) -> Export:
    """The same state as the present version exports it. Raises ValueError for one of a later version."""
    version = json.loads(bytes(export["meta"].joined)).get("version", 1)
    if version > ENGINE_VERSION:
        raise ValueError(f"an export of engine version {version} is newer than {ENGINE_VERSION}")
    for upgrade in UPGRADES[version - 1 :]:
        export = upgrade(export)
    return export


def _from_1(export: Export) -> Export:
    """Version 1 exported whole tables with their slots, and the steps of the rings inside `meta`."""
    old = {name: rows.joined for name, rows in export.items()}
    a = {name.removeprefix(PREFIX): array for name, array in old.items() if name.startswith(PREFIX)}
    m = a["m"]
    users = int(m[USERS])
    a["ints"] = _with_watches(a["ints"], a["watch_slots"], int(m[INT_BASE]), int(m[INTS]))
    a["user_tags"] = _tags(a["user_slots"], len(a["user_keys"]), 1, users)
    for name, slots, base, count in (
        ("id", "id_slots", IDS_BASE, IDS), ("imp", "imp_slots", IMP_BASE, IMPS), ("int", "watch_slots", INT_BASE, INTS),
    ):  # fmt: skip
        a[f"{name}_tags"] = _tags(a[slots], len(a[f"{name}_keys"]), int(m[base]), int(m[count]))
    # Of interactions that wait for one id the slot has the newest: the others share its tag.
    _spread_tags(a["int_tags"], a["ints"], int(m[INT_BASE]), int(m[INTS]))
    new = {name: flat(a[name]) for name in WHOLE}
    for counter, names in FLAT:
        new |= {name: flat(a[name][: int(m[counter]) + (1 if counter == USERS else 0)]) for name in names}
    for base, count, names in RINGS:
        new |= {name: of_ring(a[name], int(m[base]), int(m[count])) for name in names}
    new["assignments"] = flat(np.ascontiguousarray(a["users"]["assigned"][: users + 1]))
    out = {PREFIX + name: rows for name, rows in new.items()}
    meta = json.loads(bytes(old["meta"]))
    for ring, segments in meta.pop("segments").items():
        out[f"segments.{ring}"] = flat(np.array([tuple(s) for s in segments], SEGMENT))
    meta["version"] = 2
    out["meta"] = flat(np.frombuffer(bytearray(json.dumps(meta).encode()), np.uint8))
    kept = (name for name in old if not name.startswith(PREFIX) and name != "meta")
    return out | {name: flat(old[name]) for name in kept}


def _live(slots: Array, base: int, count: int) -> tuple[Array, Array]:
    """(links, tags) of the slots whose rows are alive."""
    links = (slots & np.uint64(LINK_MASK)).astype(np.int64)
    live = (slots != 0) & (((links - base) & LINK_MASK) < count)
    return links[live], (slots[live] >> np.uint64(32)).astype(np.uint32)


def _tags(slots: Array, rows: int, base: int, count: int) -> Array:
    links, tags = _live(slots, base, count)
    out = np.zeros(rows, np.uint32)
    out[links & (rows - 1)] = tags
    return out


def _with_watches(old: Array, slots: Array, base: int, count: int) -> Array:
    ints = np.zeros(len(old), INTERACTION)
    for name in INTERACTION.names or ():
        if name != "watches":
            ints[name] = old[name]
    links, _ = _live(slots, base, count)
    while len(links):
        ints["watches"][links & (len(ints) - 1)] = 1
        links = ints["watch"][links & (len(ints) - 1)].astype(np.int64)
        links = links[(links != 0) & (((links - base) & LINK_MASK) < count)]
    return ints


def _spread_tags(tags: Array, ints: Array, base: int, count: int) -> None:
    mask = len(ints) - 1
    for k in reversed(range(count)):
        p = (base + k) & mask
        older = int(ints["watch"][p])
        if ints["watches"][p] and older and ((older - base) & LINK_MASK) < count:
            tags[older & mask] = tags[p]


UPGRADES: tuple[Callable[[Export], Export], ...] = (_from_1,)
