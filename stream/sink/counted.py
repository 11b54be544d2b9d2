"""Reads from the views what conclusions are drawn from, and the rules by which it was counted."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from stream.contracts.definitions import Definitions
from stream.engine.moments import MOMENTS
from stream.results.counted import ALL, ArmSums, Cohort, Counted, Troubles
from stream.sink.queries import Database

IDLE_MS = (
    15_000  # a partition whose newest step is that much older than the newest of all does not hold as_of back
)
_SUMS = ", ".join(MOMENTS)


@dataclass(frozen=True, slots=True)
class Reading:
    """Whose numbers there are and how far they go. version: grows with every step that is in the database."""

    generation: int
    version: int
    as_of_ms: int | None


@dataclass(frozen=True, slots=True)
class Which:
    """A condition on experiments and its parameters; of all experiments none is named, however many there are."""

    condition: str = "experiment != ''"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Collection[str]) -> Self:
        """Those with these names, a parameter each: the owner of an embedded database takes no arrays."""
        parameters = {f"name_{k}": name for k, name in enumerate(names)}
        return cls(f"experiment IN ({', '.join(f'{{{key}:String}}' for key in parameters)})", parameters)


def reading(db: Database) -> Reading:
    """How far the numbers go: as_of is the smallest watermark of the partitions that are not idle."""
    ((generation, version, as_of_ms),) = db.query(
        """
        SELECT (SELECT max(generation) FROM generations), sum(last_step + 1),
            minOrNull(if(last_step_at < newest - toIntervalMillisecond({idle:UInt32}), NULL,
                toUnixTimestamp64Milli(watermark)))
        FROM pipeline_status CROSS JOIN (SELECT max(last_step_at) AS newest FROM pipeline_status) AS n
        """,
        {"idle": IDLE_MS},
    ).rows
    return Reading(int(generation), int(version), None if as_of_ms is None else int(as_of_ms))


def versions(db: Database) -> dict[str, int]:
    """By experiment a number that changes whenever its sums do."""
    return {name: int(version) for name, version in db.query("SELECT * FROM newest_versions").rows if name}


def definitions(db: Database) -> Definitions | None:
    """The rules by which the newest run counted; None: it was an older liftstream, which kept no note."""
    rows = db.query("SELECT definitions FROM newest_definitions").rows
    return Definitions.from_json(rows[0][0].encode()) if rows else None


def counted(db: Database, names: Collection[str] | None = None, *, slices: bool = True) -> list[Counted]:
    """What was counted of experiments with these names, or of all, sorted. slices: those too, not only `all`."""
    how_far = reading(db)
    chosen = sorted(versions(db) if names is None else names)
    if not chosen:
        return []
    which = Which() if names is None else Which.of(chosen)
    sums, cohorts = _by_experiment(_sums(db, which, slices)), _by_experiment(_cohorts(db, which, slices))
    troubles, since_ms = _by_experiment(_troubles(db, which)), _since(db, which)
    return [
        Counted(
            experiment=name,
            generation=how_far.generation,
            version=how_far.version,
            as_of_ms=how_far.as_of_ms,
            sums=tuple(sums[name]),
            cohorts=tuple(cohorts[name]),
            troubles=tuple(troubles[name]),
            since_ms=since_ms[name],
        )
        for name in chosen
    ]


Named = tuple[str, Any]  # an experiment and something of it


def _by_experiment(found: Iterable[Named]) -> dict[str, list[Any]]:
    by_name: dict[str, list[Any]] = defaultdict(list)
    for name, thing in found:
        by_name[name].append(thing)
    return by_name


def _sums(db: Database, which: Which, slices: bool) -> Iterable[Named]:
    # Of slice `all` alone newest_totals is read, which finds its few rows by the sorting key.
    whole = ", ".join(f"sum(t.{name})" for name in MOMENTS)
    statement = (
        f"SELECT experiment, arm, slice, phase, {_SUMS} FROM arm_sums WHERE {which.condition}"
        if slices
        else f"SELECT experiment, arm, '{ALL}', phase, {whole} FROM newest_totals AS t "
        f"WHERE {which.condition} AND dimension = '{ALL}' GROUP BY experiment, arm, phase"
    )
    for name, arm, slice_name, phase, *values in db.query(statement, which.parameters).rows:
        sums = dict(zip(MOMENTS, map(int, values), strict=True))
        yield name, ArmSums(arm, slice_name, int(phase), sums)


def _cohorts(db: Database, which: Which, slices: bool) -> Iterable[Named]:
    newest = f"dimension = '{ALL}' AND generation = (SELECT max(generation) FROM generations)"
    source = "arm_cohorts" if slices else f"(SELECT *, '{ALL}' AS slice FROM cohorts FINAL WHERE {newest})"
    rows = db.query(
        "SELECT experiment, arm, slice, phase, since, toInt32(start_date) AS day, sum(users), sum(active_d1), "
        f"sum(active_d7), sum(active_d30) FROM {source} WHERE {which.condition} "
        "GROUP BY experiment, arm, slice, phase, since, day",
        which.parameters,
    ).rows
    for name, arm, s, phase, since, day, users, d1, d7, d30 in rows:
        active = {1: int(d1), 7: int(d7), 30: int(d30)}
        yield name, Cohort(arm, s, int(phase), since, int(day), int(users), active)


def _troubles(db: Database, which: Which) -> Iterable[Named]:
    rows = db.query(
        f"""
        SELECT experiment, arm, partition, sum(late), sum(rejected), sum(duplicate), sum(orphaned),
            sum(shown + done), sum(done)
        FROM
        (
            SELECT experiment, arm, partition, late, rejected, duplicate, orphaned, 0 AS shown, 0 AS done
            FROM newest_troubles WHERE {which.condition}
            UNION ALL
            SELECT experiment, arm, partition, 0, 0, 0, 0, impressions AS shown, clicks + conversions AS done
            FROM newest_totals WHERE {which.condition} AND dimension = '{ALL}'
        )
        GROUP BY experiment, arm, partition
        """,
        which.parameters,
    ).rows
    for name, arm, *counts in rows:
        yield name, Troubles(arm, *map(int, counts))


def _since(db: Database, which: Which) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(dict)
    rows = db.query(
        f"SELECT experiment, metric, max(since_ms) FROM metric_slots WHERE {which.condition} "
        "GROUP BY experiment, metric",
        which.parameters,
    ).rows
    for name, metric, since_ms in rows:
        if since_ms >= 0:
            found[name][metric] = int(since_ms)
    return found
