from faust.types import TP

from stream.app.copartition import refusal
from stream.contracts.topics import Topic
from tests.app.fakes import NAMES

UNKNOWN = dict.fromkeys(Topic)


def test_a_topic_that_was_deleted_is_named_with_what_must_be_done() -> None:
    left = {
        TP(NAMES[topic], number) for topic in Topic for number in (0, 1) if topic is not Topic.IMPRESSIONS
    }
    sentence = refusal(NAMES, left, UNKNOWN, 2)
    assert sentence is not None
    assert sentence.startswith("Kafka does not have rec.impressions any more")
    assert "--new-generation" in sentence


def test_partitions_that_another_assignor_tore_apart_are_named() -> None:
    torn = {TP(name, 0) for name in NAMES.values()} | {TP(NAMES[Topic.ASSIGNMENTS], 1)}
    sentence = refusal(NAMES, torn, UNKNOWN, 2)
    assert sentence is not None
    assert "not rec.impressions-1, rec.interactions-1 to this worker" in sentence


def test_whole_partition_numbers_are_fine() -> None:
    assert refusal(NAMES, {TP(name, 1) for name in NAMES.values()}, UNKNOWN, 2) is None
