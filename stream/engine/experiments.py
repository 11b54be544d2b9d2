"""Experiments and arms as numbers, and which assignments are taken."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.contracts.definitions import Arm, Definitions, Experiment, Policy
from stream.contracts.limits import MAX_ARMS, MAX_EXPERIMENTS
from stream.contracts.reasons import Reason, status_of
from stream.engine.index import grown, power_of_two
from stream.engine.layout import ALWAYS, AS_OF, DECLARED, EXCLUDE, FIRST
from stream.engine.moments import (
    FORETELLS_CLICKS,
    FORETELLS_CONVERSIONS,
    FORETELLS_DECLARED,
    FORETELLS_NOTHING,
    FORETELLS_REVENUE,
)
from stream.engine.names import Names
from stream.engine.outputs import Words
from stream.engine.tables import Store

POLICIES = {Policy.EXCLUDE: EXCLUDE, Policy.FIRST: FIRST, Policy.AS_OF: AS_OF}
EXPERIMENT_FIELD, ARM_FIELD = 3, 4
FORETOLD = {
    None: FORETELLS_NOTHING,
    "clicks": FORETELLS_CLICKS,
    "conversions": FORETELLS_CONVERSIONS,
    "revenue": FORETELLS_REVENUE,
}
BY_EXPERIMENT = (
    "policy", "frozen", "ends_at", "currency", "has_surfaces", "surfaces", "phases", "cap", "foretold", "feeds",
    "feeds_from", "troubles", "troubled", "declaring",
)  # fmt: skip


class Experiments:
    """Names by number: experiment e, arm `e * MAX_ARMS + place`. The rules kernels need stand in the store's arrays."""

    def __init__(self, store: Store, surfaces: Names, currencies: Names, kinds: Names) -> None:
        """Nothing known yet."""
        self.store = store
        self.surfaces = surfaces
        self.currencies = currencies
        self.kinds = kinds
        self.declared: list[
            dict[str, int]
        ] = []  # by experiment: names of declared quantities, since when each counts
        self.names: list[str] = []
        self.arms: list[list[str]] = []
        self._numbers: dict[str, int] = {}
        self._definitions = Definitions()
        self._unseen_ms = -1
        self._declared: dict[str, Mapping[str, Arm]] = {}
        self._by_arm: Words | None = None  # names of arms, made anew when there is another one

    def define(self, definitions: Definitions, unseen_ms: int = -1) -> None:
        """Take the rules of all experiments, known and declared. unseen_ms: no event so far was as late.

        A quantity that is new in an experiment with data counts events from then on: so it is known of every event
        whether it was counted, when the event is taken back.
        """
        self._definitions = definitions
        self._unseen_ms = unseen_ms
        self._declared = {experiment.name: experiment.arms for experiment in definitions.experiments}
        for experiment in definitions.experiments:
            self._number(experiment.name)
        for name in self.names:
            self._write_rules(self._numbers[name], definitions.experiment(name))

    def running(self) -> int:
        """How many experiments are not frozen."""
        return len(self.names) - int(self.store.a["frozen"][: len(self.names)].sum())

    def arm_of(self, experiment: str, arm: str) -> tuple[int, int, int]:
        """(experiment number, arm number, 0), or (-1, -1, status) when the assignment is rejected."""
        number = self._numbers.get(experiment, -1)
        if number < 0:
            if self.running() >= MAX_EXPERIMENTS:
                return -1, -1, status_of(Reason.TOO_MANY_EXPERIMENTS, EXPERIMENT_FIELD)
            number = self._number(experiment)
            self._write_rules(number, self._definitions.experiment(experiment))
        declared = self._declared.get(experiment)
        if declared and arm not in declared:
            return -1, -1, status_of(Reason.UNKNOWN_ARM, ARM_FIELD)
        arms = self.arms[number]
        if arm not in arms:
            if len(arms) >= MAX_ARMS:
                return -1, -1, status_of(Reason.TOO_MANY_ARMS, ARM_FIELD)
            arms.append(arm)
            self._by_arm = None
        return number, number * MAX_ARMS + arms.index(arm), 0

    def words_of(self, arms: npt.NDArray[np.int64]) -> tuple[Words, Words]:
        """Experiment and arm of these numbers of arms."""
        if self._by_arm is None:
            self._by_arm = self._make_words_of_arms()
        return Words(self.names, arms // MAX_ARMS), Words(self._by_arm.names, self._by_arm.codes[arms])

    def _make_words_of_arms(self) -> Words:
        numbers = {name: k for k, name in enumerate(dict.fromkeys(chain(*self.arms)))}
        codes = np.zeros(len(self.names) * MAX_ARMS, np.int64)
        for experiment, arms in enumerate(self.arms):
            first = experiment * MAX_ARMS
            codes[first : first + len(arms)] = [numbers[arm] for arm in arms]
        return Words(list(numbers), codes)

    def export(self) -> dict[str, Any]:
        """Names in order."""
        return {"names": self.names, "arms": self.arms, "declared": self.declared}

    def restore(self, exported: dict[str, Any]) -> None:
        """Take the names of an export; `define` must follow."""
        self.names = list(exported["names"])
        self.arms = [list(arms) for arms in exported["arms"]]
        self.declared = [dict(slots) for slots in exported["declared"]]
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self._by_arm = None

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
            self.arms.append([])
            self._by_arm = None
            self.declared.append({})
            if len(self.names) > len(self.store.a["policy"]):
                rows = power_of_two(len(self.names))
                self.store.put(**{array: grown(self.store.a[array], rows) for array in BY_EXPERIMENT})
        return self._numbers[name]

    def _write_rules(self, number: int, experiment: Experiment) -> None:
        a = self.store.a
        a["policy"][number] = POLICIES[experiment.policy]
        a["ends_at"][number] = ALWAYS if experiment.ends_at_ms is None else experiment.ends_at_ms
        a["currency"][number] = self.currencies.code_of(experiment.currency or self._definitions.currency)
        a["has_surfaces"][number] = bool(experiment.surfaces)
        a["surfaces"][number] = 0
        for surface in experiment.surfaces:
            a["surfaces"][number, self.surfaces.code_of(surface)] = 1
        a["phases"][number] = ALWAYS
        for place, phase in enumerate(experiment.phases):
            a["phases"][number, place] = phase.starts_at_ms
        a["cap"][number] = ALWAYS if experiment.revenue_cap_minor is None else experiment.revenue_cap_minor
        self._declare(number, experiment)
        foretold = experiment.pre_value
        a["foretold"][number] = (
            FORETOLD[foretold]
            if foretold in FORETOLD
            else FORETELLS_DECLARED + list(experiment.metrics).index(str(foretold))
        )

    def _declare(self, number: int, experiment: Experiment) -> None:
        """Let the kinds feed the declared quantities, and note since when each of them counts."""
        feeds = self.store.a["feeds"]
        feeds[number] = 0
        known = self.declared[number]
        now = self._unseen_ms if self.arms[number] else -1
        # Without data they may also go, or change places.
        since = {quantity.name: known.get(quantity.name, now) for quantity in experiment.quantities}
        if list(since) != list(known):
            self.store.a["declaring"][number] = 1
        self.declared[number] = since
        for slot, quantity in enumerate(experiment.quantities):
            self.store.a["feeds_from"][number, slot] = since[quantity.name]
            bit = 1 << (slot + DECLARED if quantity.adds_value else slot)
            for kind in quantity.kinds:
                feeds[number, self.kinds.code_of(kind)] |= bit
        self.store.room_for_declared()
