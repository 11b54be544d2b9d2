"""How the experiments that have rules stand, read about every second: decisions do not wait for tables and slices."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from stream.contracts.definitions import Definitions, Experiment
from stream.contracts.guardrails import Role
from stream.results.counted import ALL, Counted
from stream.results.rows import Standing
from stream.results.rules import Rules
from stream.results.standing import standing
from stream.sink.counted import counted, reading, versions
from stream.sink.queries import Database

AS_OF_STEP_MS = 10_000  # hold times go on where nothing but the time changes

Mark = tuple[int, int, int]  # generation, the sums' version, as_of in steps: what was looked at


@dataclass(frozen=True, slots=True)
class Case:
    """An experiment, what was counted of it, and how it stands by that."""

    experiment: Experiment
    counted: Counted
    standing: Standing


class Rulings:
    """Reads what changed since it was read last. One thread at a time."""

    def __init__(self, open_database: Callable[[], Database], definitions: Definitions, rules: Rules) -> None:
        self.names = frozenset(
            experiment.name for experiment in definitions.experiments if has_rules(experiment)
        )
        self._open_database = open_database
        self._definitions = definitions
        self._rules = rules
        self._database: Database | None = None
        self._seen: dict[str, Mark] = {}
        self._asked: tuple[Mark, tuple[str, ...]] | None = None  # the last reading, and of which experiments

    def changed(self, is_ours: Callable[[str], bool]) -> list[Case]:
        """Our experiments with rules whose sums or time have moved. Raises what the database raises."""
        ours = [name for name in sorted(self.names) if is_ours(name)]
        if not ours:
            self._seen, self._asked = {}, None
            return []
        try:
            return self._changed(ours)
        except BaseException:
            self.close()
            raise

    def _changed(self, ours: Collection[str]) -> list[Case]:
        if self._database is None:
            self._database = self._open_database()
        now = reading(self._database)
        steps = (now.as_of_ms or 0) // AS_OF_STEP_MS
        asked = (now.generation, now.version, steps), tuple(ours)
        if asked == self._asked:  # an idle database is asked no more
            return []
        sums = versions(self._database)
        marks = {name: (now.generation, sums[name], steps) for name in ours if name in sums}
        names = [name for name, mark in marks.items() if self._seen.get(name) != mark]
        cases = [self._case(one) for one in counted(self._database, names, slices=False)] if names else []
        self._seen, self._asked = marks, asked
        return cases

    def _case(self, one: Counted) -> Case:
        experiment = self._definitions.experiment(one.experiment)
        return Case(experiment, one, standing(experiment, one, self._rules, slices=[ALL]))

    def close(self) -> None:
        """Let go of the database; what was seen will be read again."""
        database, self._database, self._seen, self._asked = self._database, None, {}, None
        if database is not None:
            database.close()


def has_rules(experiment: Experiment) -> bool:
    """Whether its results can lead to anything."""
    return bool(experiment.guardrails or experiment.promotion or experiment.arms_with(Role.BASELINE))
