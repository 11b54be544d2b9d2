"""Whether an experiment can be trusted."""

from stream.contracts.definitions import Experiment
from stream.results.counted import Counted
from stream.results.rows import ExperimentHealth
from stream.results.rules import Rules


def health(experiment: Experiment, counted: Counted, rules: Rules) -> ExperimentHealth:
    """All checks, the worst of them first in the reason."""
    raise NotImplementedError
