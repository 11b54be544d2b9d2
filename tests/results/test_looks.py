"""The promise under continuous looks, from events to results; `make validity` is the long form."""

from benchmarks.validity.stream import METRICS, Traffic, false_alarms


def test_looking_at_every_step_of_the_stream_calls_few_splits_of_one_traffic_different() -> None:
    traffic = Traffic(users=400, looks=10, splits=20)
    alarms, broken = false_alarms(traffic, seed=1)
    allowed = 0.05 + 2 * 0.05  # Monte-Carlo error of a true 5 % of 20 splits
    for metric in METRICS:
        assert alarms[metric, "always"] / traffic.splits <= allowed
    assert alarms["ctr", "fixed"] / traffic.splits > allowed
    assert broken == 0
