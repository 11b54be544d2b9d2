"""The commands that bring events: send, simulate; and what is said of bad records."""

import json
from pathlib import Path
from typing import Any

import pytest

from stream.cli.bad_records import MAX_SHOWN, BadRecords
from stream.contracts.files import BadRecord, read_events
from stream.contracts.reasons import Reason
from stream.contracts.topics import Topic
from stream.local.broker import EmbeddedBroker
from stream.settings import Settings
from stream.topics import create_topics
from tests.cli.conftest import Run


def an_interaction(**changed: Any) -> dict[str, Any]:
    return {"event_id": "e1", "at": 1_767_225_600_000, "user_id": "u1", "kind": "click"} | changed


def a_file(folder: Path, *records: object) -> Path:
    path = folder / "interactions.jsonl"
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n")
    return path


def a_bad_record(line: int) -> BadRecord:
    return BadRecord(Path("f.jsonl"), line, "kind", "is required", Reason.MALFORMED, b'{"a": 1}')


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> EmbeddedBroker:
    with EmbeddedBroker() as broker:
        monkeypatch.setenv("LIFTSTREAM_BROKER", broker.url)
        create_topics(Settings.load())
        yield broker


def test_good_events_are_sent_and_bad_ones_named(run: Run, broker: EmbeddedBroker, tmp_path: Path) -> None:
    path = a_file(
        tmp_path, an_interaction(), an_interaction(kind=7), '{"event_id": ', an_interaction(event_id="e2")
    )
    result = run("send", "--topic", "interactions", "--from", path, "--rejects", tmp_path / "rejects.jsonl")
    assert result.exit_code == 1
    assert f"{path}:2: kind: must be text (got 7)" in result.stderr
    assert f"{path}:3: the record is not valid JSON" in result.stderr
    assert "2 events sent to rec.interactions, 2 not sent." in result.stderr
    assert (tmp_path / "rejects.jsonl").read_text().splitlines() == path.read_text().splitlines()[1:3]


def test_only_good_events_is_exit_code_0(run: Run, broker: EmbeddedBroker, tmp_path: Path) -> None:
    result = run("send", "--topic", "interactions", "--from", a_file(tmp_path, an_interaction()))
    assert result.exit_code == 0


def test_an_unknown_topic_lists_the_known_ones(run: Run, tmp_path: Path) -> None:
    result = run("send", "--topic", "clicks", "--from", a_file(tmp_path, an_interaction()))
    assert result.exit_code == 1
    assert "There is no topic clicks: choose one of assignments, impressions, interactions." in result.stderr


def test_a_missing_file_is_said_before_anything_is_sent(run: Run, tmp_path: Path) -> None:
    result = run("send", "--topic", "interactions", "--from", tmp_path / "nothing.jsonl")
    assert result.exit_code == 1
    assert "nothing.jsonl cannot be read" in result.stderr


def test_many_bad_records_are_shown_in_part_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with BadRecords() as bad:
        for line in range(1, MAX_SHOWN + 6):
            bad.add(a_bad_record(line))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "f.jsonl:1: kind: is required"
    assert len(lines) == MAX_SHOWN + 1
    assert lines[-1] == "... and 5 more."


def test_simulated_files_hold_what_the_truth_says(run: Run, tmp_path: Path) -> None:
    result = run(
        "simulate", "--to", tmp_path / "traffic", "--users", 50, "--seconds", 10, "--rate", 50,
        "--ctr", "control=0.1", "--ctr", "other=0.2", "--conversion", "other=0.1",
    )  # fmt: skip
    assert result.exit_code == 0
    arms = json.loads(result.stdout)["arms"]
    events = {
        topic: list(read_events(tmp_path / "traffic" / f"{topic.word}.jsonl", topic)) for topic in Topic
    }
    assert not any(isinstance(event, BadRecord) for found in events.values() for event in found)
    assert len(events[Topic.IMPRESSIONS]) == 500 == sum(arm["sent"]["impressions"] for arm in arms.values())
    assert len(events[Topic.INTERACTIONS]) == sum(
        arm["sent"]["clicks"] + arm["sent"]["conversions"] for arm in arms.values()
    )


def test_simulated_files_overwrite_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "impressions.jsonl").write_text("mine")
    result = run("simulate", "--to", tmp_path, "--seconds", 1)
    assert result.exit_code == 1
    assert "impressions.jsonl is there already" in result.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("impressions.jsonl", "mine")]


@pytest.mark.parametrize(
    "words", [("--ctr", "control"), ("--ctr", "a=2"), ("--ctr", "a=0.1", "--conversion", "a=0.2")]
)
def test_wrong_rates_are_a_usage_error(run: Run, words: tuple[str, ...]) -> None:
    result = run("simulate", *words)
    assert result.exit_code == 2
    assert "Error:" in result.stderr
