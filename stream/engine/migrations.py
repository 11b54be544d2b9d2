"""Exports of earlier engine versions, brought up to the present one step by step."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stream.contracts.limits import MAX_ARMS, MAX_PHASES
from stream.engine import ENGINE_VERSION
from stream.engine.event_ids import UNIT
from stream.engine.export import FLAT, PREFIX, RINGS, WHOLE
from stream.engine.gone import pack_event_ids
from stream.engine.index import LINK_MASK
from stream.engine.layout import (
    ALWAYS,
    ARENA,
    AS_OF,
    ASSIGNED,
    DECLARED,
    EARLIEST,
    IDS,
    IDS_BASE,
    IMP_BASE,
    IMPRESSION,
    IMPS,
    INT_BASE,
    INTERACTION,
    INTS,
    TOUCHED,
    TROUBLES,
    UNKNOWN_TROUBLED,
    UNKNOWN_TROUBLES,
    USERS,
)  # fmt: skip
from stream.engine.moments import MOMENTS
from stream.engine.outputs import COHORTS
from stream.engine.rows import Array, Rows, flat, of_ring
from stream.engine.segments import SEGMENT, UNKNOWN_MS

Export = Mapping[str, Rows]
ASSIGNED_OF_VERSION_5 = np.dtype(
    [("at", "i8"), ("exposed_at", "i8"), ("revenue", "i8"), ("early_revenue", "i8"), ("pre_value", "i8"),
     ("latency", "i8"), ("id_pos", "i8"), ("next", "i4"), ("own", "i4"), ("ea", "i4"), ("slice", "i4"),
     ("touched", "i4"), ("impressions", "i4"), ("clicked", "i4"), ("converted", "i4"), ("timed", "i4"),
     ("clicks", "i4"), ("conversions", "i4"), ("early_clicks", "i4"), ("early_conversions", "i4"),
     ("mixed_events", "i4"), ("before", "i4"), ("foreign", "i4"), ("days", "u4"), ("exposed_days", "u4"),
     ("id_len", "i4"), ("experiment", "i2"), ("phase", "i1"), ("flags", "i1")]
)  # fmt: skip
IMPRESSION_OF_VERSION_4 = np.dtype([*IMPRESSION.descr, ("outside", "i4")])


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
    new = {name: flat(a[name]) for name in WHOLE if name in a}
    for counter, names in FLAT:
        rows = int(m[counter]) + (1 if counter == USERS else 0)
        new |= {name: flat(a[name][:rows]) for name in names if name in a}
    for base, count, names in RINGS:
        new |= {name: of_ring(a[name], int(m[base]), int(m[count])) for name in names}
    new["assignments"] = flat(np.ascontiguousarray(a["users"]["assigned"][: users + 1]))
    out = {PREFIX + name: rows for name, rows in new.items()}
    meta = json.loads(bytes(old["meta"]))
    for ring, segments in meta.pop("segments").items():
        out[f"segments.{ring}"] = flat(np.array([(*s, UNKNOWN_MS) for s in segments], SEGMENT))
    meta["version"] = 2
    out["meta"] = flat(np.frombuffer(bytearray(json.dumps(meta).encode()), np.uint8))
    kept = (name for name in old if not name.startswith(PREFIX) and name != "meta")
    return out | {name: flat(old[name]) for name in kept}


# Version 2 kept these sums by (arm, slice), in this order; the last three and all after the flags are no sums of flags.
SUMS_OF_VERSION_2 = (
    "assigned_users", "exposed_users", "impressions", "clicked_impressions", "converted_impressions", "clicks",
    "conversions", "mixed_users", "mixed_events", "before_assignment", "foreign_currency", "impressions_sq",
    "clicked_sq", "clicked_x_impressions", "converted_sq", "converted_x_impressions", "clicks_sq", "conversions_sq",
    "revenue_minor", "revenue_sq", "revenue_x_conversions",
)  # fmt: skip
EVENTS_OF_VERSION_2 = (
    "mixed_events",
    "before_assignment",
    "foreign_currency",
)  # not known by user: they stay where they are


def _from_2(export: Export) -> Export:
    """Version 2 knew no exposure, phases, pre_value, latency or retention: a user's exposure begins at the assignment.

    The sums of experiments that go on are made anew of their users (see Engine.load).
    """
    old = {name.removeprefix(PREFIX): rows for name, rows in export.items()}
    m, policy = old["m"].joined.copy(), old["policy"].joined
    experiments = len(policy)
    m[[TOUCHED, UNKNOWN_TROUBLED]] = 0
    m[UNKNOWN_TROUBLES:] = 0
    rules = _empty_rules(experiments)
    new = {name: flat(array) for name, array in rules.items()}
    new |= {
        "m": flat(m),
        "assigned": flat(_exposed_from_the_start(old["assigned"].joined, policy)),
        "declared": flat(np.zeros((0, 2 * DECLARED), np.int64)),
        "imps": _all_as(IMPRESSION_OF_VERSION_4, old["imps"]),
        "ints": _all_as(INTERACTION, old["ints"]),
    }
    for part in new["imps"].parts:
        part[1]["latency"] = -1
    meta = json.loads(bytes(old["meta"].joined))
    meta["experiments"]["declared"] = [{} for _ in meta["experiments"]["names"]]
    meta |= {"version": 3, "recount": True}
    kept = {name: rows for name, rows in export.items() if name not in ("state.fine_keys", "meta")}
    kept |= {PREFIX + name: rows for name, rows in new.items()}
    kept |= _totals_of_2(export, old["frozen"].joined)
    return kept | {"meta": flat(np.frombuffer(bytearray(json.dumps(meta).encode()), np.uint8))}


def _from_3(export: Export) -> Export:
    """Version 3 linked impressions of one item to each other, did not note how old a step's events may be, and counted
    for quantities that were declared later what came since, whatever its time.
    """
    meta = json.loads(bytes(export["meta"].joined)) | {"version": 4}
    experiments = len(export[PREFIX + "policy"].joined)
    new = {
        PREFIX + "imps": _all_as(IMPRESSION_OF_VERSION_4, export[PREFIX + "imps"]),
        PREFIX + "feeds_from": flat(np.full((experiments, DECLARED), -1, np.int64)),  # `define` fills it
    }
    for name in (name for name in export if name.startswith("segments.")):
        new[name] = _all_as(SEGMENT, export[name])
        for _, part in new[name].parts:
            part["oldest_ms"] = UNKNOWN_MS
    return {**export, **new, "meta": flat(np.frombuffer(bytearray(json.dumps(meta).encode()), np.uint8))}


def _from_4(export: Export) -> Export:
    """Version 4 had a column of its own for events outside experiments, and UUIDs as texts, which stay so."""
    meta = json.loads(bytes(export["meta"].joined)) | {"version": 5}
    old = export[PREFIX + "imps"]
    new = _all_as(IMPRESSION, old)
    for (_, before), (_, part) in zip(old.parts, new.parts, strict=True):
        part["hour"] = 2 * before["hour"] + before["outside"]
    meta_table = flat(np.frombuffer(bytearray(json.dumps(meta).encode()), np.uint8))
    return {**export, PREFIX + "imps": new, "meta": meta_table}


def _from_5(export: Export) -> Export:
    """Version 5 had the arms in longer rows, and event_ids of assignments one right behind the other."""
    meta = json.loads(bytes(export["meta"].joined)) | {"version": 6}
    old, m = export[PREFIX + "assigned"].joined, export[PREFIX + "m"].joined.copy()
    new = _as(ASSIGNED, old)
    new["arm"] = old["ea"] % MAX_ARMS
    arena = np.zeros(int(m[ARENA]) + UNIT * len(old), np.uint8)
    starts = old["id_pos"].astype(np.int64)  # in bytes
    m[ARENA] = pack_event_ids(starts, new, export[PREFIX + "arena"].joined, arena)
    tables = {
        PREFIX + "assigned": flat(new),
        PREFIX + "arena": flat(arena[: m[ARENA]]),
        PREFIX + "m": flat(m),
        "meta": flat(np.frombuffer(bytearray(json.dumps(meta).encode()), np.uint8)),
    }
    return {**export, **tables}


def _from_6(export: Export) -> Export:
    """Version 6 had the fields of `assigned` in another order."""
    meta = json.loads(bytes(export["meta"].joined)) | {"version": 7}
    meta_table = flat(np.frombuffer(bytearray(json.dumps(meta).encode()), np.uint8))
    return {**export, PREFIX + "assigned": _all_as(ASSIGNED, export[PREFIX + "assigned"]), "meta": meta_table}


def _all_as(dtype: np.dtype[Any], old: Rows) -> Rows:
    return Rows(tuple((first, _as(dtype, part)) for first, part in old.parts))


def _as(dtype: np.dtype[Any], old: Array) -> Array:
    """Rows of another layout, with the fields that both have."""
    new = np.zeros(len(old), dtype)
    for name in set(dtype.names or ()) & set(old.dtype.names or ()):
        new[name] = old[name]
    return new


def _exposed_from_the_start(old: Array, policy: Array) -> Array:
    new = _as(ASSIGNED_OF_VERSION_5, old)
    as_of = policy[np.maximum(new["experiment"], 0)] == AS_OF
    exposed = new["impressions"] > 0
    new["exposed_at"] = np.where(as_of, -1, np.where(exposed, new["at"], ALWAYS))
    for name in ("clicks", "conversions", "revenue"):
        new[f"early_{name}"] = np.where(as_of | exposed, 0, new[name])
    new["flags"] |= np.where(as_of, 0, EARLIEST).astype(np.int8)
    return new


def _empty_rules(experiments: int) -> dict[str, Array]:
    """What `define` fills, and counts that begin now."""
    return {
        "phases": np.full((experiments, MAX_PHASES), ALWAYS, np.int64),
        "cap": np.full(experiments, ALWAYS, np.int64),
        "foretold": np.zeros(experiments, np.int8),
        "feeds": np.zeros((experiments, 1024), np.uint8),
        "troubles": np.zeros((experiments, MAX_ARMS * TROUBLES), np.int64),
        "troubled": np.zeros(experiments, np.int8),
        "declaring": np.zeros(experiments, np.int8),
    }


def _totals_of_2(export: Export, frozen: Array) -> dict[str, Rows]:
    """Whole for experiments that are over, their flags' sums for those that go on."""
    keys, sums = export["totals.keys"].joined.copy(), export["totals.sums"].joined
    over = frozen[keys[:, 0] // MAX_ARMS] != 0
    new = np.zeros((len(keys), len(MOMENTS), 2), np.int64)
    for place, name in enumerate(SUMS_OF_VERSION_2):
        new[:, MOMENTS.index(name)] = (
            sums[:, place] if name in EVENTS_OF_VERSION_2 else np.where(over[:, None], sums[:, place], 0)
        )
    keys[:, 0] *= MAX_PHASES
    return {
        "totals.keys": flat(keys),
        "totals.sums": flat(new),
        "totals.marks": export["totals.marks"],
        "cohorts.keys": flat(np.zeros((0, 2), np.int64)),
        "cohorts.sums": flat(np.zeros((0, len(COHORTS[1])), np.int64)),
        "cohorts.marks": flat(np.zeros(0, np.int64)),
    }


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
    ints = _as(INTERACTION, old)
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


UPGRADES: tuple[Callable[[Export], Export], ...] = (_from_1, _from_2, _from_3, _from_4, _from_5, _from_6)
