"""What the numbers of a recorded log must be, counted in plain Python by the rules of docs/events.md and docs/time.md.

Default settings, no experiment files: every surface counts, users who change their arm are excluded, money is in EUR.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from benchmarks.log import Entry, RecordedLog, partition_of
from benchmarks.oracle import PANE_MS, Arm, Cell, Counts, Expected
from stream.contracts.limits import EARLY_MS
from stream.contracts.topics import Topic

WINDOW_MS = 86_400_000  # the default of attribution_window
CONVERSION, CLICK, CURRENCY = "purchase", "click", "EUR"

Place = tuple[str, str, int]  # experiment, arm, since when the user is in it


def expected_of_log(log: RecordedLog) -> Expected:
    """The truth about a log in which nothing is late."""
    events = [*_once(log.entries)]
    by_topic: dict[Topic, list[Entry]] = {topic: [] for topic in Topic}
    for entry in events:
        by_topic[entry.topic].append(entry)
    users = _Users(by_topic[Topic.ASSIGNMENTS])
    others = [*by_topic[Topic.IMPRESSIONS], *by_topic[Topic.INTERACTIONS]]
    panes: dict[Cell, Counts] = defaultdict(Counter)
    for column, user_id, at_ms, amount in _amounts(by_topic[Topic.IMPRESSIONS], by_topic[Topic.INTERACTIONS]):
        for experiment, arm, since_ms in users.places.get(user_id, ()):
            if at_ms >= since_ms:
                panes[experiment, arm, at_ms // PANE_MS * PANE_MS][column] += amount
    arms: dict[Arm, Counts] = users.counts(by_topic[Topic.IMPRESSIONS])
    for (experiment, arm, _), counts in panes.items():
        arms[experiment, arm].update(counts)
    outside = sum(entry.fact.user_id not in users.entered_ms for entry in others)
    early = any(entry.at_ms < users.entered_ms.get(entry.fact.user_id, 0) for entry in others)
    return Expected(
        events=len(log.entries),
        duplicates=len(log.entries) - len(events),
        panes=dict(panes),
        arms=arms,
        # An event before its user's first assignment is outside or counted: that depends on what was still held.
        outside=None if early else outside,
        unsure=frozenset(users.with_movers),
    )


def _once(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Of equal ids the first."""
    seen: set[tuple[int, Topic, str]] = set()
    shown: set[tuple[int, str | None]] = set()
    for entry in entries:
        partition = partition_of(entry.fact.user_id)
        event = partition, entry.topic, entry.fact.event_id
        impression = partition, entry.fact.impression_id
        if event in seen:
            continue
        seen.add(event)
        if entry.topic is Topic.IMPRESSIONS:
            if impression in shown:
                continue
            shown.add(impression)
        yield entry


class _Users:
    """Where users are.

    places: of each user who stayed in one arm. entered_ms: any experiment, the first time. with_movers: experiments
    in which a user changed the arm: what was published of old panes by then stays as it was.
    """

    def __init__(self, assignments: Sequence[Entry]) -> None:
        self.places: dict[str, list[Place]] = defaultdict(list)
        self.entered_ms: dict[str, int] = {}
        self.with_movers: set[str] = set()
        self._arms: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)  # since when
        for entry in assignments:
            assert entry.fact.experiment_and_arm is not None
            experiment, arm = entry.fact.experiment_and_arm
            self.entered_ms.setdefault(entry.fact.user_id, entry.at_ms)
            self._arms[entry.fact.user_id, experiment].setdefault(arm, entry.at_ms)
        for (user_id, experiment), since in self._arms.items():
            if len(since) > 1:
                self.with_movers.add(experiment)
                continue
            ((arm, since_ms),) = since.items()
            self.places[user_id].append((experiment, arm, since_ms))

    def counts(self, impressions: Sequence[Entry]) -> dict[Arm, Counts]:
        """Assigned and exposed users of each arm."""
        last_shown = {entry.fact.user_id: entry.at_ms for entry in impressions}  # they come in order
        arms: dict[Arm, Counts] = defaultdict(Counter)
        for user_id, places in self.places.items():
            for experiment, arm, since_ms in places:
                arms[experiment, arm]["assigned_users"] += 1
                arms[experiment, arm]["exposed_users"] += last_shown.get(user_id, -1) >= since_ms
        return arms


def _amounts(
    impressions: Sequence[Entry], interactions: Sequence[Entry]
) -> Iterator[tuple[str, str, int, int]]:
    """(column, user, time, amount) of everything that counts."""
    shown = _Shown(impressions)
    credited: set[tuple[str, int]] = set()
    for entry in impressions:
        yield "impressions", entry.fact.user_id, entry.at_ms, 1
    for entry in interactions:
        fact = entry.fact
        value = fact.value_minor or 0
        column = {CLICK: "clicked_impressions", CONVERSION: "converted_impressions"}.get(fact.kind or "")
        is_refund = fact.kind == CONVERSION and value < 0
        of = shown.impression_of(entry)
        if column and of is not None and not is_refund and (column, of.number) not in credited:
            credited.add((column, of.number))
            yield column, of.fact.user_id, of.at_ms, 1
        if fact.kind == CLICK:
            yield "clicks", fact.user_id, entry.at_ms, 1
        if fact.kind == CONVERSION:
            yield "conversions", fact.user_id, entry.at_ms, int(not is_refund)
            if fact.currency in (None, CURRENCY):
                yield "revenue_minor", fact.user_id, entry.at_ms, value


class _Shown:
    """Impressions by id and by user and item."""

    def __init__(self, impressions: Sequence[Entry]) -> None:
        self._by_id = {
            (partition_of(entry.fact.user_id), entry.fact.impression_id): entry for entry in impressions
        }
        self._by_item: dict[tuple[str, str | None], list[Entry]] = defaultdict(list)  # in order of time
        for entry in impressions:
            self._by_item[entry.fact.user_id, entry.fact.item_id].append(entry)

    def impression_of(self, interaction: Entry) -> Entry | None:
        """The one that gets the credit."""
        fact = interaction.fact
        if fact.impression_id is not None:
            named = self._by_id.get((partition_of(fact.user_id), fact.impression_id))
            is_own = named is not None and named.fact.user_id == fact.user_id
            return named if named and is_own and _is_inside(interaction, named, -EARLY_MS) else None
        if fact.item_id is None:
            return None
        candidates = self._by_item.get((fact.user_id, fact.item_id), [])
        place = bisect_right(candidates, interaction.at_ms, key=lambda entry: entry.at_ms)
        latest = candidates[place - 1] if place else None
        return latest if latest and _is_inside(interaction, latest, 0) else None


def _is_inside(interaction: Entry, impression: Entry, least_ms: int) -> bool:
    return least_ms <= interaction.at_ms - impression.at_ms <= WINDOW_MS
