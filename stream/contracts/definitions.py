"""What the numbers depend on besides the events: experiments (one TOML file each) and the settings that count."""

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from stream.contracts.limits import MAX_ARMS, MAX_EXPERIMENTS
from stream.contracts.models import Currency, Text, epoch_ms
from stream.contracts.violations import violations
from stream.errors import ConfigurationError

DAY_MS = 86_400_000
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


class Arm(_Definition):
    """One arm. share: its part of the traffic, for the sample ratio; None: not declared."""

    share: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False, strict=True)


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

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that differ whenever a definition does."""
        return hashlib.blake2b(self.to_json(), digest_size=8).hexdigest()

    def experiment(self, name: str) -> Experiment:
        """The experiment with this name; one without a file has the defaults."""
        return next((known for known in self.experiments if known.name == name), Experiment(name=name))

    def to_json(self) -> bytes:
        """Canonical: equal definitions give equal bytes."""
        content = self.model_dump(mode="json")
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """The definitions that `to_json` wrote."""
        return cls.model_validate_json(content)


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
    fields = {"name": path.stem} | content
    if "ends_at_ms" in fields:
        raise ConfigurationError(f"{path}: ends_at_ms is not a key; write ends_at = 2026-12-01T00:00:00Z.")
    if "ends_at" in fields:
        fields["ends_at_ms"] = fields.pop("ends_at")
        if isinstance(fields["ends_at_ms"], int):
            raise ConfigurationError(
                f"{path}: ends_at must be a date with a time, such as 2026-12-01T00:00:00Z."
            )
    return fields


def _sentences(error: ValidationError) -> list[str]:
    keys = ["ends_at" if field == "ends_at_ms" else field for field in Experiment.model_fields]
    found = violations(error, keys, what="key of an experiment file")
    return [str(violation).replace("ends_at_ms", "ends_at") for violation in found]
