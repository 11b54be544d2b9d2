import pytest

from stream.app.breaker import Breaker, MostlyRejected


def test_it_stops_when_most_of_the_newest_events_are_rejected() -> None:
    breaker = Breaker(3, rows=1_000, share=0.5)
    for _ in range(100):
        breaker.see(100, 1, "")
    for _ in range(4):
        breaker.see(100, 100, "must not be empty")
    with pytest.raises(
        MostlyRejected, match=r"505 of the last 1,000 events of partition 3 .*must not be empty"
    ):
        breaker.see(100, 100, "must not be empty")


def test_a_few_events_prove_nothing() -> None:
    breaker = Breaker(0, rows=1_000, share=0.5)
    for _ in range(999):
        breaker.see(1, 1, "bad")
    with pytest.raises(MostlyRejected):
        breaker.see(1, 1, "bad")


def test_half_is_not_most() -> None:
    breaker = Breaker(0, rows=1_000, share=0.5)
    for _ in range(50):
        breaker.see(100, 50, "bad")


def test_a_share_of_one_never_trips() -> None:
    breaker = Breaker(0, rows=1_000, share=1.0)
    for _ in range(50):
        breaker.see(1_000, 1_000, "bad")
