"""What the state of a load takes: rate times how long it is held times bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from stream.contracts.topics import Topic
from stream.engine.index import power_of_two, slots_for
from stream.engine.layout import ASSIGNED, FIELDS, IMPRESSION, INTERACTION, USER
from stream.sink.queries import Database

EVENT_ID_BYTES = 16  # of an assignment's event_id: a UUID
_ID_BYTES = sum(
    FIELDS[name][0].itemsize for name in ("id_keys", "id_tags")
)  # beside every row that is found by an id
_SLOT_BYTES = FIELDS["id_slots"][0].itemsize
_BUSIEST = """
SELECT topic, max(records) / 3600 AS rate
FROM (SELECT topic, hour, sum(consumed) AS records FROM ledger GROUP BY topic, hour) GROUP BY topic
"""
_USERS = "SELECT sum(assigned_users) FROM arm_totals WHERE slice = 'all'"


@dataclass(frozen=True, slots=True)
class Load:
    """What the memory is computed for: events a second, and pairs of a user and an experiment that runs."""

    impressions_per_second: float = 100.0
    interactions_per_second: float = 10.0
    user_experiments: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Term:
    """One kind of rows: how many are held, why so many, and the bytes that their tables take."""

    kind: str
    why: str
    rows: int
    nbytes: int

    def __str__(self) -> str:
        each = self.nbytes / self.rows if self.rows else 0
        return f"{self.kind} {self.why} x {each:,.0f} B = {self.nbytes / 2**30:.1f} GiB"


def terms(load: Load, lateness: timedelta, window: timedelta, partitions: int) -> tuple[Term, ...]:
    """Ids and interactions are held for the lateness, impressions until no interaction can be credited to them.

    Tables double when they are full, so their bytes for each row depend on how many rows there are; so do indexes of up
    to a million rows, larger ones grow by a quarter, here as if they just had.
    """
    shown, acted = load.impressions_per_second, load.interactions_per_second
    users = load.user_experiments
    return (
        _held("ids", shown + acted, lateness, _ID_BYTES, partitions),
        _held("impressions", shown, lateness + window, IMPRESSION.itemsize + _ID_BYTES, partitions),
        _held("interactions", acted, lateness, INTERACTION.itemsize + _ID_BYTES, partitions),
        Term(
            "users in experiments",
            f"{users:,}",
            users,
            table_bytes(users, USER.itemsize + _ID_BYTES, partitions)
            + table_bytes(users, ASSIGNED.itemsize, partitions, is_found_by_id=False)
            + table_bytes(users * EVENT_ID_BYTES, 1, partitions, is_found_by_id=False),
        ),
    )


def _held(kind: str, rate: float, time: timedelta, row_bytes: int, partitions: int) -> Term:
    rows = round(rate * time.total_seconds())
    why = f"{rate:,.10g}/s x {time.total_seconds() / 3600:,.4g} h"
    return Term(kind, why, rows, table_bytes(rows, row_bytes, partitions))


def table_bytes(rows: int, row_bytes: int, partitions: int, *, is_found_by_id: bool = True) -> int:
    """What tables of so many rows, evenly spread over the partitions, take with their indexes."""
    if not rows:
        return 0
    each = -(-rows // partitions)
    slots = slots_for(each) if is_found_by_id else 0
    return partitions * (power_of_two(each) * row_bytes + slots * _SLOT_BYTES)


def counted_load(db: Database, names: Mapping[Topic, str]) -> Load | None:
    """The load of the ledger's busiest hour and of all users so far; None before any event. names: of the topics."""
    rates = {row["topic"]: float(row["rate"]) for row in db.query(_BUSIEST).dicts()}
    shown, acted = (rates.get(names[topic], 0.0) for topic in (Topic.IMPRESSIONS, Topic.INTERACTIONS))
    if not shown + acted:
        return None
    return Load(round(shown, 3), round(acted, 3), int(db.query(_USERS).rows[0][0] or 0))


def told(found: Sequence[Term]) -> str:
    """The sum and its terms, in one line."""
    total = sum(term.nbytes for term in found)
    return f"{total / 2**30:.1f} GiB = " + " + ".join(map(str, found))
