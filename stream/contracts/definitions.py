"""What the numbers depend on besides the events: experiments (one TOML file each) and the settings that count."""

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from stream.contracts.guardrails import METRICS, Guardrail, Promotion, Role, contradictions
from stream.contracts.limits import (
    MAX_ARMS,
    MAX_EXPERIMENTS,
    MAX_GUARDRAILS,
    MAX_KINDS,
    MAX_METRICS,
    MAX_PHASES,
    MAX_VALUE_MINOR,
)
from stream.contracts.models import Currency, Text, epoch_ms
from stream.contracts.violations import violations
from stream.errors import ConfigurationError

DAY_MS = 86_400_000
FORETOLD = (
    "clicks",
    "conversions",
    "revenue",
)  # per user, what pre_value may foretell beside declared metrics
DEFAULT_CONTROL = "control"  # the arm that is the control where none is declared
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_DURATION = re.compile(r"\s*([0-9]+)\s*(ms|s|m|h|d|w)\s*")


def duration_ms(value: str | timedelta) -> int:
    """Milliseconds of `90s`, `15m`, `24h`, `7d`, `2w`, `500ms` or a timedelta.

    Raises ValueError for anything else: negative durations, and numbers without a unit.
    """
    if isinstance(value, timedelta):
        value = f"{value // timedelta(milliseconds=1)}ms"
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is not a duration: write a whole number with a unit, such as 90s, 24h or 7d"
        )
    return int(match[1]) * _UNIT_MS[match[2]]


def _moment_ms(value: object) -> object:
    """A TOML datetime (without offset: UTC) as epoch milliseconds; numbers are those already."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if not isinstance(value, datetime):
        raise ValueError("must be a date with a time, such as 2026-12-01T00:00:00Z, without quotes")
    return epoch_ms(value)


class Policy(StrEnum):
    """What happens to the events of a user who was in two arms of one experiment."""

    EXCLUDE = "exclude"  # out of all arms, retroactively
    FIRST = "first"  # everything to the earliest assignment
    AS_OF = "as_of"  # the arm in force at the time of the event


class _Definition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)]


class Arm(_Definition):
    """One arm. share: its part of the traffic, for the sample ratio; None: not declared."""

    share: Share | None = None
    role: Role | None = None


class Phase(_Definition):
    """A part of the plan: from `starts_at_ms` on (the first one: from ever on), users come in these shares."""

    starts_at_ms: Annotated[int, BeforeValidator(_moment_ms)]
    shares: Annotated[dict[Text, Share], Field(min_length=1)]


class Per(StrEnum):
    """What a declared metric is divided by."""

    USER = "user"
    IMPRESSION = "impression"


class Metric(_Definition):
    """A declared metric: interactions of some kinds, counted or their value added up, per user or per impression."""

    kinds: Annotated[tuple[Text, ...], Field(min_length=1)]
    of: Literal["count", "value"] = "count"
    per: Per = Per.USER


@dataclass(frozen=True, slots=True)
class Quantity:
    """What the engine keeps for a declared metric, under its name."""

    name: str
    kinds: tuple[str, ...]
    adds_value: bool


def _sorted_by_name(arms: dict[str, Arm]) -> dict[str, Arm]:
    return dict(sorted(arms.items()))


class Experiment(_Definition):
    """One experiment. No arms: undeclared, any arm is taken; they are sorted by name. No surfaces: all of them."""

    name: Text
    control: Text | None = None
    arms: Annotated[dict[Text, Arm], Field(max_length=MAX_ARMS), AfterValidator(_sorted_by_name)] = {}
    policy: Policy = Policy.EXCLUDE
    surfaces: tuple[Text, ...] = ()
    ends_at_ms: Annotated[int | None, BeforeValidator(_moment_ms)] = None
    currency: Currency | None = None
    phases: Annotated[tuple[Phase, ...], Field(max_length=MAX_PHASES)] = ()
    metrics: Annotated[dict[Text, Metric], Field(max_length=MAX_METRICS)] = {}
    revenue_cap_minor: Annotated[int | None, Field(gt=0, le=MAX_VALUE_MINOR)] = (
        None  # of a user, for capped revenue
    )
    pre_value: Text | None = (
        None  # what the assignments' pre_value foretells: clicks, conversions, revenue or a metric
    )
    guardrails: Annotated[tuple[Guardrail, ...], Field(max_length=MAX_GUARDRAILS)] = ()
    promotion: Promotion | None = None

    @model_validator(mode="after")
    def _arms_agree(self) -> Self:
        if self.control is not None and self.arms and self.control not in self.arms:
            raise ValueError(f"control = {self.control!r} must be one of the arms: {', '.join(self.arms)}")
        shares = [arm.share for arm in self.arms.values() if arm.share is not None]
        if shares and len(shares) != len(self.arms):
            raise ValueError("share must be declared for every arm or for none")
        if shares and not math.isclose(math.fsum(shares), 1, abs_tol=1e-6):
            raise ValueError(f"the arms' shares must add up to 1, not {math.fsum(shares):g}")
        return self

    @model_validator(mode="after")
    def _phases_follow_each_other(self) -> Self:
        starts = [phase.starts_at_ms for phase in self.phases]
        if any(a >= b for a, b in pairwise(starts)):
            raise ValueError("phases must be in the order of their starts_at, each later than the one before")
        for phase in self.phases:
            if self.arms and set(phase.shares) != set(self.arms):
                raise ValueError(
                    f"every phase must have a share for each of the arms: {', '.join(self.arms)}"
                )
            if not math.isclose(math.fsum(phase.shares.values()), 1, abs_tol=1e-6):
                raise ValueError(
                    f"the shares of a phase must add up to 1, not {math.fsum(phase.shares.values()):g}"
                )
            if self.control is not None and self.control not in phase.shares:
                raise ValueError(
                    f"every phase must have a share for the control {self.control!r}, not only for "
                    f"{', '.join(phase.shares)}"
                )
        if self.phases and any(arm.share is not None for arm in self.arms.values()):
            raise ValueError("declare shares either by arm or by phase, not both")
        return self

    @model_validator(mode="after")
    def _pre_value_foretells_something(self) -> Self:
        known = (*FORETOLD, *self.metrics)
        if self.pre_value is not None and self.pre_value not in known:
            raise ValueError(f"pre_value must be one of {', '.join(known)}")
        foretold = self.metrics.get(self.pre_value or "")
        if foretold is not None and foretold.per is not Per.USER:
            raise ValueError(f"pre_value foretells metrics per user, and {self.pre_value} is per impression")
        return self

    @model_validator(mode="after")
    def _metrics_have_names_of_their_own(self) -> Self:
        if taken := [name for name in self.metrics if name in METRICS]:
            raise ValueError(f"every experiment has a metric {taken[0]}: give the declared one another name")
        return self

    @model_validator(mode="after")
    def _roles_are_unique(self) -> Self:
        for role in (Role.CHAMPION, Role.BASELINE):
            if len(names := self.arms_with(role)) > 1:
                raise ValueError(f"only one arm can be the {role}, not {' and '.join(names)}")
        return self

    @model_validator(mode="after")
    def _decisions_fit(self) -> Self:
        for problem in contradictions(
            self.guardrails, self.promotion, arms=tuple(self.arms), metrics=tuple(self.metrics)
        ):
            raise ValueError(problem)
        return self

    def arms_with(self, role: Role) -> tuple[str, ...]:
        """The arms that are declared with a role."""
        return tuple(name for name, arm in self.arms.items() if arm.role is role)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What declared metrics need counted, in the order of declaration."""
        return tuple(Quantity(name, m.kinds, m.of == "value") for name, m in self.metrics.items())

    def shares_at(self, phase: int) -> dict[str, float] | None:
        """Planned shares by arm in a phase (0 where there are none); None: not declared."""
        if self.phases:
            return dict(self.phases[phase].shares) if phase < len(self.phases) else None
        shares = {name: arm.share for name, arm in self.arms.items() if arm.share is not None}
        return shares or None

    def control_among(self, arms: Collection[str]) -> str | None:
        """The control: the declared one, else the arm named `control` if it is among `arms`, else None (no lift)."""
        if self.control is not None:
            return self.control
        return DEFAULT_CONTROL if DEFAULT_CONTROL in arms or DEFAULT_CONTROL in self.arms else None


class Definitions(_Definition):
    """Everything a step depends on except its records; journaled with it. Experiments are sorted by name."""

    allowed_lateness_ms: int = Field(default=DAY_MS, ge=0)
    attribution_window_ms: int = Field(default=DAY_MS, ge=0)
    conversion_kinds: tuple[Text, ...] = ("purchase",)
    currency: Currency = "EUR"
    slice_dimensions: tuple[Text, ...] = ("country", "device", "category", "surface", "model_version")
    experiments: tuple[Experiment, ...] = Field(default=(), max_length=MAX_EXPERIMENTS)

    @model_validator(mode="after")
    def _names_are_sorted_and_unique(self) -> Self:
        names = [experiment.name for experiment in self.experiments]
        if any(a >= b for a, b in pairwise(names)):
            raise ValueError("experiments must be sorted by name and have different names")
        return self

    @model_validator(mode="after")
    def _kinds_are_few(self) -> Self:
        kinds = {"click", *self.conversion_kinds}
        for experiment in self.experiments:
            kinds.update(kind for metric in experiment.metrics.values() for kind in metric.kinds)
        if len(kinds) > MAX_KINDS:
            raise ValueError(f"at most {MAX_KINDS} different kinds can be counted, not {len(kinds)}")
        return self

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that differ whenever a definition does."""
        return digest_of(self.to_json())

    def experiment(self, name: str) -> Experiment:
        """The experiment with this name; one without a file has the defaults."""
        return next((known for known in self.experiments if known.name == name), Experiment(name=name))

    def to_json(self) -> bytes:
        """Canonical: equal definitions give equal bytes, and metrics in another order give others."""
        content = self.model_dump(mode="json")
        for experiment in content["experiments"]:  # keys are sorted below, but the order of metrics counts
            experiment["metrics"] = list(experiment["metrics"].items())
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """The definitions that `to_json` wrote, perhaps an earlier version's. Raises ValueError for anything else."""
        fields = json.loads(content)
        try:
            for experiment in fields.get("experiments", ()):
                experiment["metrics"] = dict(experiment.get("metrics", ()))
        except (AttributeError, TypeError) as error:
            raise ValueError("these are no definitions") from error
        return cls.model_validate(fields)


def digest_of(stored: bytes) -> str:
    """The digest of definitions in their stored form."""
    return hashlib.blake2b(stored, digest_size=8).hexdigest()


def load_experiments(folder: Path) -> tuple[Experiment, ...]:
    """The experiments of a folder's *.toml files, sorted by name; a file's stem is the default name.

    Raises ConfigurationError naming file, key and rule.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            f"The folder of experiments {folder} does not exist; create it or change the setting."
        )
    found: dict[str, Path] = {}
    experiments = []
    for path in sorted(folder.glob("*.toml")):
        experiment = load_experiment(path)
        if experiment.name in found:
            raise ConfigurationError(
                f"{path}: name: {experiment.name!r} is already the experiment of {found[experiment.name].name}."
            )
        found[experiment.name] = path
        experiments.append(experiment)
    if len(experiments) > MAX_EXPERIMENTS:
        raise ConfigurationError(
            f"{folder} has {len(experiments)} experiments; at most {MAX_EXPERIMENTS:,} can run."
        )
    return tuple(sorted(experiments, key=lambda experiment: experiment.name))


def load_experiment(path: Path) -> Experiment:
    """The experiment of one TOML file. Raises ConfigurationError naming file, key and rule."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    try:
        return Experiment.model_validate(_as_fields(path, content))
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {'; '.join(_sentences(error))}.") from error


def _as_fields(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    fields = _with_moment(path, {"name": path.stem} | content, "ends_at")
    if isinstance(phases := fields.get("phases"), list):
        fields["phases"] = [
            _with_moment(path, phase, "starts_at") if isinstance(phase, dict) else phase for phase in phases
        ]
    if isinstance(guardrails := fields.get("guardrails"), list):
        fields["guardrails"] = [_with_durations(path, rule, "hold", "cooldown") for rule in guardrails]
    if "promotion" in fields:
        fields["promotion"] = _with_durations(path, fields["promotion"], "min_runtime")
    return fields


def _with_durations(path: Path, fields: Any, *keys: str) -> Any:
    """The durations under `keys` as the model has them, `key`_ms."""
    if not isinstance(fields, dict):
        return fields
    converted = dict(fields)
    for key in keys:
        if f"{key}_ms" in fields:
            raise ConfigurationError(f'{path}: {key}_ms is not a key; write {key} = "30s".')
        if key in fields:
            try:
                converted[f"{key}_ms"] = duration_ms(converted.pop(key))
            except ValueError as error:
                raise ConfigurationError(f"{path}: {key}: {error}.") from None
    return converted


def _with_moment(path: Path, fields: dict[str, Any], key: str) -> dict[str, Any]:
    """The date under `key` as the model has it, `key`_ms."""
    if f"{key}_ms" in fields:
        raise ConfigurationError(f"{path}: {key}_ms is not a key; write {key} = 2026-12-01T00:00:00Z.")
    if key not in fields:
        return fields
    if isinstance(fields[key], int):
        raise ConfigurationError(f"{path}: {key} must be a date with a time, such as 2026-12-01T00:00:00Z.")
    return {k: v for k, v in fields.items() if k != key} | {f"{key}_ms": fields[key]}


def _sentences(error: ValidationError) -> list[str]:
    keys = ["ends_at" if field == "ends_at_ms" else field for field in Experiment.model_fields]
    found = violations(error, keys, what="key of an experiment file")
    return [
        re.sub(r"\b(ends_at|starts_at|hold|cooldown|min_runtime)_ms\b", r"\1", str(violation))
        for violation in found
    ]
