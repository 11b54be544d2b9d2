"""Checkpoints in an S3 bucket, over HTTP; the contract of every store is in test_store.py."""

from collections import Counter

import pytest

from stream.durability.store import ObjectStore, open_store
from tests.durability.fakes import Crash, Database, Doom, HandClock
from tests.durability.process import Process, a_log, expected
from tests.services.s3 import BUCKET, S3Server


@pytest.fixture
def store(s3: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ObjectStore:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{BUCKET}/{request.node.name}")


def test_a_store_is_found_by_its_url_and_the_environment(store: ObjectStore) -> None:
    assert store.create("a", b"1")
    assert not store.create("a", b"2")
    assert store.get("a") == b"1"
    store.refuse_without_put_if_absent()
    assert store.names("probe") == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_crashes_change_no_total(store: ObjectStore, after: bool) -> None:
    log, database, clock = a_log(), Database(), HandClock()
    for seed, at in enumerate((3, 11, 8, 19, 14, 27)):
        with pytest.raises(Crash):
            Process(log, store, database, clock=clock, doom=Doom(at, after), seed=seed).run()
    Process(log, store, database, clock=clock, seed=99).run()
    assert Counter(database.totals()) == expected(log)
    assert database.repeated
