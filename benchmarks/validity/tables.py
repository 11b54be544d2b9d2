"""The tables of docs/validity.md, each from many simulated experiments."""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.validity import stream
from benchmarks.validity.traffic import METRICS, Shape
from benchmarks.validity.trials import Looks, Share, sample_ratios, trials

Runs = Callable[[int, str], Iterable[int]]  # runs(n, label): 0 ... n - 1, with a progress bar
Table = list[list[str]]

METHODS = ("naive", "fixed", "always")
LIFTS = (0.1, 0.2, 0.4)
SHARP = 10.0
SRM_ALPHA = 0.001
SRM_SHARES = (0.5, 0.51, 0.52, 0.55)


def false_alarms(runs: Runs, n: int) -> Table:
    """A/A: the share of experiments that were ever called significant, and at the last look alone."""
    ever: Counter[tuple[str, str]] = Counter()
    last: Counter[tuple[str, str]] = Counter()
    for trial in trials(Shape(), runs(n, "A/A")):
        for metric, looks in trial.items():
            for method in METHODS:
                found = looks.found(method)
                ever[metric, method] += bool(found.any())
                last[metric, method] += bool(found[-1])
            ever[metric, "lift"] += not looks.covers("lift", 0).all()
    ways = ("events as units, ever", "fixed, ever", "fixed, last look only", "always-valid, ever")
    table = [["metric", *ways, "lift excludes 0, ever"]]
    for metric in METRICS:
        naive = str(Share(ever[metric, "naive"], n)) if metric == "ctr" else "-"
        fixed = (str(Share(counts[metric, "fixed"], n)) for counts in (ever, last))
        table.append(
            [metric, naive, *fixed, *(str(Share(ever[metric, name], n)) for name in ("always", "lift"))]
        )
    return table


def coverage(runs: Runs, n: int) -> Table:
    """A/B with a lift of 20 %: the share of experiments whose interval held the truth."""
    shape = Shape(lift=0.2)
    counts: Counter[tuple[str, str]] = Counter()
    for trial in trials(
        shape, runs(n, "coverage"), ("ctr", "clicks_per_user", "clicks_per_user_cuped", "revenue_per_user")
    ):
        for metric, looks in trial.items():
            for name, held in _held(metric, looks, shape).items():
                counts[metric, name] += held
    names = list(dict.fromkeys(name for _, name in counts))
    metrics = list(dict.fromkeys(metric for metric, _ in counts))
    return [
        ["metric", *names],
        *(
            [m, *(str(Share(counts[m, name], n)) if (m, name) in counts else "-" for name in names)]
            for m in metrics
        ),
    ]


def _held(metric: str, looks: Looks, shape: Shape) -> dict[str, bool]:
    held: dict[str, bool] = {}
    if metric == "ctr":  # the difference per user grows with time, that of the CTR does not
        held["fixed, last look"] = bool(looks.covers("fixed", shape.difference)[-1])
        held["fixed, all looks"] = bool(looks.covers("fixed", shape.difference).all())
        held["always-valid, all looks"] = bool(looks.covers("always", shape.difference).all())
    lift = looks.covers("lift", shape.lift)
    held["lift, last look"] = bool(lift[-1])
    held["lift, all looks"] = bool(lift.all())
    held[f"lift, looks with the control known to {1 / SHARP:.0%}"] = bool(
        lift[looks.sharpness >= SHARP].all()
    )
    return held


def power(runs: Runs, n: int) -> Table:
    """A/B: the share of experiments in which the CTR's lift was found, and how early."""
    table = [
        ["true lift", "fixed, one look at the end", "always-valid, any look", "median end, of all users"]
    ]
    for lift in LIFTS:
        fixed, always, ends = 0, 0, []
        shape = Shape(lift=lift)
        for trial in trials(shape, runs(n, f"lift {lift:.0%}"), ("ctr",)):
            looks = trial["ctr"]
            fixed += bool(looks.found("fixed")[-1])
            found = looks.found("always")
            always += bool(found.any())
            ends.append(
                (shape.looks - len(found) + int(found.argmax()) + 1) / shape.looks if found.any() else 1.0
            )
        median = f"{np.median(ends):.0%}"
        table.append([f"{lift:.0%}", str(Share(fixed, n)), str(Share(always, n)), median])
    return table


def sample_ratio_alarms(runs: Runs, n: int) -> Table:
    """Planned 50:50: the share of experiments that were ever flagged, by the arm's true share."""
    table = [["true share", "chi-square, ever", "chi-square, last look only", "sequential, ever"]]
    for share in SRM_SHARES:
        ever, last, sequential = 0, 0, 0
        for looks in sample_ratios(share, runs(n, f"share {share:.0%}")):
            fixed = [(look.p_fixed or 0) < SRM_ALPHA for look in looks]
            ever, last = ever + any(fixed), last + fixed[-1]
            sequential += any((look.p_sequential or 0) < SRM_ALPHA for look in looks)
        table.append([f"{share:.0%}", *(str(Share(count, n)) for count in (ever, last, sequential))])
    return table


def stream_alarms(runs: Runs, n: int) -> Table:
    """A/A from events through engine and results: the share of random splits ever called significant or broken."""
    traffic = stream.Traffic()
    alarms: Counter[tuple[str, str]] = Counter()
    broken = 0
    for seed in runs(n, "stream"):
        found, unhealthy = stream.false_alarms(traffic, seed)
        alarms.update(found)
        broken += unhealthy
    splits = n * traffic.splits
    rows = [
        [metric, *(str(Share(alarms[metric, method], splits)) for method in ("fixed", "always"))]
        for metric in stream.METRICS
    ]
    return [
        ["metric", "fixed, ever", "always-valid, ever"],
        *rows,
        ["health: broken", "-", str(Share(broken, splits))],
    ]


def markdown(table: Table) -> str:
    """The table in Markdown, its first row as the head."""
    head, *rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
