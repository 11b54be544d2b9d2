"""Every metric of every arm against the control, in every slice."""

from stream.contracts.definitions import Experiment
from stream.results.counted import Counted
from stream.results.rows import Result
from stream.results.rules import Rules


def results(experiment: Experiment, counted: Counted, rules: Rules) -> tuple[Result, ...]:
    """Rows by slice (`all` first), metric and arm."""
    raise NotImplementedError
