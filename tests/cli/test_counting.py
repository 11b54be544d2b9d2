"""`backfill` from the command line: what was simulated is what is counted."""

import json
from pathlib import Path

import pytest

from stream.contracts.topics import Topic
from tests.cli.conftest import Run


@pytest.fixture
def traffic(run: Run, tmp_path: Path) -> tuple[Path, dict[str, dict[str, int]]]:
    """A folder of simulated files, and what was sent per arm."""
    folder = tmp_path / "traffic"
    result = run("simulate", "--to", folder, "--seconds", 20, "--rate", 200, "--conversion", "control=0.03")
    return folder, {arm: found["sent"] for arm, found in json.loads(result.stdout)["arms"].items()}


def files_of(folder: Path) -> list[object]:
    return [word for topic in Topic for word in (f"--{topic.word}", folder / f"{topic.word}.jsonl")]


def test_the_results_are_the_truth(
    run: Run, tmp_path: Path, traffic: tuple[Path, dict[str, dict[str, int]]]
) -> None:
    folder, sent = traffic
    result = run("backfill", *files_of(folder), "--into", tmp_path / "counted")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(run("results", "--into", tmp_path / "counted", "--slice", "all", "--json").stdout)
    assert {row["arm"]: {name: row[name] for name in sent[row["arm"]]} for row in rows} == sent
    assert run("ledger", "--into", tmp_path / "counted", "--check").exit_code == 0
    query = "SELECT sum(impressions) AS n FROM arm_rolling WHERE window = '24h'"
    (rolling,) = json.loads(run("sql", query, "--into", tmp_path / "counted", "--json").stdout)
    all_sent = sum(counts["impressions"] for counts in sent.values())
    assert 0.4 * all_sent <= rolling["n"] <= all_sent  # without the pane that is not over


def test_results_compare_by_the_rules_that_counted(
    run: Run, tmp_path: Path, traffic: tuple[Path, dict[str, dict[str, int]]]
) -> None:
    files = tmp_path / "experiments"
    files.mkdir()
    (files / "simulated.toml").write_text(
        'control = "treatment"\n[arms.control]\nshare = 0.5\n[arms.treatment]\nshare = 0.5\n'
    )
    into = tmp_path / "counted"
    assert run("backfill", *files_of(traffic[0]), "--into", into, "--experiments", files).exit_code == 0
    rows = json.loads(run("results", "--into", into, "--slice", "all", "--json").stdout)
    (ctr,) = [m for row in rows for m in row["metrics"] if (m["metric"], m["arm"]) == ("ctr", "control")]
    assert (ctr["control"], ctr["reason"]) == ("treatment", None)
    stored = run(
        "sql", "SELECT count() AS n FROM experiment_results WHERE p_always < 2", "--into", into, "--json"
    )
    assert json.loads(stored.stdout)[0]["n"] > 5
    assert json.loads(run("health", "--into", into, "--json").stdout)[0]["srm"]["p_fixed"] is not None


def test_bad_records_are_named_and_the_others_counted(
    run: Run, tmp_path: Path, traffic: tuple[Path, dict[str, dict[str, int]]]
) -> None:
    folder, sent = traffic
    with (folder / "impressions.jsonl").open("a") as file:
        file.write('{"event_id": "x", "position": -1}\n')
    with (folder / "assignments.jsonl").open("a") as file:
        far = '{"event_id": "far", "at": 253402300799999, "user_id": "u", "experiment": "e", "arm": "a"}'
        file.write(f"\n\n{far}\n")
    lines = len((folder / "assignments.jsonl").read_text().splitlines())
    result = run(
        "backfill", *files_of(folder), "--into", tmp_path / "counted", "--rejects", tmp_path / "rejects"
    )
    assert result.exit_code == 1
    assert "impressions.jsonl:4001: at: is required" in result.stderr
    assert (
        f"assignments.jsonl:{lines}: at: " in result.stderr
    )  # rejected by the engine; blank lines are counted
    assert '{"event_id": "x", "position": -1}\n' in (tmp_path / "rejects").read_text()
    rows = json.loads(run("results", "--into", tmp_path / "counted", "--slice", "all", "--json").stdout)
    assert {row["arm"]: row["impressions"] for row in rows} == {
        arm: counts["impressions"] for arm, counts in sent.items()
    }


def test_a_missing_file_is_one_sentence(run: Run, tmp_path: Path) -> None:
    result = run("backfill", "--impressions", tmp_path / "nothing.jsonl", "--into", tmp_path / "counted")
    assert result.exit_code == 1
    assert result.stderr.startswith("liftstream: ")
    assert "nothing.jsonl cannot be read" in result.stderr
    assert not (tmp_path / "counted").exists()


def test_no_file_at_all_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    assert run("backfill", "--into", tmp_path / "counted").exit_code == 2
