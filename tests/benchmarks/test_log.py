import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.check import differences
from benchmarks.job import recorded, refuse_without_impressions
from benchmarks.log import ARMS, EXPERIMENT, RecordedLog, read_log
from benchmarks.log_oracle import expected_of_log
from stream.backfill import backfill
from stream.contracts.avro import decode
from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.errors import ConfigurationError
from stream.sink.connect import connect
from tests.benchmarks.recorded import LOGS, write_log

DAY_MS = 86_400_000
ROWS = 4_000

Events = list[dict[str, Any]]


@pytest.fixture(scope="module", params=LOGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    write_log(made, request.param, ROWS)
    return made


def the_log(folder: Path, most_events: int = 10**6) -> RecordedLog:
    shown = folder / "impressions.parquet"
    files = {Topic.IMPRESSIONS: [shown, shown], Topic.INTERACTIONS: [folder / "interactions.parquet"]}
    return read_log(files, most_events)


def differences_of(log: RecordedLog, folder: Path) -> list[str]:
    """Between what the engine makes of the log's records, without services, and the oracle."""
    files = {topic: [folder / f"{topic.word}.jsonl"] for topic in Topic}
    for topic, (path,) in files.items():
        events = [decode(topic, entry.value) for entry in log.entries if entry.topic is topic]
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
    backfill(files, into=folder / "into", definitions=Definitions())
    with (
        connect(f"chdb://{folder / 'into' / 'clickhouse'}") as connection,
        closing(connection.client()) as client,
    ):
        return differences(client, expected_of_log(log))


def test_a_converted_log_is_counted_as_the_oracle_says(folder: Path, tmp_path: Path) -> None:
    log = the_log(folder)
    expected = expected_of_log(log)
    assert expected.duplicates > ROWS / 2  # every impression comes twice
    assert expected.outside == 0
    assert sum(
        counts["clicked_impressions"] + counts["converted_impressions"] for counts in expected.arms.values()
    )
    assert differences_of(log, tmp_path) == []


def test_every_user_enters_one_of_two_arms_with_the_first_event(folder: Path) -> None:
    log = the_log(folder)
    entered: dict[str, int] = {}
    for entry in log.entries:
        if entry.topic is Topic.ASSIGNMENTS:
            assert entry.fact.experiment_and_arm in {(EXPERIMENT, arm) for arm in ARMS}
            assert entry.fact.user_id not in entered
            entered[entry.fact.user_id] = entry.at_ms
        assert entry.at_ms >= entered[entry.fact.user_id]
    shares = Counter(e.fact.experiment_and_arm for e in log.entries if e.topic is Topic.ASSIGNMENTS)
    assert min(shares.values()) > 0.4 * sum(shares.values())


def test_the_first_events_by_time_are_taken_whatever_their_order_in_the_file(folder: Path) -> None:
    whole = [entry.at_ms for entry in the_log(folder).entries if entry.topic]
    some = [entry.at_ms for entry in the_log(folder, 100).entries if entry.topic]
    assert some == whole[:100]


def test_records_are_sent_today_in_the_order_of_their_time(folder: Path) -> None:
    log = the_log(folder, 100)
    assert [entry.at_ms for entry in log.entries] == sorted(entry.at_ms for entry in log.entries)
    sent = list(log.records)
    assert [record.value for record in sent] == [entry.value for entry in log.entries]
    assert all(record.arrival_ms > log.entries[-1].at_ms for record in sent)
    assert recorded(log).by_item == (folder.name.startswith("sessions"))


def an_event(at: int, user: str = "u", number: int = 0, **fields: Any) -> dict[str, Any]:
    return {"event_id": f"{user}-{number}-{sorted(fields)}", "at": at, "user_id": user, **fields}


def shown(at: int, user: str = "u", number: int = 0, item: str = "i") -> dict[str, Any]:
    about = {"request_id": "r", "surface": "s", "position": 0, "model": "m", "model_version": "1"}
    return an_event(at, user, number, impression_id=f"{user}-{number}", item_id=item, **about)


def entered(at: int, user: str = "u", arm: str = "control", experiment: str = "e") -> dict[str, Any]:
    return an_event(at, user, experiment=experiment, arm=arm) | {"event_id": f"{user} {experiment} {arm}"}


def a_log(folder: Path, **events: Events) -> RecordedLog:
    files = {}
    for topic in Topic:
        if topic.word in events:
            files[topic] = [folder / f"{topic.word}.jsonl"]
            files[topic][0].write_text("".join(json.dumps(event) + "\n" for event in events[topic.word]))
    return read_log(files)


def test_all_that_the_rules_say_about_credit_is_in_the_oracle(tmp_path: Path) -> None:
    minute, far = 60_000, 2 * DAY_MS
    log = a_log(
        tmp_path,
        assignments=[entered(0), entered(0, experiment="f", arm="b"), entered(5, "v"), entered(5, "late"),
                     entered(0, "moved"), entered(9, "moved", "treatment")],
        impressions=[shown(10, number=1), shown(20, number=2), shown(far, number=3), shown(30, "nobody"),
                     shown(2, "late"), shown(10, "moved")],
        interactions=[
            an_event(40, number=1, kind="click", item_id="i"),  # of the impression at 20
            an_event(40, number=2, kind="purchase", item_id="i", value_minor=500),
            an_event(41, number=3, kind="purchase", impression_id="u-1", value_minor=-100),  # a refund
            an_event(42, number=4, kind="click", impression_id="u-1"),
            an_event(42, "v", kind="click", impression_id="u-1"),  # of another user
            an_event(20 + DAY_MS, number=5, kind="click", item_id="i"),
            an_event(21 + DAY_MS, number=6, kind="purchase", item_id="i", value_minor=7, currency="USD"),
            an_event(far - 4 * minute, number=7, kind="click", impression_id="u-3"),  # before its impression
            an_event(far - 4 * minute, number=8, kind="purchase", item_id="i"),  # not by item
            an_event(far, number=9, kind="wish", item_id="i"),
            an_event(far, number=10, kind="click"),
        ],
    )  # fmt: skip
    expected = expected_of_log(log)
    assert expected.arms["f", "b"] == Counter(
        assigned_users=1, exposed_users=1, impressions=3, clicked_impressions=3, converted_impressions=1,
        clicks=5, conversions=3, revenue_minor=400,
    )  # fmt: skip
    assert expected.unsure == {"e"}
    assert expected.outside is None
    assert differences_of(log, tmp_path) == []


def test_what_the_rules_leave_open_is_not_sent(tmp_path: Path) -> None:
    in_the_future = 32_503_680_000_000
    log = a_log(
        tmp_path,
        impressions=[shown(0), shown(DAY_MS), shown(DAY_MS + 1), shown(in_the_future, number=1), {"at": 3}],
    )
    assert sorted(log.left_out.values()) == [1, 1, 1]
    assert len(log.entries) == 1 + 2
    assert expected_of_log(log).duplicates == 1


def test_times_in_seconds_are_noticed(tmp_path: Path) -> None:
    assert a_log(
        tmp_path, impressions=[shown(1_404_000_000), shown(1_404_999_999, number=1)]
    ).seems_in_seconds
    assert not a_log(
        tmp_path, impressions=[shown(1_404_000_000), shown(1_404_000_000_000, number=1)]
    ).seems_in_seconds
    assert not RecordedLog([]).seems_in_seconds


def test_a_log_that_no_worker_would_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Experiment e has 21 arms; at most 20"):
        a_log(tmp_path, assignments=[entered(0, f"u{i}", f"arm {i}") for i in range(21)])
    path = tmp_path / "assignments.jsonl"
    path.write_text(json.dumps(entered(0)))
    with pytest.raises(ConfigurationError, match="no impression of the log"):
        refuse_without_impressions(read_log({Topic.ASSIGNMENTS: [path]}))
