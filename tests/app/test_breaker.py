import logging

import pytest

from stream.app.breaker import Breaker, MostlyRejected, Rule


def test_it_trips_when_most_of_the_newest_events_are_rejected(caplog: pytest.LogCaptureFixture) -> None:
    breaker = Breaker(3, Rule(1_000, 0.5))
    for _ in range(100):
        breaker.see(100, 1, "")
    for _ in range(4):
        breaker.see(100, 100, "must not be empty")
    assert breaker.trouble is None
    for _ in range(3):
        breaker.see(100, 100, "must not be empty")
    assert breaker.trouble is not None
    assert "703 of the last 1,000 events of partition 3" in breaker.trouble
    assert "must not be empty" in breaker.trouble
    assert "breaker_share = 0.5" in breaker.trouble
    assert ["Counting goes on" in record.message for record in caplog.records] == [True]


def test_it_resets_itself_when_the_share_is_back(caplog: pytest.LogCaptureFixture) -> None:
    breaker = Breaker(0, Rule(1_000, 0.5))
    breaker.see(1_000, 900, "bad")
    assert breaker.trouble is not None
    breaker.see(1_000, 500, "bad")
    assert breaker.trouble is None
    assert breaker.share == 0.5
    assert "no longer" in caplog.records[-1].message
    breaker.see(1_000, 501, "bad")
    assert breaker.trouble is not None


def test_it_ends_the_worker_only_where_that_is_set() -> None:
    breaker = Breaker(3, Rule(1_000, 0.5, stops=True))
    with pytest.raises(
        MostlyRejected, match=r"600 of the last 1,000 .*breaker_action = stop ended the worker"
    ):
        breaker.see(1_000, 600, "bad")


def test_a_few_events_prove_nothing() -> None:
    breaker = Breaker(0, Rule(1_000, 0.5))
    for _ in range(999):
        breaker.see(1, 1, "bad")
    assert breaker.trouble is None
    breaker.see(1, 1, "bad")
    assert breaker.trouble is not None


def test_half_is_not_most() -> None:
    breaker = Breaker(0, Rule(1_000, 0.5))
    for _ in range(50):
        breaker.see(100, 50, "bad")
    assert breaker.trouble is None


def test_a_share_of_one_never_trips(caplog: pytest.LogCaptureFixture) -> None:
    breaker = Breaker(0, Rule(1_000, 1.0))
    with caplog.at_level(logging.INFO):
        for _ in range(50):
            breaker.see(1_000, 1_000, "bad")
    assert breaker.trouble is None
    assert not caplog.records
