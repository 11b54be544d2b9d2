"""The commands that read: results, ledger, status, sql."""

import json
from pathlib import Path

import pytest
from scipy import stats

from stream.sink.connect import connect
from stream.sink.queries import RESULT_COLUMNS
from stream.sink.writer import Writer
from tests.cli.conftest import Run
from tests.sink.makers import a_ledger_row, an_emission


def test_results_as_json_are_rows_with_every_column(run: Run, counted: Path) -> None:
    result = run("results", "--into", counted, "--json")
    assert result.exit_code == 0
    rows = {(row["arm"], row["slice"]): row for row in json.loads(result.stdout)}
    assert set(rows) == {("a", "all"), ("b", "all"), ("b", "country=DE")}
    assert tuple(rows["a", "all"]) == (*RESULT_COLUMNS, "metrics")
    assert rows["a", "all"]["ctr"] == 0.046
    (ctr,) = [row for row in rows["a", "all"]["metrics"] if row["metric"] == "ctr"]
    assert (ctr["value"], ctr["difference"], ctr["reason"]) == (0.046, None, "no_control")


def test_results_can_be_narrowed(run: Run, counted: Path) -> None:
    result = run("results", "--into", counted, "--json", "--slice", "country=DE")
    assert [row["arm"] for row in json.loads(result.stdout)] == ["b"]
    refused = run("results", "--into", counted, "--json", "--experiment", "other")
    assert refused.exit_code == 1
    assert "'other': known are shelf." in refused.stderr


def test_results_for_people_are_a_table(run: Run, counted: Path) -> None:
    result = run("results", "--into", counted)
    assert result.exit_code == 0
    assert "no control, so values only" in result.stdout
    assert "0.046" in result.stdout
    assert "1 slices are not shown" in result.stderr


def test_experiment_files_may_be_given_after_the_counting(run: Run, counted: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "shelf.toml").write_text('control = "a"\n[arms.a]\nshare = 0.5\n[arms.b]\nshare = 0.5\n')
    words = ("--into", counted, "--experiments", files)
    assert "against a" in run("results", *words).stdout
    (health,) = json.loads(run("health", *words, "--json").stdout)
    assert health["srm"]["p_fixed"] == pytest.approx(stats.chisquare([900, 800]).pvalue, rel=1e-10)


def test_health_says_what_is_wrong_and_exits_with_1(run: Run, counted: Path, tmp_path: Path) -> None:
    assert run("health", "--into", counted).exit_code == 0
    files = tmp_path / "files"
    files.mkdir()
    (files / "shelf.toml").write_text("[arms.a]\nshare = 0.01\n[arms.b]\nshare = 0.99\n")
    result = run("health", "--into", counted, "--experiments", files)
    assert result.exit_code == 1
    assert "broken" in result.stdout
    assert "a has 52.94% of 1,700 users where 1.00% were planned" in result.stdout


def test_health_of_an_unknown_experiment_names_the_known_ones(run: Run, counted: Path) -> None:
    result = run("health", "--into", counted, "--experiment", "other", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "known are shelf" in result.stderr


def test_the_configured_database_is_read_without_into(run: Run, counted: Path) -> None:
    (Path("liftstream.toml")).write_text(f'clickhouse_url = "chdb://{counted}/clickhouse"')
    assert run("results").exit_code == 0


def test_a_ledger_that_adds_up_passes_the_check(run: Run, counted: Path) -> None:
    result = run("ledger", "--into", counted, "--check")
    assert result.exit_code == 0
    assert "All 10 events are accounted for." in result.stderr


def test_a_ledger_that_does_not_add_up_fails_the_check(run: Run, counted: Path) -> None:
    with connect(f"chdb://{counted}/clickhouse") as connection:
        writer = Writer(connection.client, interval_seconds=0)
        writer.put(an_emission(2, ledger=[a_ledger_row(consumed=10, counted=6, duplicate=2, late=1)]))
        assert writer.drain(30)
        writer.close()
    result = run("ledger", "--into", counted, "--check")
    assert result.exit_code == 1
    assert "1 rows do not add up." in result.stderr
    assert run("ledger", "--into", counted).exit_code == 0


def test_status_shows_what_workers_say_against_themselves(run: Run, counted: Path) -> None:
    said = run("status", "--into", counted)
    assert "ClickHouse is slow." in said.stderr
    (row,) = json.loads(run("status", "--workers", "--into", counted, "--json").stdout)
    assert (row["worker"], row["ready"], row["reasons"]) == ("host-1", False, "ClickHouse is slow.")
    assert row["impressions_at"] is not None
    assert row["assignments_at"] is None


def test_status_shows_each_partition(run: Run, counted: Path) -> None:
    (row,) = json.loads(run("status", "--into", counted, "--json").stdout)
    assert row["last_step"] == 1


def test_sql_answers_one_question(run: Run, counted: Path) -> None:
    result = run(
        "sql",
        "SELECT arm, impressions FROM arm_totals WHERE slice = 'all' ORDER BY arm",
        "--into",
        counted,
        "--json",
    )
    assert json.loads(result.stdout) == [
        {"arm": "a", "impressions": 1_000},
        {"arm": "b", "impressions": 1_000},
    ]


def test_sql_changes_nothing(run: Run, counted: Path) -> None:
    result = run("sql", "DROP TABLE totals", "--into", counted)
    assert result.exit_code == 1
    assert result.stderr.startswith("liftstream: Only questions are allowed here")


def test_a_folder_without_a_database_is_one_sentence(run: Run, tmp_path: Path) -> None:
    result = run("results", "--into", tmp_path / "nothing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "There is no database in" in result.stderr
