"""Worlds of users whose every event is known, and what an engine counts of them."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stream.contracts.definitions import Definitions, Experiment
from stream.results.counted import ArmSums, Cohort, Counted, Troubles
from tests.engine.makers import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    Event,
    Run,
    an_assignment,
    an_impression,
    an_interaction,
)

NAME = "e1"
MIDNIGHT = T0 // DAY * DAY


@dataclass
class User:
    """Everything one user did. events: interactions as (at, kind, value, impression or None)."""

    name: str
    arm: str
    at: int
    country: str | None = None
    pre_value: int | None = None
    shown: list[tuple[int, float | None]] = field(default_factory=list)  # at, latency
    done: list[tuple[int, str, int | None, int | None]] = field(default_factory=list)

    def events(self) -> tuple[list[Event], list[Event], list[Event]]:
        """Assignments, impressions, interactions."""
        assignment = an_assignment(
            f"a-{self.name}", self.at, self.name, experiment=NAME, arm=self.arm, country=self.country,
            pre_value=self.pre_value,
        )  # fmt: skip
        shown = [
            an_impression(
                f"i-{self.name}-{k}", at, self.name, impression_id=f"s-{self.name}-{k}", latency_ms=latency
            )
            for k, (at, latency) in enumerate(self.shown)
        ]
        done = [
            an_interaction(
                f"n-{self.name}-{k}", at, self.name, kind=kind, value_minor=value,
                impression_id=None if place is None else f"s-{self.name}-{place}",
            )
            for k, (at, kind, value, place) in enumerate(self.done)
        ]  # fmt: skip
        return [assignment], shown, done


def some_users(
    seed: int,
    arms: Sequence[str],
    users: int,
    *,
    hidden: Sequence[str] = (),
    days: int = 3,
    spread: int = DAY,
) -> list[User]:
    """Random users, assigned over `spread` ms from midnight on, active for so many days; `hidden` arms show nothing."""
    r = random.Random(seed)
    return [_a_user(r, f"u{i}", r.choice(arms), hidden, days, spread) for i in range(users)]


def _a_user(r: random.Random, name: str, arm: str, hidden: Sequence[str], days: int, spread: int) -> User:
    at = MIDNIGHT + r.randrange(spread)
    user = User(name, arm, at, r.choice(["DE", "IN", None]), r.choice([None, 0, 3, 9]))
    count = 0 if arm in hidden else r.choice([0, 1, 1, 2, 5])
    moments = sorted(at + 1 + r.randrange(days * DAY) for _ in range(count))
    user.shown = [(moment, r.choice([None, float(r.randrange(90))])) for moment in moments]
    for place, (moment, _) in enumerate(user.shown):
        for kind in ("click", "click", "purchase", "wish"):
            if r.random() < 0.4:
                user.done.append((moment + r.randrange(HOUR), kind, r.choice([None, 5, 700, 3_000]), place))
    for _ in range(r.choice([0, 0, 1, 3])):  # of nobody's doing: before or without any impression
        kind = r.choice(["click", "purchase", "wish"])
        user.done.append((at + r.randrange(days * DAY), kind, r.choice([None, 40]), None))
    return user


def run_of(experiment: Experiment, users: Sequence[User], *, steps: int = 3, seed: int = 0) -> Run:
    """An engine that has counted all events of these users, in random order, some of them twice."""
    r = random.Random(seed)
    rules = Definitions(allowed_lateness_ms=60 * DAY, experiments=(experiment,))
    run = Run(rules)
    topics: list[list[Event]] = [[], [], []]
    for user in users:
        for events, own in zip(topics, user.events(), strict=True):
            events += own
    for events in topics:
        events += r.sample(events, len(events) // 20)
        r.shuffle(events)
    latest = max(event["at"] for events in topics for event in events)
    for k in range(steps):
        assignments, impressions, interactions = (events[k::steps] for events in topics)
        run.step(
            assignments=assignments, impressions=impressions, interactions=interactions, planned_at=latest
        )
    return run


def counted_of(run: Run, experiment: str = NAME, as_of_ms: int | None = None) -> Counted:
    """What the database's views say of what the engine put out."""
    sums = tuple(
        ArmSums(arm, _slice(dimension, value), phase, counts)
        for (e, arm, dimension, value, phase), counts in sorted(run.table("totals").items())
        if e == experiment
    )
    cohorts = tuple(
        Cohort(arm, _slice(dimension, value), phase, since, start, counts["users"],
               {n: counts[f"active_d{n}"] for n in (1, 7, 30)})
        for (e, arm, dimension, value, phase, since, start), counts in sorted(run.table("cohorts").items())
        if e == experiment
    )  # fmt: skip
    return Counted(
        experiment=experiment,
        generation=1,
        version=run.engine.step,
        as_of_ms=run.engine.clock_ms if as_of_ms is None else as_of_ms,
        sums=sums,
        cohorts=cohorts,
        troubles=tuple(_troubles(run, experiment)),
    )


def _troubles(run: Run, experiment: str) -> list[Troubles]:
    of_arm: dict[str, Counter[str]] = {}
    for (e, arm, dimension, *_), counts in run.table("totals").items():
        if e == experiment and dimension == "all":
            of_arm.setdefault(arm, Counter()).update(counts)
    lost = {arm: counts for (e, arm), counts in run.table("troubles").items() if e == experiment}
    found = []
    for arm in sorted(of_arm.keys() | lost.keys()):
        good, bad = of_arm.get(arm, Counter()), lost.get(arm, Counter())
        done = good["clicks"] + good["conversions"]
        found.append(
            Troubles(arm, 0, bad["late"], bad["rejected"], bad["duplicate"], bad["orphaned"],
                     good["impressions"] + done, done)
        )  # fmt: skip
    return found


def _slice(dimension: str, value: str) -> str:
    return "all" if dimension == "all" else f"{dimension}={value}"


def arm_sums(arm: str, users: int, *, slice: str = "all", phase: int = 0, **sums: int) -> ArmSums:
    """Sums of an arm with so many users, assigned and exposed; all others are 0 but for `sums`."""
    return ArmSums(arm, slice, phase, Counter({"assigned_users": users, "exposed_users": users} | sums))


def a_counted(*rows: ArmSums, **fields: Any) -> Counted:
    """Those sums, up to T0."""
    return Counted(**({"experiment": NAME, "as_of_ms": T0, "sums": rows} | fields))


__all__ = ["DAY", "HOUR", "MIDNIGHT", "MINUTE", "NAME", "T0"]
