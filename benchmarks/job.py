"""What a benchmark's runs count: records, and what must come out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.log import RecordedLog
from benchmarks.log_oracle import expected_of_log
from benchmarks.oracle import Expected, expected_of
from benchmarks.workload import EXPERIMENTS, Record, make_workload
from stream.contracts.topics import Topic
from stream.errors import ConfigurationError

EVENTS_OF_SCALE = 2_400_000


@dataclass(frozen=True, slots=True)
class Job:
    """experiments: that users are in. by_item: some interactions name no impression."""

    records: Iterable[Record]
    expected: Expected
    experiments: Sequence[str] = EXPERIMENTS
    by_item: bool = False


def generated(scale: float) -> Job:
    """The peers' workload."""
    workload = make_workload(scale)
    return Job(workload.records, expected_of(workload))


def recorded(log: RecordedLog) -> Job:
    """A log as it was recorded."""
    by_item = any(entry.fact.kind and entry.fact.impression_id is None for entry in log.entries)
    return Job(log.records, expected_of_log(log), log.experiments, by_item)


def refuse_without_impressions(log: RecordedLog) -> None:
    """Raise ConfigurationError where there is nothing to be counted."""
    if not any(entry.topic is Topic.IMPRESSIONS for entry in log.entries):
        raise ConfigurationError(
            "There is nothing to count: no impression of the log can be sent (see above), or there is no --impressions."
        )
