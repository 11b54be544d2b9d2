import re
from pathlib import Path

import pytest

from stream.contracts import limits
from stream.contracts.models import MODELS
from stream.contracts.reasons import RULES, Credit, Outcome, Reason
from stream.contracts.topics import FIELDS, Topic
from stream.contracts.versions import local_schemas

DOC = (Path(__file__).parents[2] / "docs/events.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables below a heading, without the tables' heads."""
    section = re.split(r"\n#+ ", DOC.split(f"# {heading}\n", 1)[1])[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize("topic", Topic)
def test_every_field_is_described_in_its_order_with_whether_it_may_be_null(topic: Topic) -> None:
    described = [
        mark for cells in rows(topic.word.capitalize()) for mark in re.findall(r"`(\w+)`(\??)", cells[0])
    ]
    model = MODELS[topic].model_fields
    assert described == [(field, "" if model[field].is_required() else "?") for field in FIELDS[topic]]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_listed_with_its_rule(reason: Reason) -> None:
    (rule,) = [cells[1] for cells in rows("Why a record is rejected") if cells[0] == f"`{reason.word}`"]
    assert rule.startswith(RULES[reason])


def test_every_outcome_and_credit_is_listed() -> None:
    listed = [cells[0].strip("`") for cells in rows("What becomes of an event")]
    assert listed == [word.name.lower() for word in (*Outcome, *Credit)]


def test_the_limits_are_those_of_the_code() -> None:
    assert f"at most {limits.MAX_ID_BYTES} bytes in UTF-8" in DOC
    assert f"from 0 to {limits.MAX_POSITION:,}" in DOC
    assert limits.MAX_VALUE_MINOR == limits.MAX_PRE_VALUE == 10**12
    assert DOC.count("from -10^12 to 10^12") == 2
    assert limits.MAX_LATENCY_MS == 1e9
    assert "from 0 to 10^9" in DOC
    assert limits.FUTURE_MS == limits.EARLY_MS == 5 * 60_000
    assert DOC.count("ore than 5 minutes") == 3


def test_the_schema_ids_are_those_of_the_code() -> None:
    for versions in local_schemas().values():
        for version in versions:
            assert f"`{version.label}` is {version.schema_id}" in DOC


def test_the_example_runs() -> None:
    """Its calls bind to the producer's methods, and its events are valid."""
    from stream import producer as sdk

    class Recorder(sdk.Producer):
        def __init__(self, broker: str) -> None:
            self.sent: list[Topic] = []

        def send(self, topic: Topic, event: object) -> None:
            sdk._validated(topic, event if isinstance(event, dict) else vars(event))
            self.sent.append(topic)

        def close(self) -> None:
            assert self.sent == [
                Topic.ASSIGNMENTS,
                Topic.IMPRESSIONS,
                Topic.IMPRESSIONS,
                Topic.INTERACTIONS,
                Topic.INTERACTIONS,
            ]
            ran.append(True)

    ran: list[bool] = []
    code = DOC.split("```python\n")[1].split("```")[0].replace("from stream.producer import Producer\n", "")
    exec(code, {"Producer": Recorder})
    assert ran
