"""Runs commands as a person would, in an empty folder and without LIFTSTREAM_* variables."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stream.cli import main
from stream.settings import PREFIX
from stream.sink.connect import connect
from stream.sink.migrate import migrate
from stream.sink.writer import Writer
from tests.sink.makers import a_ledger_row, a_total, an_emission

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and no LIFTSTREAM_* variables."""
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Run:
    """`run("results", "--json")` gives exit code, stdout and stderr."""
    return lambda *words: CliRunner().invoke(main, [str(word) for word in words], prog_name="liftstream")


@pytest.fixture
def counted(tmp_path: Path) -> Path:
    """A folder with an embedded database that holds a few totals and a ledger."""
    folder = tmp_path / "counted"
    with connect(f"chdb://{folder}/clickhouse") as connection:
        client = connection.client()
        migrate(client)
        client.close()
        writer = Writer(connection.client, interval_seconds=0)
        writer.put(
            an_emission(
                totals=[
                    a_total(
                        arm="a",
                        assigned_users=900,
                        exposed_users=900,
                        impressions=1_000,
                        clicked_impressions=46,
                        revenue_minor=250,
                    ),
                    a_total(
                        arm="b",
                        assigned_users=800,
                        exposed_users=800,
                        impressions=1_000,
                        clicked_impressions=69,
                    ),
                    a_total(arm="b", dimension="country", value="DE", assigned_users=3),
                ],
                ledger=[a_ledger_row(consumed=10, counted=7, duplicate=2, late=1)],
            )
        )
        now_ms = int(time.time() * 1000)
        said = {
            "worker": ["host-1"], "heard_at_ms": [now_ms], "is_ready": [0], "reasons": ["ClickHouse is slow."],
            "warnings": [""], "assignments_at_ms": [None], "impressions_at_ms": [now_ms], "interactions_at_ms": [None],
        }  # fmt: skip
        writer.put_rows("workers", said, generation=1, version=now_ms)
        assert writer.drain(30)
        writer.close()
    return folder
