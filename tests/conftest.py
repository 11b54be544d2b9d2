"""Fixtures for real services. Where one cannot run, tests that need it are skipped; under CI=true fail."""

import os
import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer
from tests.services.s3 import BUCKET, S3Server
from tests.services.tools import ServiceMissing

hypothesis.settings.register_profile("shared machine", deadline=None)  # a slow minute is no fault of the code
hypothesis.settings.load_profile("shared machine")

MISSING = "real service not available: "


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """A real broker for the whole run; tests use topics and groups of their own (`unique`)."""
    try:
        server = KafkaServer()
    except ServiceMissing as why:
        _missing("Apache Kafka", why)
    with server:
        yield server


@pytest.fixture(scope="session")
def clickhouse_server() -> Iterator[ClickHouseServer]:
    """A real ClickHouse server for the whole run; tests use databases of their own (`unique`)."""
    try:
        server = ClickHouseServer()
    except ServiceMissing as why:
        _missing("ClickHouse", why)
    with server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole run; tests use prefixes of their own."""
    try:
        server = S3Server(tmp_path_factory.mktemp("s3"))
    except ServiceMissing as why:
        _missing("S3", why)
    with server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, unique: str) -> str:
    """The URL of an empty place in that server; the environment has what it takes to get there."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{unique}"


@pytest.fixture
def unique() -> str:
    """A word no other test has: for topic prefixes, consumer groups and databases."""
    return f"t{uuid.uuid4().hex[:10]}"


def _missing(service: str, why: ServiceMissing) -> None:
    text = f"{MISSING}{service}: {why}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line that names the real services this run did without."""
    skipped: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", ()):
        text = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if MISSING in text:
            why = text.partition(MISSING)[2]
            skipped[why] = skipped.get(why, 0) + 1
    for why, count in skipped.items():
        terminalreporter.write_line(f"NOT RUN, {count} tests: {MISSING}{why}", yellow=True, bold=True)
