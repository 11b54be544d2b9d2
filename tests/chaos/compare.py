"""The public views against the truth, to the last unit."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from stream.contracts.topics import Topic
from stream.engine.moments import MOMENTS
from stream.engine.outputs import COHORTS, COUNTS
from stream.sink.queries import Database
from tests.chaos.truth import Counts, Key, Truth
from tests.engine.makers import HOUR, MINUTE

PANE_MS = 10_000
WINDOWS_MS = {"1m": MINUTE, "5m": 5 * MINUTE, "1h": HOUR, "24h": 24 * HOUR}
TOTALS = (
    "assigned_users", "exposed_users", *COUNTS, "mixed_users", "mixed_events", "before_assignment", "foreign_currency",
)  # fmt: skip
OUTCOMES = (
    "consumed", "counted", "duplicate", "late", "outside", "rejected", "attributed", "waiting", "no_reference",
    "unknown_impression", "other_user", "outside_window",
)  # fmt: skip
_RESULTS = TOTALS[:8]
_ARM = ("experiment", "arm", "slice")
_COHORT = (*_ARM, "phase", "since", "toInt32(start_date)")
_SHOWN = 5  # of a view's differences
_PLAIN = dict(
    zip(("impressions", "clicked", "converted", "clicks", "conversions", "revenue"), COUNTS, strict=True)
)


def differences(db: Database, truth: Truth, topic_names: Mapping[Topic, str]) -> list[str]:
    """One sentence for each number that is wrong, at most a few of each view."""
    words = {name: topic.word for topic, name in topic_names.items()}
    totals = {(e, arm, _slice(d, v)): counts for (e, arm, d, v), counts in truth.totals.items()}
    ledger = _found(db, "ledger", ("topic", "partition", "intDiv(toUnixTimestamp(hour), 3600)"), OUTCOMES)
    letters = {
        (words[topic], partition, offset)
        for topic, partition, offset in db.query("SELECT topic, partition, offset FROM dead_letters").rows
    }
    return [
        *_unequal(
            "ledger", {(words[t], p, hour): c for (t, p, hour), c in ledger.items()}, truth.ledger, OUTCOMES
        ),
        *_unequal("arm_totals", _found(db, "arm_totals", _ARM, TOTALS), totals, TOTALS),
        *_unequal(
            "arm_sums", _found(db, "arm_sums", (*_ARM, "phase"), MOMENTS), _sliced(truth.sums), MOMENTS
        ),
        *_unequal(
            "arm_cohorts", _found(db, "arm_cohorts", _COHORT, COHORTS[1]), _sliced(truth.cohorts), COHORTS[1]
        ),
        *_unequal("arm_rates", _rates(db), expected_rates(truth), COUNTS),
        *_missing("dead_letters", letters, truth.dead_letters),
        *rolling_differences(db, truth),
    ]


def result_differences(rows: Collection[Mapping[str, Any]], truth: Truth) -> list[str]:
    """What `liftstream results --json` says, against the truth."""
    found = {
        (row["experiment"], row["arm"], row["slice"]): Counter({n: row[n] for n in _RESULTS}) for row in rows
    }
    wanted = {(e, arm, _slice(d, v)): counts for (e, arm, d, v), counts in truth.totals.items()}
    return _unequal("results", found, wanted, _RESULTS)


def expected_rates(truth: Truth) -> Counts:
    """By (experiment, arm, slice, resolution, pane start in ms), as `arm_rates` has it."""
    out: Counts = defaultdict(Counter)
    for (e, arm, dimension, value, start), fine in truth.panes.items():
        counts = _named(fine)
        if dimension == "all":
            out[e, arm, "all", "10s", start].update(counts)
        name = _slice(dimension, value)
        out[e, arm, name, "1m", start // MINUTE * MINUTE].update(counts)
        out[e, arm, name, "1h", start // HOUR * HOUR].update(counts)
    return out


def rolling_differences(db: Database, truth: Truth) -> list[str]:
    """Every window is what the panes say, as of the smallest clock of all partitions."""
    as_of_ms = min(truth.clocks.values()) // PANE_MS * PANE_MS
    columns = ("as_of", *COUNTS)
    rows = db.query(f"SELECT experiment, arm, window, {', '.join(columns)} FROM arm_rolling").rows
    found = {tuple(row[:3]): row[3:] for row in rows}
    arms = {(e, arm) for e, arm, dimension, *_ in truth.panes if dimension == "all"}
    wanted = {(e, arm, window) for e, arm in arms for window in WINDOWS_MS}
    wrong = _missing(
        "arm_rolling", set(found) & wanted, wanted
    )  # others have zeros: their data was taken back
    for (experiment, arm, window), (as_of, *counts) in found.items():
        if _ms(as_of) != as_of_ms:
            wrong.append(f"arm_rolling {experiment} {arm} {window}: as of {_ms(as_of)}, not {as_of_ms}")
        counted = _window(truth, experiment, arm, _ms(as_of) - WINDOWS_MS[window], _ms(as_of))
        got = Counter(dict(zip(COUNTS, map(int, counts), strict=True)))
        wrong += _unequal(
            "arm_rolling", {(experiment, arm, window): got}, {(experiment, arm, window): counted}, COUNTS
        )
    return wrong[:_SHOWN]


def _window(truth: Truth, experiment: str, arm: str, start_ms: int, stop_ms: int) -> Counter[str]:
    total: Counter[str] = Counter()
    for (e, a, dimension, _, pane_ms), counts in truth.panes.items():
        if (e, a, dimension) == (experiment, arm, "all") and start_ms <= pane_ms < stop_ms:
            total.update(_named(counts))
    return total


def _rates(db: Database) -> Counts:
    return _found(db, "arm_rates", (*_ARM, "resolution", "toUnixTimestamp64Milli(pane_start)"), COUNTS)


def _found(db: Database, view: str, keys: tuple[str, ...], columns: tuple[str, ...]) -> Counts:
    rows = db.query(f"SELECT {', '.join((*keys, *columns))} FROM {view}").rows
    return {
        tuple(row[: len(keys)]): Counter(dict(zip(columns, map(int, row[len(keys) :]), strict=True)))
        for row in rows
    }


def _unequal(
    view: str, found: Mapping[Key, Counter[str]], wanted: Mapping[Key, Counter[str]], columns: tuple[str, ...]
) -> list[str]:
    empty: Counter[str] = Counter()
    wrong = []
    for key in sorted({*found, *wanted}, key=str):
        one, other = found.get(key, empty), wanted.get(key, empty)
        off = [f"{name} {one[name]}, not {other[name]}" for name in columns if one[name] != other[name]]
        if off:
            wrong.append(f"{view} {key}: {'; '.join(off)}")
    return _first(view, wrong)


def _missing(view: str, found: set[Any], wanted: set[Any]) -> list[str]:
    wrong = [f"{view} lacks {key}" for key in sorted(wanted - found, key=str)]
    return _first(view, [*wrong, *(f"{view} has {key}" for key in sorted(found - wanted, key=str))])


def _first(view: str, wrong: list[str]) -> list[str]:
    more = len(wrong) - _SHOWN
    return [*wrong[:_SHOWN], f"{view}: {more} more"] if more > 0 else wrong


def _sliced(counts: Counts) -> Counts:
    """Keys with the slice's name in place of dimension and value."""
    return {(e, arm, _slice(d, v), *rest): c for (e, arm, d, v, *rest), c in counts.items()}


def _slice(dimension: str, value: str) -> str:
    return "all" if dimension == "all" else f"{dimension}={value}"


def _named(counts: Counter[str]) -> Counter[str]:
    return Counter({_PLAIN.get(name, name): n for name, n in counts.items()})


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
