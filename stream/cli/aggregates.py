"""Sums per experiment, metric and arm from JSON lines, checked, for `liftstream stats`."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stream.contracts.models import Text
from stream.contracts.violations import violations
from stream.errors import ConfigurationError
from stream.stats.estimates import Kind
from stream.stats.moments import Exact, Moments
from stream.stats.results import ExperimentSums, MetricSums

MAX_POWER = 60  # numbers are at most 10^60 and have at most 60 decimals
SUMS = {
    Kind.PROPORTION: ("sx",),
    Kind.MEAN: ("sx", "sxx"),
    Kind.RATIO: ("sx", "sxx", "sy", "syy", "sxy"),
    Kind.CUPED_MEAN: ("sx", "sxx", "sp", "spp", "sxp"),
}


def _exact(value: object) -> Exact:
    """A JSON number as the integer or fraction that its digits say."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise ValueError("must be a number")
    exponent = value.as_tuple().exponent if isinstance(value, Decimal) else 0
    if not isinstance(exponent, int) or abs(exponent) > MAX_POWER or abs(value) > 10**MAX_POWER:
        raise ValueError(f"must be at most 1e{MAX_POWER} and have at most {MAX_POWER} decimals")
    fraction = Fraction(value)
    return fraction.numerator if fraction.denominator == 1 else fraction


def _users(value: object) -> Exact:
    number = _exact(value)
    if not isinstance(number, int) or number < 0:
        raise ValueError("must be a whole number, at least 0")
    return number


def _share(value: object) -> Exact:
    number = _exact(value)
    if not number > 0:
        raise ValueError("must be more than 0")
    return number


def _or_none(check: Callable[[object], Exact]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else check(value))


Sum = Annotated[int | Fraction | None, _or_none(_exact)]


class Aggregate(BaseModel):
    """One line: an arm's sums for one metric. Those that its kind does not use may be absent."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    experiment: Text
    metric: Text
    kind: Kind
    arm: Text
    control: bool = Field(default=False, strict=True)
    n: Annotated[int, BeforeValidator(_users)]
    sx: Sum = None
    sxx: Sum = None
    sy: Sum = None
    syy: Sum = None
    sxy: Sum = None
    sp: Sum = None
    spp: Sum = None
    sxp: Sum = None
    share: Annotated[int | Fraction | None, _or_none(_share)] = None

    @property
    def moments(self) -> Moments:
        """The sums that the kind uses; the others are 0, but for the sxx of a proportion, which is its sx."""
        sums = {name: getattr(self, name) for name in SUMS[self.kind]}
        return Moments(self.n, **{"sxx": self.sx, **sums})

    def wrong(self) -> tuple[str, str] | None:
        """Field and rule, where the fields do not fit together."""
        for name in SUMS[self.kind]:
            if getattr(self, name) is None:
                return name, f"is required for the kind {self.kind.value}"
        if self.kind is Kind.PROPORTION and not 0 <= (self.sx or 0) <= self.n:
            return "sx", "must be from 0 to n for a proportion, as each user counts as 0 or 1"
        return self.moments.impossible()


def read_aggregates(path: Path) -> list[ExperimentSums]:
    """The experiments of a file in the order of their first lines; blank lines are skipped.

    Raises ConfigurationError, naming line and field, for the first line that is wrong or contradicts one before it.
    """
    read = _Read(path)
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    read.add(number, _parsed(path, number, line))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    return read.experiments()


def _parsed(path: Path, number: int, line: bytes) -> Aggregate:
    try:
        fields = json.loads(line, parse_float=Decimal, parse_constant=_refuse)
        aggregate = Aggregate.model_validate(fields)
    except ValidationError as error:
        first, value = violations(error)[0], error.errors()[0]["input"]
        written = str(value) if isinstance(value, Decimal) else first.value
        rule = f"{first.rule} (got {written})" if written else first.rule
        raise _wrong(path, number, first.field.split(".")[0], rule) from None
    except ValueError as error:  # json's errors, and digits or bytes that Python refuses
        raise _wrong(path, number, "", f"the line is not valid JSON: {error}") from None
    if wrong := aggregate.wrong():
        raise _wrong(path, number, *wrong)
    return aggregate


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


def _wrong(path: Path, number: int, name: str, rule: str) -> ConfigurationError:
    return ConfigurationError(f"{path}, line {number}: {f'{name} ' if name else ''}{rule}.")


@dataclass(slots=True)
class _Metric:
    """Lines of one metric by arm, with their numbers."""

    kind: Kind
    first_line: int
    control: str | None = None
    arms: dict[str, Moments] = field(default_factory=dict)


@dataclass(slots=True)
class _Experiment:
    """Metrics by name; per arm its share, and the line to name where a share is missing."""

    metrics: dict[str, _Metric] = field(default_factory=dict)
    shares: dict[str, Exact | None] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


class _Read:
    """Groups lines, and refuses those that contradict each other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, _Experiment] = {}

    def add(self, number: int, line: Aggregate) -> None:
        """Take one line."""
        experiment = self._found.setdefault(line.experiment, _Experiment())
        metric = experiment.metrics.setdefault(line.metric, _Metric(line.kind, number))
        self._add_share(number, line, experiment)
        if line.kind is not metric.kind:
            raise _wrong(
                self._path,
                number,
                "kind",
                f"is {metric.kind.value} for this metric in line {metric.first_line}",
            )
        if line.arm in metric.arms:
            raise _wrong(self._path, number, "arm", f"{line.arm!r} has a line for this metric already")
        if line.control and metric.control is not None:
            raise _wrong(
                self._path, number, "control", f"is true for two arms, {metric.control!r} and {line.arm!r}"
            )
        metric.control = line.arm if line.control else metric.control
        metric.arms[line.arm] = line.moments

    def _add_share(self, number: int, line: Aggregate, experiment: _Experiment) -> None:
        experiment.lines.setdefault(line.arm, number)
        known = experiment.shares.get(line.arm)
        if line.share is not None and known not in (None, line.share):
            raise _wrong(
                self._path, number, "share", f"of arm {line.arm!r} is {float(known or 0):g} in a line before"
            )
        experiment.shares[line.arm] = line.share if known is None else known

    def experiments(self) -> list[ExperimentSums]:
        """What was read; every metric has a control, every arm a share or none has."""
        return [
            ExperimentSums(name, tuple(self._metrics(experiment)), self._shares(experiment))
            for name, experiment in self._found.items()
        ]

    def _metrics(self, experiment: _Experiment) -> Iterator[MetricSums]:
        for name, metric in experiment.metrics.items():
            if metric.control is None:
                raise _wrong(
                    self._path,
                    metric.first_line,
                    "control",
                    f"must be true for one arm of the metric {name!r}",
                )
            yield MetricSums(name, metric.kind, metric.control, metric.arms)

    def _shares(self, experiment: _Experiment) -> dict[str, Exact] | None:
        declared = {arm: share for arm, share in experiment.shares.items() if share is not None}
        if not declared:
            return None
        for arm in experiment.shares:
            if arm not in declared:
                raise _wrong(
                    self._path,
                    experiment.lines[arm],
                    "share",
                    "must be given for every arm of an experiment or none",
                )
        return declared
