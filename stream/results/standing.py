"""All conclusions of an experiment from one reading of its sums."""

from collections.abc import Collection

from stream.contracts.definitions import Experiment
from stream.results.compared import results
from stream.results.counted import Counted
from stream.results.health import health
from stream.results.rows import Standing
from stream.results.rules import Rules


def standing(
    experiment: Experiment,
    counted: Counted,
    rules: Rules | None = None,
    *,
    slices: Collection[str] | None = None,
) -> Standing:
    """How the experiment stands. slices: those with results, None: all; its health always looks at all of them."""
    rules = rules or Rules()
    return Standing(
        experiment=counted.experiment,
        generation=counted.generation,
        version=counted.version,
        as_of_ms=counted.as_of_ms,
        results=results(experiment, counted, rules, slices=slices),
        health=health(experiment, counted, rules),
    )
