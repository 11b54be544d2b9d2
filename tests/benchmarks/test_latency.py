import pytest

from benchmarks.latency import Seen
from benchmarks.live import LiveTraffic, zigzag
from benchmarks.workload import START_MS, Record, Workload, make_workload
from stream.contracts.avro import decode
from stream.contracts.models import MODELS


class Kept(LiveTraffic):
    """Shows a record as it would be sent."""

    def moved(self, record: Record, start_ms: int, now_ms: int) -> Record:
        return self._moved(record, start_ms, now_ms)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return make_workload(0.001)


def test_a_moved_event_is_the_same_but_for_its_times(workload: Workload) -> None:
    traffic = Kept(workload, rate=2_200)  # twice as fast as it is
    start_ms = START_MS + 10**9
    for record in workload.records:
        moved = traffic.moved(record, start_ms, now_ms=start_ms + 10**8)
        old, new = decode(record.topic, record.value), decode(record.topic, moved.value)
        MODELS[record.topic].model_validate(new)
        assert new.pop("at") == start_ms + int((old.pop("at") - START_MS) / 2)
        assert old == new
        assert moved.arrival_ms == start_ms + 10**8


def test_no_event_is_sent_before_it_happened(workload: Workload) -> None:
    traffic = Kept(workload, rate=1_100)
    last = max(workload.records)
    moved = traffic.moved(last, START_MS, now_ms=START_MS + 5)
    assert decode(moved.topic, moved.value)["at"] == START_MS + 5


@pytest.mark.parametrize(
    ("number", "encoded"), [(0, b"\0"), (63, b"\x7e"), (64, b"\x80\x01"), (8192, b"\x80\x80\x01")]
)
def test_numbers_are_written_as_in_avro(number: int, encoded: bytes) -> None:
    assert zigzag(number) == encoded


def test_flushes_are_pooled_by_their_records() -> None:
    many, few = (1_000, 1_000, 1_000, 990), (5_000, 5_000, 5_000, 10)
    seen = Seen(flushes={(0, 1): many, (0, 2): few})
    assert seen.rates_seconds() == {"arm_rates_p50": 1.0, "arm_rates_p95": 1.0, "arm_rates_p99": 1.0}
    seen.flushes[0, 3] = (5_000, 5_000, 5_000, 90)
    assert seen.rates_seconds()["arm_rates_p95"] == 5.0


def test_a_window_is_as_old_as_the_newest_event_it_can_hold() -> None:
    seen = Seen(windows={10_000: 11_000, 20_000: 21_500, 30_000: 33_000})
    assert seen.rolling_seconds() == {"arm_rolling_p50": 3.0, "arm_rolling_p95": 3.0}
