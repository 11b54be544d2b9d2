"""Which changes of definitions a state survives."""

from collections.abc import Collection

from stream.contracts.definitions import Definitions, Experiment, Phase

_FIXED = ("policy", "surfaces", "revenue_cap_minor", "pre_value")


def incompatible(
    old: Definitions, new: Definitions, experiments: Collection[str], newest_ms: int = -1
) -> str | None:
    """Why a state made under `old` cannot go on under `new`, as a sentence that says what to do; None if it can.

    experiments: names of those that have data; any of the others may still change. newest_ms: of the events so far.
    """
    if old.slice_dimensions != new.slice_dimensions:
        return (
            f"slice_dimensions became {_listed(new.slice_dimensions)} but the numbers so far are cut by "
            f"{_listed(old.slice_dimensions)}: change it back, or start over with --new-generation."
        )
    for name in sorted(experiments):
        before, after = old.experiment(name), new.experiment(name)
        for field in _FIXED:
            was, wanted = getattr(before, field), getattr(after, field)
            if was != wanted:
                return _refusal(name, field, was, wanted)
        ends = [end for end in (before.ends_at_ms, after.ends_at_ms) if end is not None]
        if before.ends_at_ms != after.ends_at_ms and min(ends) <= newest_ms:
            return (
                f"Experiment {name} has events after the end it had or gets: an end can only be moved, set or taken "
                "away before events reach it. Change ends_at back, or start over with --new-generation."
            )
        if refusal := _of_metrics(before, after) or _of_phases(before, after, newest_ms):
            return refusal
        was, wanted = _currency(old, before), _currency(new, after)
        if was != wanted:
            return _refusal(name, "currency", was, wanted)
    return None


def _of_metrics(before: Experiment, after: Experiment) -> str | None:
    known = list(before.metrics.items())
    if list(after.metrics.items())[: len(known)] == known:
        return None
    return (
        f"Experiment {before.name} has data counted for its metrics {', '.join(before.metrics)}: they must stay as "
        "they are and in their order; add new ones behind them, or start over with --new-generation."
    )


def _of_phases(before: Experiment, after: Experiment, newest_ms: int) -> str | None:
    was, wanted = _reached(before, newest_ms), _reached(after, newest_ms)
    if was == wanted or (not was and len(wanted) == 1):
        return None
    return (
        f"Experiment {before.name} has users of the phases that would change: only phases that begin after the newest "
        "event can be added, changed or taken away. Change them back, or start over with --new-generation."
    )


def _reached(experiment: Experiment, newest_ms: int) -> tuple[Phase, ...]:
    return tuple(p for k, p in enumerate(experiment.phases) if k == 0 or p.starts_at_ms <= newest_ms)


def _currency(definitions: Definitions, experiment: Experiment) -> str:
    return experiment.currency or definitions.currency


def _refusal(experiment: str, field: str, was: object, wanted: object) -> str:
    return (
        f"Experiment {experiment} has data counted with {field} = {_listed(was)}, so it cannot become "
        f"{_listed(wanted)}: change it back, give the experiment a new name, or start over with --new-generation."
    )


def _listed(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) if value else "(all)"
    return str(value)
