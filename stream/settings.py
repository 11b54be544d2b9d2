"""Settings: `liftstream.toml` in the working directory and `LIFTSTREAM_*` variables (the environment wins)."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from stream.access import PREFIX, BrokerAccess
from stream.contracts.definitions import Definitions, duration_ms, load_experiments
from stream.contracts.models import Currency
from stream.contracts.topics import DEFAULT_PREFIX, Topic
from stream.contracts.violations import violations
from stream.errors import ConfigurationError
from stream.results.rules import MIN_SLICE_USERS, Rules
from stream.stats.confidence import DEFAULT_ALPHA, DEFAULT_CONCENTRATION, DEFAULT_TUNING, Confidence

FILE = "liftstream.toml"
SLICEABLE = ("item_id", "surface", "model", "model_version", "country", "device", "category")


def _parse_duration(value: Any) -> timedelta:
    return timedelta(milliseconds=duration_ms(value))


def _parse_list(text: Any) -> Any:
    """`a,b` as ("a", "b"); a TOML array as it is."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


def _check_clickhouse_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.hostname:
        return url
    if parts.scheme == "chdb" and not parts.netloc and parts.path.startswith("/"):
        return url
    raise ValueError("must be http(s)://user:password@host:port/database or chdb:///path")


def _check_webhook_url(url: str | None) -> str | None:
    if url is not None and not (urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname):
        raise ValueError("must be http(s)://host/path")
    return url


def _check_dimensions(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in SLICEABLE:
            raise ValueError(f"{name!r} is not among {', '.join(SLICEABLE)}")
    return names


def _absolute_store(url: str) -> str:
    """A plain or relative path becomes an absolute file:// URL; other URLs stay."""
    scheme, colon, path = url.partition("://")
    if not colon:
        return Path(url).absolute().as_uri()
    return Path(unquote(path)).absolute().as_uri() if scheme == "file" else url


def _default_memory_limit() -> ByteSize:
    """Half of the memory this process may use: the control group's limit or the machine's."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    granted = limit.read_text().strip() if limit.exists() else ""
    return ByteSize(min(physical, int(granted) if granted.isdigit() else physical) // 2)


def _default_experiments() -> Path | None:
    return Path("experiments") if Path("experiments").is_dir() else None


Duration = Annotated[timedelta, BeforeValidator(_parse_duration)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_list)]


class Settings(BrokerAccess, BaseSettings):
    """All settings. Read them with `Settings.load()`, which turns every mistake into one sentence."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, toml_file=FILE, extra="forbid", frozen=True, validate_default=True
    )

    clickhouse_url: Annotated[str, AfterValidator(_check_clickhouse_url)] = Field(
        "http://default:@127.0.0.1:8123/liftstream",
        repr=False,  # it holds a password
        description="ClickHouse: `http(s)://user:password@host:port/database`, or `chdb:///path` (embedded).",
    )
    checkpoints: Annotated[str, AfterValidator(_absolute_store)] = Field(
        "checkpoints",
        description="Checkpoint store: a folder, or an obstore URL (`s3://`, `gs://`, `az://`, `file://`).",
    )
    experiments: Path | None = Field(
        default_factory=_default_experiments,
        description="Folder of experiment files, one TOML file each. Default: `experiments`, if there is one.",
    )
    topic_prefix: str = Field(DEFAULT_PREFIX, description="What every topic name starts with.")
    topic_partitions: int = Field(
        4, gt=0, description="Partitions of the topics that `liftstream migrate` creates."
    )
    topic_replicas: int = Field(
        1, gt=0, description="Replicas of the topics that `liftstream migrate` creates."
    )
    group: str = Field("liftstream", min_length=1, description="Kafka consumer group of the workers.")
    registry_url: str | None = Field(
        None, description="Schema registry (Confluent API); without one, schema ids resolve from `schemas/`."
    )
    allowed_lateness: Duration = Field(
        timedelta(hours=24), description="How far an event may be behind its partition's clock."
    )
    attribution_window: Duration = Field(
        timedelta(hours=24), description="How long after an impression an interaction is credited to it."
    )
    conversion_kinds: Names = Field(("purchase",), description="Interaction kinds that are conversions.")
    currency: Currency = Field("EUR", description="Currency (ISO 4217) of experiments that declare none.")
    slice_dimensions: Annotated[Names, AfterValidator(_check_dimensions)] = Field(
        ("country", "device", "category", "surface", "model_version"),
        description="Impression fields whose values are slices.",
    )
    memory_limit: ByteSize = Field(
        default_factory=_default_memory_limit,
        gt=0,
        description="Memory for state, `4GiB`; a worker at its limit pauses. Default: half of the machine's.",
    )
    outbox_limit: ByteSize = Field(
        ByteSize(256 << 20),
        gt=0,
        description="Rows that wait for ClickHouse, in bytes; at it, or at a quarter for Kafka, a worker pauses.",
    )
    rows_per_second: int = Field(
        200_000,
        ge=1_000,
        description="Rows a second that a worker sends to ClickHouse at most, over any ten seconds; where more would "
        "come, steps take up to ten seconds.",
    )
    breaker_rows: int = Field(
        10_000, ge=1_000, description="Newest events of a partition that the breaker looks at."
    )
    breaker_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="The breaker trips when more than this part of them was rejected; `1`: never.",
    )
    breaker_action: Literal["report", "stop"] = Field(
        "report",
        description="When it trips: `report` (unready, log, metric; counting goes on) or `stop` (the worker ends).",
    )
    stall_timeout: Duration = Field(
        timedelta(minutes=5),
        description="A worker that stands still for so long ends itself; after half of it `/healthz` says 503.",
    )
    behind_after: Duration = Field(
        timedelta(minutes=1),
        description="A worker is unready while records wait and its newest counted one is older than this.",
    )
    silent_after: Duration = Field(
        timedelta(minutes=10),
        description="A topic that had records and has had none for so long is reported.",
    )
    alpha: float = Field(
        DEFAULT_ALPHA, gt=0, lt=1, description="How often the intervals of results may miss the truth."
    )
    tuning: int = Field(
        DEFAULT_TUNING,
        gt=0,
        description="Users in both arms at which the always-valid interval is tightest; choose it before the data.",
    )
    srm_concentration: int = Field(
        DEFAULT_CONCENTRATION,
        gt=0,
        description="k of the sequential sample ratio test; best at a quarter of the users expected.",
    )
    min_slice_users: int = Field(
        MIN_SLICE_USERS, ge=2, description="A slice with fewer users in either arm has no interval."
    )
    step_seconds: float = Field(1.0, gt=0, le=60, description="Pause between the starts of two steps.")
    stay_in_group: bool = Field(
        False,
        description="After SIGTERM: `false`: other workers take over at once. `true`: a restart within 6 s gets its "
        "partitions back without a rebalance; else the others take over after that.",
    )
    web_host: str = Field(
        "127.0.0.1", description="Address of a worker's `/healthz`, `/readyz` and `/metrics`."
    )
    web_port: int = Field(
        6066, ge=1, le=65535, description="Port of the same; when it is taken, any free one, said in the log."
    )

    armed: bool = Field(
        False, description="Whether decisions act (message, webhook, flag file), not only are recorded."
    )
    webhook_url: Annotated[str | None, AfterValidator(_check_webhook_url)] = Field(
        None,
        repr=False,  # its path may be a secret
        description="Address that gets every decision as signed JSON by POST.",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        repr=False,
        description="Secret that webhooks are signed with (HMAC-SHA256); needed with `webhook_url`.",
    )
    flag_file: Path | None = Field(
        None, description="File in flagd's format that says which arms are switched off."
    )

    @field_validator("flag_file")
    @classmethod
    def _has_folder(cls, file: Path | None) -> Path | None:
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise ValueError("must be a file in an existing folder")
        return file

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> Self:
        if self.webhook_url is not None and not (
            self.webhook_secret and self.webhook_secret.get_secret_value()
        ):
            raise ConfigurationError(
                f"Webhooks are signed: set {PREFIX}WEBHOOK_SECRET to a secret that the receiver knows too."
            )
        return self

    @field_validator("experiments")
    @classmethod
    def _folder_exists(cls, folder: Path | None) -> Path | None:
        if folder is not None and not folder.is_dir():
            raise ValueError("must be an existing folder")
        return folder

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Settings of this process; `overrides` win over the environment. Raises ConfigurationError."""
        _refuse_unknown_variables(os.environ)
        try:
            return cls(**overrides)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{FILE} is not valid TOML: {error}.") from None
        except ValidationError as error:
            raise ConfigurationError(_sentence(error)) from None

    def topic(self, topic: Topic) -> str:
        """The full name of an input topic."""
        return self.topic_prefix + topic.word

    @property
    def partials_topic(self) -> str:
        """The full name of the topic between the two agents."""
        return self.topic_prefix + "arm-partials"

    @property
    def dead_letters_topic(self) -> str:
        """The full name of the topic of rejected records."""
        return self.topic_prefix + "dead-letters"

    @property
    def decisions_topic(self) -> str:
        """The full name of the topic of decisions."""
        return self.topic_prefix + "decisions"

    def definitions(self) -> Definitions:
        """What decides the numbers: the settings that do, and the experiment files. Raises ConfigurationError."""
        return Definitions(
            allowed_lateness_ms=_milliseconds(self.allowed_lateness),
            attribution_window_ms=_milliseconds(self.attribution_window),
            conversion_kinds=self.conversion_kinds,
            currency=self.currency,
            slice_dimensions=self.slice_dimensions,
            experiments=load_experiments(self.experiments) if self.experiments else (),
        )

    def rules(self) -> Rules:
        """What results depend on besides the definitions."""
        return Rules(
            confidence=Confidence(self.alpha, self.tuning),
            concentration=self.srm_concentration,
            min_slice_users=self.min_slice_users,
            attribution_window_ms=_milliseconds(self.attribution_window),
        )


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = [PREFIX + field.upper() for field in Settings.model_fields]
    for name in environment:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise ConfigurationError(f"There is no setting {name}: {_nearest(name.upper(), known)}")


def _sentence(error: ValidationError) -> str:
    """The first mistake as one sentence that names the setting, where it was found, and the rule."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"There is no setting {name} ({FILE}): {_nearest(name, list(Settings.model_fields))}"
    variable = PREFIX + name.upper()
    where = variable if variable in os.environ else f"{name} ({FILE} or {variable})"
    rule = violations(error)[0].rule.removeprefix("Value error, ")
    value = repr(first["input"])
    shown = "" if Settings.model_fields[name].repr is False or value in rule else f" {value}"
    return f"Setting {where}: the value{shown} is wrong: {rule}."
