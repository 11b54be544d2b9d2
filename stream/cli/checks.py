"""The doctor's checks: each looks at one thing and says what it found and, if that is a problem, what to do."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from stream.cli.memory import Load, counted_load, terms, told
from stream.contracts.topics import Topic
from stream.durability.store import open_store
from stream.errors import ConfigurationError, DirectoryInUse, LiftstreamError
from stream.local.database import open_database
from stream.settings import Settings
from stream.sink.connect import connect
from stream.sink.migrate import migrations
from stream.topics import disagreements, partition_counts

MAX_SKEW_SECONDS = 60.0  # of the 5 minutes that an event may be ahead of Kafka's clock


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


def findings(said: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything, in an order in which a later check needs the earlier ones. said: fields of Load that are known."""
    yield check_python()
    yield check_packages()
    try:
        settings = Settings.load()
        definitions = settings.definitions()
    except LiftstreamError as error:
        yield Finding("settings", "wrong", str(error))
        return
    yield Finding("settings", f"{len(definitions.experiments)} experiment files")
    with ThreadPoolExecutor(3) as pool:  # what is away is waited for
        broker = pool.submit(_guarded, "broker", check_topics, settings)
        database = pool.submit(_guarded, "database", check_database, settings)
        checkpoints = pool.submit(_guarded, "checkpoints", check_checkpoints, settings)
    yield from (*broker.result(), *database.result(), *checkpoints.result())
    counted = load_so_far(settings) if all(found.is_ok for found in database.result()) else None
    load = replace(counted or Load(), **said)
    yield check_memory(settings, load, settings.topic_partitions)


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


def check_memory(settings: Settings, load: Load, partitions: int) -> Finding:
    """Whether the state of this load fits into the memory limit."""
    found = terms(load, settings.allowed_lateness, settings.attribution_window, partitions)
    needed = sum(term.nbytes for term in found)
    says = f"{told(found)}; the limit of a worker is {settings.memory_limit / 2**30:.1f} GiB"
    if needed <= settings.memory_limit:
        return Finding("memory", says)
    workers = -(-needed // settings.memory_limit)
    return Finding(
        "memory",
        says,
        f"Run {workers} workers on machines of their own, raise memory_limit, or lower allowed_lateness.",
    )


def load_so_far(settings: Settings) -> Load | None:
    """What the database has counted, as a load; None when there is none or it does not answer."""
    try:
        db = open_database(settings.clickhouse_url)
    except LiftstreamError:
        return None
    try:
        return counted_load(db, {topic: settings.topic(topic) for topic in Topic})
    finally:
        db.close()


def _guarded(name: str, check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(settings))
    except DirectoryInUse as error:
        found.append(Finding(name, f"in use: {error}"))
    except LiftstreamError as error:
        found.append(Finding(name, "not usable", str(error)))
    return found


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
