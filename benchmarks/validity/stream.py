"""A/A on the way the stream goes: one traffic, split at random by many experiments, through engine and results."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stream.contracts.definitions import Arm, Definitions, Experiment
from stream.results.compared import results
from stream.results.health import health
from stream.results.rows import Result, Variant, Verdict
from tests.engine.makers import DAY, MINUTE, T0, Event, Run, an_assignment, an_impression, an_interaction
from tests.results.makers import counted_of

ARMS = ("control", "b")
METRICS = ("ctr", "clicks_per_user", "user_conversion_rate", "revenue_per_user")
MIN_USERS = 50
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Traffic:
    """Users who arrive over the looks and come back, and how many experiments split them at random."""

    users: int = 600
    looks: int = 15
    splits: int = 40


def false_alarms(traffic: Traffic, seed: int) -> tuple[Counter[tuple[str, str]], int]:
    """How many experiments were ever called significant, by metric and method; how many were ever called broken."""
    alarms: set[tuple[str, str, str]] = set()
    broken: set[str] = set()
    for name, run in _looked_at(traffic, seed):
        experiment = run.definitions.experiment(name)
        counted = counted_of(run, name)
        if health(experiment, counted).verdict is Verdict.BROKEN:
            broken.add(name)
        for row in results(experiment, counted, slices=["all"]):
            alarms |= {(name, row.metric, method) for method in _alarmed(row)}
    return Counter((metric, method) for _, metric, method in alarms), len(broken)


def _alarmed(row: Result) -> list[str]:
    if row.metric not in METRICS or row.variant is not Variant.PLAIN:
        return []
    if min(row.users, row.control_users or 0) < MIN_USERS:
        return []
    p_values = {"fixed": row.p_fixed, "always": row.p_always}
    return [method for method, p in p_values.items() if p is not None and p < ALPHA]


def _looked_at(traffic: Traffic, seed: int) -> Iterator[tuple[str, Run]]:
    """After every step, each experiment's name and the engine."""
    r = np.random.default_rng(seed)
    names = [f"split-{k:02}" for k in range(traffic.splits)]
    arms = {arm: Arm(share=0.5) for arm in ARMS}
    rules = Definitions(experiments=tuple(Experiment(name=name, arms=arms) for name in names))
    run = Run(rules)
    arrival = np.sort(r.integers(0, traffic.looks, traffic.users))
    rate, click = r.gamma(0.8, 1.5, traffic.users), r.beta(2, 18, traffic.users)
    chosen = r.integers(0, len(ARMS), (traffic.users, traffic.splits))
    for look in range(traffic.looks):
        at = T0 + look * 10 * MINUTE
        new = np.flatnonzero(arrival == look)
        assignments = [
            an_assignment(f"a{u}-{k}", at, f"u{u}", experiment=name, arm=ARMS[chosen[u, k]])
            for u in new for k, name in enumerate(names)
        ]  # fmt: skip
        here = np.flatnonzero(arrival <= look)
        shown = r.poisson(rate[here]) + (arrival[here] == look)
        events = [
            _visit(r, f"{u}-{look}-{place}", f"u{u}", at, click[u])
            for u, n in zip(here, shown, strict=True) for place in range(n)
        ]  # fmt: skip
        run.step(
            assignments=assignments,
            impressions=[impression for impression, _ in events],
            interactions=[event for _, done in events for event in done],
            planned_at=at + DAY,
        )
        yield from ((name, run) for name in names)


def _visit(r: np.random.Generator, name: str, user: str, at: int, click: float) -> tuple[Event, list[Event]]:
    """An impression, and perhaps a click and a purchase."""
    when = at + 1 + int(r.integers(0, 5 * MINUTE))
    shown = an_impression(f"i{name}", when, user, impression_id=f"s{name}")
    about = {"impression_id": f"s{name}"}
    done = []
    if r.random() < click:
        done.append(an_interaction(f"c{name}", when + 1, user, **about))
        if r.random() < 0.3:
            value = int(r.lognormal(8, 1))
            done.append(
                an_interaction(f"p{name}", when + 2, user, kind="purchase", value_minor=value, **about)
            )
    return shown, done
