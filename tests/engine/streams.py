"""Random streams with everything that goes wrong: duplicates, disorder, late events, changed arms, orphans, poison."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from stream.contracts.definitions import Arm, Definitions, Experiment, Metric, Per, Phase, Policy
from stream.contracts.topics import Topic
from tests.engine.makers import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    Arrival,
    Event,
    Run,
    an_assignment,
    an_impression,
    an_interaction,
)
from tests.engine.oracle import Oracle

Given = dict[Topic, list[Arrival]]
LATENCIES = (None, 0.0, 12.5, 99.7)
CAUGHT_UP = (True, True, True)
COUNT_NAMES = {
    "clicked": "clicked_impressions",
    "converted": "converted_impressions",
    "revenue": "revenue_minor",
}


def definitions(**changes: object) -> Definitions:
    """One experiment of each policy, one with surfaces and a currency, one that ends; any other name is undeclared."""
    fields: dict[str, object] = {
        "conversion_kinds": ("order", "purchase"),
        "experiments": (
            Experiment(
                name="excludes",
                policy=Policy.EXCLUDE,
                phases=(
                    Phase(starts_at_ms=T0 - DAY, shares={"control": 0.9, "b": 0.05, "c": 0.05}),
                    Phase(starts_at_ms=T0 + HOUR, shares={"control": 0.5, "b": 0.25, "c": 0.25}),
                ),
                metrics={
                    "wishes": Metric(kinds=("wish",)),
                    "worth": Metric(kinds=("wish", "order"), of="value", per=Per.IMPRESSION),
                },
                pre_value="wishes",
            ),
            Experiment(name="ends", policy=Policy.EXCLUDE, ends_at_ms=T0 + 2 * HOUR),
            Experiment(
                name="first",
                policy=Policy.FIRST,
                surfaces=("home",),
                currency="USD",
                revenue_cap_minor=8,
                pre_value="revenue",
            ),
            Experiment(name="known", arms={"control": Arm(share=0.5), "b": Arm(share=0.5)}),
            Experiment(name="of", policy=Policy.AS_OF),
        ),
    } | changes
    fields["experiments"] = tuple(sorted(fields["experiments"], key=lambda e: e.name))  # type: ignore[attr-defined]
    return Definitions(**fields)  # type: ignore[arg-type]


def first_definitions(**changes: object) -> Definitions:
    """The same experiments without what the first version did not know."""
    rules = definitions(**changes)
    plain = {"phases": (), "metrics": {}, "pre_value": None, "revenue_cap_minor": None}
    return rules.model_copy(
        update={"experiments": tuple(e.model_copy(update=plain) for e in rules.experiments)}
    )


def without_metrics(**changes: object) -> Definitions:
    """The same experiments without declared metrics: impressions take the short way through the engine."""
    rules = definitions(**changes)
    return rules.model_copy(
        update={
            "experiments": tuple(
                e.model_copy(update={"metrics": {}, "pre_value": None if e.metrics else e.pre_value})
                for e in rules.experiments
            )
        }
    )


def _one_of(values: Sequence[Any], event_id: str) -> Any:
    """One of these by the id: what is added to events later must not change the others."""
    return values[crc32(event_id.encode()) % len(values)]


@dataclass
class World:
    """Makes events of few users, items and experiments, so that everything meets."""

    random: random.Random
    users: int = 4
    latencies: tuple[float | None, ...] = LATENCIES
    serial: int = 0

    def __post_init__(self) -> None:
        self.impressions: list[Event] = []
        self.future: list[str] = []
        self.sent: list[tuple[Topic, Event]] = []
        self.shown_at: set[tuple[str, str, int]] = set()

    def user(self) -> str:
        return f"u{self.random.randrange(self.users)}"

    def event_id(self) -> str:
        """Unique, and not in order."""
        self.serial += 1
        return f"{self.random.randrange(1000)}-{self.serial}"

    def event(self, at: int) -> tuple[Topic, Event | bytes]:
        """The next event, about at this time."""
        r = self.random
        kind = r.random()
        if kind < 0.06 and self.sent:
            return r.choice(self.sent)
        if kind < 0.09:
            topic = r.choice(list(Topic))
            return topic, r.randbytes(r.randrange(40))
        topic, event = (
            self._assignment(at) if kind < 0.27 else self._shown(at) if kind < 0.62 else self._done(at)
        )
        self.sent.append((topic, event))
        return topic, event

    def _assignment(self, at: int) -> tuple[Topic, Event]:
        r = self.random
        event_id = self.event_id()
        return Topic.ASSIGNMENTS, an_assignment(
            event_id,
            at // 1000 * 1000 if r.random() < 0.5 else T0 + r.randrange(3) * MINUTE,
            self.user(),
            experiment=r.choice(["excludes", "ends", "first", "known", "of", "undeclared"]),
            arm=r.choice(["control", "control", "b", "c"]),
            country=r.choice(["DE", "IN", None]),
            segment=r.choice(["new", None]),
            pre_value=_one_of([None, 3, -8, 10**12], event_id),
        )

    def _shown(self, at: int) -> tuple[Topic, Event]:
        r = self.random
        user, item = self.user(), f"x{r.randrange(3)}"
        while (user, item, at) in self.shown_at:
            at += 1
        self.shown_at.add((user, item, at))
        name = f"imp{self.serial}"
        if self.future and r.random() < 0.5:
            name = self.future.pop(r.randrange(len(self.future)))
        elif self.impressions and r.random() < 0.04:
            name = r.choice(self.impressions)["impression_id"]
        event_id = self.event_id()
        shown = an_impression(
            event_id, at, user, impression_id=name, item_id=item, surface=r.choice(["home", "cart"]),
            country=r.choice(["DE", None]), device=r.choice(["web", "app"]), model_version=r.choice(["v1", "v2"]),
            latency_ms=_one_of(self.latencies, event_id),
        )  # fmt: skip
        self.impressions.append(shown)
        return Topic.IMPRESSIONS, shown

    def _done(self, at: int) -> tuple[Topic, Event]:
        r = self.random
        user, name, item = self.user(), None, None
        if self.impressions and r.random() < 0.7:
            shown = r.choice(self.impressions[-20:])
            edges = (0, 1, -5 * MINUTE, -5 * MINUTE - 1, HOUR, HOUR + 1, DAY, DAY + 1)
            at = shown["at"] + r.choice((r.randrange(HOUR), *edges))
            at = max(at, T0 - DAY)
            user = shown["user_id"] if r.random() < 0.9 else user
            name = shown["impression_id"]
        elif r.random() < 0.5:
            name = f"later{self.serial}"
            self.future.append(name)
        if r.random() < 0.35:
            name, item = None, f"x{r.randrange(3)}"
        elif r.random() < 0.08:
            name = None
        return Topic.INTERACTIONS, an_interaction(
            self.event_id(), at, user, impression_id=name, item_id=item,
            kind=r.choice(["click", "click", "purchase", "order", "wish"]),
            value_minor=r.choice([None, 0, 5, 10**12, -7, -(10**12)]), currency=r.choice([None, None, "EUR", "USD"]),
        )  # fmt: skip


def arrivals(seed: int, events: int, span: int, disorder: int, **world_: Any) -> list[tuple[Topic, Arrival]]:
    """So many events in order of arrival, their times rising over `span` ms, each up to `disorder` ms off."""
    world = World(random.Random(seed), **world_)
    out = []
    for i in range(events):
        now = T0 + span * i // events
        topic, event = world.event(now - world.random.randrange(disorder + 1))
        received = now + world.random.choice([0, 0, 0, HOUR])
        if isinstance(event, dict):
            received = max(received, event["at"] - 5 * MINUTE - (world.random.random() < 0.01))
        out.append((topic, (event, received)))
    return out


def in_steps(stream: list[tuple[Topic, Arrival]], sizes: list[int]) -> list[Given]:
    """Cut a stream into steps of these sizes, the last one repeated."""
    steps, i, k = [], 0, 0
    while i < len(stream):
        size = sizes[min(k, len(sizes) - 1)]
        given: Given = {topic: [] for topic in Topic}
        for topic, arrival in stream[i : i + size]:
            given[topic].append(arrival)
        steps.append(given)
        i, k = i + size, k + 1
    return steps


def oracle_step(oracle: Oracle, given: Given, planned_at: int, caught_up: tuple[bool, ...]) -> None:
    """The same step for the oracle: raw bytes are no event."""
    plain = {
        topic: [(event if isinstance(event, dict) else None, at) for event, at in items]
        for topic, items in given.items()
    }
    oracle.step(plain, planned_at, caught_up)


def assert_equal(run: Run, oracle: Oracle) -> None:
    """All totals, panes and the ledger are the same."""
    for name, expected in (
        ("totals", oracle.totals()), ("cohorts", oracle.cohorts()), ("troubles", oracle.troubles),
    ):  # fmt: skip
        found = run.table(name)
        assert found.keys() == expected.keys(), name
        for key, counts in expected.items():
            assert {n: c for n, c in found[key].items() if c} == {n: c for n, c in counts.items() if c}, key
    panes = run.panes()
    wanted = {
        key: {COUNT_NAMES.get(n, n): c for n, c in counts.items() if c}
        for key, counts in oracle.panes().items()
    }
    assert {k: {n: c for n, c in v.items() if c} for k, v in panes.items()} == wanted
    ledger = run.ledger()
    assert {k: dict(v) for k, v in ledger.items()} == {k: dict(v) for k, v in oracle.outcomes().items() if v}
