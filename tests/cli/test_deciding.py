"""`experiments plan`, `promote` and `undo`, and `decisions`, on an embedded database."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from stream.cli import main
from stream.contracts.topics import Topic
from stream.decisions.book import Book, Page
from stream.decisions.rows import decision_columns
from stream.durability.store import open_store
from stream.sink.connect import connect
from stream.sink.writer import Writer
from stream.stats.confidence import Confidence
from stream.stats.sample_size import Plan, users_always, users_fixed
from tests.cli.conftest import Run
from tests.decisions.makers import a_decision


@pytest.fixture(scope="module")
def counted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backfilled experiment `ranker`: control old, CTR 0.2 and 0.3."""
    folder = tmp_path_factory.mktemp("trial")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "ranker.toml").write_text('control = "old"\n[arms.old]\n[arms.new]\n')
    arms = ("--ctr", "old=0.2", "--ctr", "new=0.3", "--experiment", "ranker")
    amount = ("--users", "200", "--seconds", "10", "--rate", "100")
    files = [word for topic in Topic for word in (f"--{topic.word}", str(folder / f"{topic.word}.jsonl"))]
    for words in (
        ("simulate", *arms, *amount, "--to", str(folder)),
        ("backfill", *files, "--experiments", str(folder / "experiments"), "--into", str(folder / "into")),
    ):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
    return folder / "into"


@pytest.fixture
def trial(counted_once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(counted_once, tmp_path / "trial", symlinks=True))


WHO = ("--by", "ann", "--why", "two weeks of it")


def test_a_plan_says_users_and_days_for_both_intervals(run: Run) -> None:
    result = run(
        "experiments", "plan", "--lift", "5%", "--rate", "0.04", "--users-per-day", "20000", "--json"
    )
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    plan = Plan.of_proportion(0.04, 0.05)
    fixed, always = answer["plans"]
    assert (fixed["interval"], fixed["users"]) == ("fixed", users_fixed(plan, Confidence()))
    assert (always["interval"], always["users"]) == ("always-valid", users_always(plan, Confidence()))
    assert always["days"] == -(-always["users"] // 20_000)
    assert answer["difference"] == pytest.approx(0.002)


def test_a_plan_for_a_mean_takes_its_spread(run: Run) -> None:
    result = run("experiments", "plan", "--lift", "0.05", "--mean", "12.5", "--sd", "80", "--json")
    fixed = json.loads(result.stdout)["plans"][0]
    assert fixed["users"] == users_fixed(Plan(0.625, 6_400, 6_400), Confidence())
    assert fixed["days"] is None
    assert "always-valid" in run("experiments", "plan", "--lift", "5%", "--mean", "12.5", "--sd", "80").stdout


def test_a_plan_can_start_from_a_running_experiment(run: Run, trial: Path) -> None:
    words = ("--experiment", "ranker", "--metric", "ctr", "--into", trial, "--json")
    result = run("experiments", "plan", "--lift", "10%", *words)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["metric"], answer["control_value"]) == ("ctr", pytest.approx(0.2, abs=0.1))
    assert answer["plans"][0]["users"] < answer["plans"][1]["users"]
    assert answer["users_per_day"] > 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--rate", "0.1"), 2, "--lift"),
        (("--lift", "0%", "--rate", "0.1"), 2, "write a percentage"),
        (("--lift", "5%"), 2, "Say where the base comes from"),
        (("--lift", "5%", "--rate", "0.1", "--mean", "1", "--sd", "1"), 2, "Say where"),
        (("--lift", "5%", "--mean", "1"), 2, "--mean and --sd belong together"),
        (("--lift", "500%", "--rate", "0.5"), 1, "This cannot be planned: a proportion must be"),
        (("--lift", "0.0000001%", "--rate", "0.5"), 1, "more than 1,000,000,000,000,000 users"),
    ],
)
def test_what_cannot_be_planned_is_said(run: Run, words: tuple[str, ...], code: int, message: str) -> None:
    result = run("experiments", "plan", *words)
    assert result.exit_code == code
    assert message in result.stderr


def test_a_promotion_records_who_why_and_the_figures_and_can_be_undone(run: Run, trial: Path) -> None:
    result = run("experiments", "promote", "ranker", "new", *WHO, "--into", trial)
    assert result.exit_code == 0, result.output
    assert "decision ranker/promoted/new/1" in result.stderr
    (champion,) = json.loads(run("sql", "SELECT * FROM champions", "--into", trial, "--json").stdout)
    assert (champion["arm"], champion["decided_by"], champion["why"]) == ("new", "ann", "two weeks of it")
    assert champion["metric"] == "ctr"
    assert champion["value"] > 0
    assert run("experiments", "promote", "ranker", "old", *WHO, "--into", trial).exit_code == 0
    champions = json.loads(
        run("sql", "SELECT arm, until FROM champions ORDER BY since", "--into", trial, "--json").stdout
    )
    assert [(row["arm"], row["until"] is None) for row in champions] == [("new", False), ("old", True)]
    undone = run(
        "experiments", "undo", "ranker/promoted/old/1", "--by", "bob", "--why", "oops", "--into", trial
    )
    assert undone.exit_code == 0, undone.output
    rows = json.loads(run("decisions", "--into", trial, "--json").stdout)
    assert {row["id"]: row["undone_by"] for row in rows} == {
        "ranker/promoted/new/1": None,
        "ranker/promoted/old/1": "bob",
    }
    assert "undone by bob: oops" in run("decisions", "--into", trial).stdout
    notes = Book(open_store(str(trial / "checkpoints"))).notes()
    assert [note.path.rpartition("/")[2] for note in notes] == ["decided", "decided", "undone"]


def test_undoing_a_firing_switches_the_arm_on_again(
    run: Run, trial: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LIFTSTREAM_FLAG_FILE", str(tmp_path / "flags.json"))
    book = Book(open_store(str(trial / "checkpoints")))
    book.write(a_decision())
    with connect(f"chdb://{trial}/clickhouse") as connection:
        writer = Writer(connection.client, interval_seconds=0)
        writer.put_rows("decisions", decision_columns(Page(a_decision())), generation=1, version=1)
        assert writer.drain(20)
        writer.close()
    assert "switched to old" in run("decisions", "--into", trial, "--experiment", "ranker").stdout
    result = run("experiments", "undo", "ranker/ctr-worse/new/1", *WHO, "--into", trial)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "flags.json").read_text())["flags"] == {}
    again = run("experiments", "undo", "ranker/ctr-worse/new/1", *WHO, "--into", trial)
    assert again.exit_code == 1
    assert "was undone before" in again.stderr


def test_what_is_not_there_cannot_be_decided_about(run: Run, trial: Path) -> None:
    for words, message in (
        (("undo", "ranker/ctr-worse/new/9"), "There is no decision ranker/ctr-worse/new/9"),
        (("undo", "../deployment"), "There is no decision"),
        (("promote", "ranker", "newer"), "There is no arm newer in the experiment ranker: it has new, old"),
        (("promote", "nothing", "new"), "it has no data"),
    ):
        result = run("experiments", *words, *WHO, "--into", trial)
        assert result.exit_code == 1, result.output
        assert message in result.stderr


def test_nothing_decided_is_said(run: Run, trial: Path) -> None:
    assert "Nothing has been decided yet." in run("decisions", "--into", trial).stderr
