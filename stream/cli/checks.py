"""The doctor's checks: each looks at one thing and says what it found and, if that is a problem, what to do."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, requires, version

from stream.durability.store import open_store
from stream.errors import ConfigurationError, DirectoryInUse, LiftstreamError
from stream.settings import Settings
from stream.sink.connect import connect
from stream.sink.migrate import migrations
from stream.topics import disagreements, partition_counts

MAX_SKEW_SECONDS = 60.0  # of the 5 minutes that an event may be ahead of Kafka's clock

# What the state holds of each, in bytes; with the tables' slack.
REMEMBERED_ID_BYTES = 24
IMPRESSION_BYTES = 79
INTERACTION_BYTES = 59
USER_EXPERIMENT_BYTES = 104


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. advice: what to do; '' when all is well."""

    check: str
    found: str
    advice: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether nothing needs to be done."""
        return not self.advice


@dataclass(frozen=True, slots=True)
class Load:
    """What the memory is computed for: events a second, and pairs of a user and an experiment that runs."""

    impressions_per_second: float
    interactions_per_second: float
    user_experiments: int


def findings(load: Load) -> Iterator[Finding]:
    """Everything, in an order in which a later check needs the earlier ones."""
    yield check_python()
    yield check_packages()
    try:
        settings = Settings.load()
        definitions = settings.definitions()
    except LiftstreamError as error:
        yield Finding("settings", "wrong", str(error))
        return
    yield Finding("settings", f"{len(definitions.experiments)} experiment files")
    yield from _guarded("broker", check_topics, settings)
    yield from _guarded("database", check_database, settings)
    yield from _guarded("checkpoints", check_checkpoints, settings)
    yield check_memory(settings, load)


def check_python() -> Finding:
    """Python's version."""
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", found, "" if sys.version_info >= (3, 11) else "Install Python 3.11 or newer.")


def check_packages() -> Finding:
    """Whether everything that liftstream requires is installed."""
    needed = [
        re.split(r"[^A-Za-z0-9._-]", line)[0]
        for line in requires("liftstream") or ()
        if "extra ==" not in line
    ]
    missing = [name for name in needed if not _is_installed(name)]
    advice = f"Missing: {', '.join(missing)}: pip install liftstream." if missing else ""
    return Finding(
        "packages", f"liftstream {version('liftstream')}, {len(needed) - len(missing)} packages", advice
    )


def check_topics(settings: Settings) -> Iterator[Finding]:
    """Whether the broker answers, and the topics exist and agree."""
    counts = partition_counts(settings)
    yield Finding("broker", settings.broker)
    shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
    yield Finding("topics", f"partitions: {shown}", " ".join(disagreements(settings, counts)))


def check_database(settings: Settings) -> Iterator[Finding]:
    """Whether ClickHouse answers, is migrated, and has the same time."""
    with connect(settings.clickhouse_url, create=False) as connection:
        client = connection.read_only_client()
        now, server = client.query("SELECT toUnixTimestamp64Milli(now64(3)), version()").result_rows[0]
        skew_seconds = abs(now / 1000 - time.time())
        tables = client.query("SELECT name FROM system.tables WHERE database = currentDatabase()").result_rows
        applied = (
            client.query("SELECT max(number) FROM migrations").result_rows[0][0]
            if ("migrations",) in tables
            else 0
        )
        client.close()
    newest = migrations()[-1].number
    yield Finding("database", f"ClickHouse {server} at {connection.where}")
    yield Finding(
        "migrations", f"{applied} of {newest}", "" if applied >= newest else "Run liftstream migrate."
    )
    late = skew_seconds > MAX_SKEW_SECONDS
    yield Finding(
        "clock",
        f"{skew_seconds:.1f} s from ClickHouse's",
        "Synchronise the clocks (NTP): events from the future are rejected." if late else "",
    )


def check_checkpoints(settings: Settings) -> Iterator[Finding]:
    """Whether the checkpoint store takes a new object, refuses it a second time, and gives it back."""
    store = open_store(settings.checkpoints)
    try:
        store.refuse_without_put_if_absent()
    except ConfigurationError as error:
        yield Finding("checkpoints", settings.checkpoints, str(error))
    else:
        yield Finding("checkpoints", settings.checkpoints)


def check_memory(settings: Settings, load: Load) -> Finding:
    """Whether the state of this load fits into the memory limit."""
    needed = memory_bytes(load, settings.allowed_lateness, settings.attribution_window)
    found = f"{_gib(needed)} for {load.impressions_per_second:,g} impressions and "
    found += f"{load.interactions_per_second:,g} interactions a second, {load.user_experiments:,} users in experiments"
    if needed <= settings.memory_limit:
        return Finding("memory", f"{found}; the limit is {_gib(settings.memory_limit)}")
    workers = -(-needed // settings.memory_limit)
    return Finding(
        "memory",
        f"{found}; the limit is {_gib(settings.memory_limit)}",
        f"Run {workers} workers on machines of their own, raise memory_limit, or lower allowed_lateness.",
    )


def memory_bytes(load: Load, lateness: timedelta, window: timedelta) -> int:
    """Bytes of state over all partitions: rate times how long it is held times its size.

    Ids and interactions are held for the lateness; impressions until no interaction can be credited to them.
    """
    rows = load.impressions_per_second + load.interactions_per_second
    held = (
        rows * lateness.total_seconds() * REMEMBERED_ID_BYTES
        + load.impressions_per_second * (lateness + window).total_seconds() * IMPRESSION_BYTES
        + load.interactions_per_second * lateness.total_seconds() * INTERACTION_BYTES
        + load.user_experiments * USER_EXPERIMENT_BYTES
    )
    return round(held)


def _guarded(
    name: str, check: Callable[[Settings], Iterator[Finding]], settings: Settings
) -> Iterator[Finding]:
    try:
        yield from check(settings)
    except DirectoryInUse as error:
        yield Finding(name, f"in use: {error}")
    except LiftstreamError as error:
        yield Finding(name, "not usable", str(error))


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
