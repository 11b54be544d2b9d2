import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from stream.contracts.avro import decode
from stream.contracts.definitions import Definitions, load_experiments
from stream.contracts.topics import Topic
from stream.durability.journal import Entry, Range
from tests.chaos.compare import TOTALS, result_differences
from tests.chaos.generator import Load
from tests.chaos.schedule import Fault, schedule_of
from tests.chaos.traffic import Record, write_experiments
from tests.chaos.truth import Place, Stored, Truth, truth_of
from tests.engine.makers import T0
from tests.engine.oracle import Oracle
from tests.engine.streams import CAUGHT_UP

ROOT = Path(__file__).parents[2]
RECORDS = 1_500
LATER = T0 + 3_600_000


def records() -> list[Record]:
    load = Load(seed=3, start_ms=T0, rate=1.0)
    return [*islice(load.records(), RECORDS), *load.closing(LATER)]


def in_one_partition(given: list[Record]) -> dict[Place, list[Stored]]:
    logs: dict[Place, list[Stored]] = {(topic, 0): [] for topic in Topic}
    for record in given:
        log = logs[record.topic, 0]
        log.append(Stored(len(log), LATER, record.key, record.value))
    return logs


def one_step(logs: dict[Place, list[Stored]]) -> Entry:
    first, second, third = (Range(0, len(logs[topic, 0]), len(logs[topic, 0]), 0) for topic in Topic)
    return Entry(1, (first, second, third), CAUGHT_UP, "", 1, LATER, "host-1-x")


def definitions(folder: Path) -> Definitions:
    write_experiments(folder)
    return Definitions(experiments=load_experiments(folder))


def counted(folder: Path, given: list[Record]) -> Truth:
    logs = in_one_partition(given)
    return truth_of(logs, {0: [one_step(logs)]}, definitions(folder))


@pytest.mark.usefixtures("kafka", "clickhouse_server")  # skips where none can run
def test_real_workers_stay_exact_while_everything_is_killed_and_restarted(tmp_path: Path) -> None:
    """Two workers, four partitions, each fault once; `make chaos` does it for as long as asked."""
    words = [
        "--minutes",
        "0.4",
        "--seed",
        "1",
        "--workers",
        "2",
        "--rate",
        "200",
        "--json",
        "--keep",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    report = json.loads(done.stdout)
    assert report["wrong"] == [], done.stderr[-6_000:]
    assert done.returncode == 0
    assert report["events"] > 5_000
    assert report["looks"] > 2
    assert len(report["faults"]) > 8


def test_the_same_seed_makes_the_same_records_and_the_same_faults() -> None:
    assert records() == records()
    assert schedule_of(5, 600) == schedule_of(5, 600)
    assert schedule_of(5, 600) != schedule_of(6, 600)


def test_every_fault_happens_in_a_run_of_ten_minutes() -> None:
    assert {act.fault for act in schedule_of(1, 600)} == set(Fault)


def test_counting_groups_of_users_by_themselves_changes_nothing(tmp_path: Path) -> None:
    """The truth of a run against one oracle that takes everything at once."""
    logs = in_one_partition(records())
    truth = counted(tmp_path, records())
    oracle = Oracle(definitions(tmp_path))
    rejected = {(word, offset) for word, _, offset in truth.dead_letters}
    given = {
        topic: [
            (None if (topic.word, record.offset) in rejected else decoded(topic, record), record.at_ms)
            for record in logs[topic, 0]
        ]
        for topic in Topic
    }
    oracle.step(given, LATER, CAUGHT_UP)
    assert not truth.wrong
    assert truth.sums == oracle.totals()
    assert truth.panes == oracle.panes()
    assert {(topic, hour): +counts for (topic, _, hour), counts in truth.ledger.items()} == oracle.outcomes()


def decoded(topic: Topic, record: Stored) -> dict[str, object]:
    return decode(topic, record.value)


def test_the_traffic_holds_what_production_brings(tmp_path: Path) -> None:
    truth = counted(tmp_path, records())
    outcomes = {name for counts in truth.ledger.values() for name, n in counts.items() if n}
    assert outcomes >= {
        "counted", "duplicate", "outside", "rejected", "attributed", "waiting", "no_reference", "other_user",
    }  # fmt: skip
    columns = {name for counts in truth.totals.values() for name, n in counts.items() if n}
    assert columns >= {
        "mixed_users",
        "mixed_events",
        "before_assignment",
        "foreign_currency",
        "converted_impressions",
    }


def test_a_record_in_no_step_is_noticed(tmp_path: Path) -> None:
    logs = in_one_partition(records())
    entry = one_step(logs)
    logs[Topic.IMPRESSIONS, 0].append(logs[Topic.IMPRESSIONS, 0][-1])
    truth = truth_of(logs, {0: [entry]}, definitions(tmp_path))
    assert any("in no step" in sentence or "says" in sentence for sentence in truth.wrong)


def test_one_click_too_many_is_noticed(tmp_path: Path) -> None:
    truth = counted(tmp_path, records())
    rows = [
        {
            "experiment": e,
            "arm": arm,
            "slice": d if d == "all" else f"{d}={v}",
            **dict.fromkeys(TOTALS, 0),
            **counts,
        }
        for (e, arm, d, v), counts in truth.totals.items()
    ]
    assert result_differences(rows, truth) == []
    rows[3]["clicks"] += 1
    (sentence,) = result_differences(rows, truth)
    assert sentence.endswith(f"clicks {rows[3]['clicks']}, not {rows[3]['clicks'] - 1}")
