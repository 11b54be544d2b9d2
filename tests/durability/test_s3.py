"""Checkpoints in an S3 bucket, on a real server; the contract of every store is in test_store.py."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from stream.durability.store import ObjectStore, open_store
from stream.errors import ConfigurationError, Unavailable
from tests.durability.fakes import Crash, Database, Doom, HandClock
from tests.durability.process import Process, a_log, expected
from tests.services.s3 import BUCKET, S3Server


@pytest.fixture
def store(s3: str) -> ObjectStore:
    return open_store(s3)


def test_a_store_is_found_by_its_url_and_the_environment(store: ObjectStore) -> None:
    assert store.create("a", b"1")
    assert not store.create("a", b"2")
    assert store.get("a") == b"1"
    store.refuse_without_put_if_absent()
    assert store.names("probe") == []


def test_wrong_credentials_are_said_in_a_sentence(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ConfigurationError, match="check LIFTSTREAM_CHECKPOINTS and its credentials"):
        open_store(s3).create("a", b"1")


def test_of_writers_racing_for_many_names_each_has_one_winner_whose_bytes_stay(s3: str) -> None:
    writers, names = 12, [f"race/{n}" for n in range(25)]
    barrier = Barrier(writers)

    def race(writer: int) -> list[str]:
        own, won = open_store(s3), []
        for name in names:
            barrier.wait()
            if own.create(name, bytes([writer]) * 20_000):
                won.append(name)
        return won

    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(race, range(writers)))
    assert sorted(name for found in won for name in found) == sorted(names)
    store = open_store(s3)
    for writer, found in enumerate(won):
        assert {store.get(name) for name in found} <= {bytes([writer]) * 20_000}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_crashes_change_no_total(store: ObjectStore, after: bool) -> None:
    log, database, clock = a_log(), Database(), HandClock()
    for seed, at in enumerate((3, 11, 8, 19, 14, 27)):
        with pytest.raises(Crash):
            Process(log, store, database, clock=clock, doom=Doom(at, after), seed=seed).run()
    Process(log, store, database, clock=clock, seed=99).run()
    assert Counter(database.totals()) == expected(log)
    assert database.repeated


def until_it_answers(act: Callable[[], object]) -> None:
    """Try again while the store is away, as a worker does."""
    while True:
        try:
            act()
            return
        except Unavailable:
            continue


@pytest.mark.usefixtures("s3_server")  # skips where none can run
def test_a_server_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, database, kills = a_log(rows=(90, 400, 200)), Database(), 3
    with S3Server(tmp_path) as own, ThreadPoolExecutor(1) as pool:
        for name, value in own.environment.items():
            monkeypatch.setenv(name, value)
        process = Process(log, open_store(f"s3://{BUCKET}"), database, clock=HandClock())
        until_it_answers(process.start)

        def some_turns() -> None:
            for _ in range(30):
                until_it_answers(process.turn)

        for _ in range(kills):
            some_turns()
            running = pool.submit(some_turns)
            own.kill()  # while requests are on their way: whether they were done is not known
            own.start()
            running.result()
        while not process.is_finished:
            until_it_answers(process.turn)
        until_it_answers(process.end)
        again = Process(log, open_store(f"s3://{BUCKET}"), database, clock=HandClock(), seed=1).run()
    assert Counter(database.totals()) == expected(log)
    assert again.partition.step == process.partition.step > kills * 40
