import json
import logging

import numpy as np
import pytest

from stream.durability.snapshot import Mark, Snapshot, Snapshots
from stream.errors import DamagedStore
from tests.durability.fakes import DictStore

FOLDER = "g000001/p00003"


def a_mark(step: int = 1, writer: str = "me") -> Mark:
    return Mark(
        step=step, offsets=(1, 2, 3), planned_at_ms=5, clock_ms=-1, definitions="abc", engine_version=1,
        taken_at_ms=9, writer=writer,
    )  # fmt: skip


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    pairs = np.zeros(4, np.dtype([("user", "u4"), ("sums", "i8", (2,))]))
    pairs["user"] = rng.integers(0, 9, 4)
    return {
        "meta": np.frombuffer(b'{"step": 1}', np.uint8),
        "matrix": rng.integers(-(2**62), 2**62, (50, 3)),
        "empty": np.empty((0, 5), np.float64),
        "flags": rng.integers(0, 2, 17).astype(np.bool_),
        "strided": np.arange(20)[::2],
        "pairs": pairs,
    }


def published(*steps: int) -> tuple[Snapshots, DictStore]:
    store = DictStore()
    snapshots = Snapshots(store, FOLDER)
    for step in steps:
        snapshots.publish(snapshots.capture(a_mark(step), arrays(step)))
    return snapshots, store


def test_every_array_comes_back_as_it_was() -> None:
    snapshots, store = published(7)
    found = Snapshots(store, FOLDER).newest()
    assert found is not None
    snapshot, loaded = found
    assert snapshot.mark == a_mark(7)
    assert list(loaded) == list(arrays())
    for name, array in arrays(7).items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
    assert snapshots.newest_step() == 7


def test_the_manifest_reads_back_as_written() -> None:
    snapshots, _ = published()
    snapshot = snapshots.capture(a_mark(), arrays())
    assert Snapshot.from_json(snapshot.to_json()).to_json() == snapshot.to_json()


def test_nobody_sees_a_snapshot_before_it_is_published() -> None:
    snapshots, _ = published(1)
    captured = snapshots.capture(a_mark(2), arrays())
    assert snapshots.newest_step() == 1
    snapshots.discard(captured)
    assert snapshots.newest() is not None


def test_two_owners_of_one_step_do_not_mix_their_data() -> None:
    snapshots, _ = published()
    ours, theirs = (snapshots.capture(a_mark(3, writer), arrays(3)) for writer in ("we", "they"))
    snapshots.publish(theirs)
    snapshots.discard(ours)
    assert snapshots.newest() is not None


@pytest.mark.parametrize("damage", ["manifest", "data", "missing data"])
def test_a_damaged_newest_one_falls_back_and_says_so(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    snapshots, store = published(1, 2)
    data = next(path for path in store.objects if "/state/000000000002" in path)
    if damage == "manifest":
        store.put(f"{FOLDER}/snapshot/000000000002", b"{")
    elif damage == "data":
        store.put(data, store.objects[data][:-1] + b"?")
    else:
        store.delete([data])
    with caplog.at_level(logging.WARNING):
        found = snapshots.newest()
    assert found is not None
    assert found[0].step == 1
    assert "snapshot/000000000002 is damaged" in caplog.text


def test_a_damaged_one_is_not_counted_among_the_two_that_are_kept() -> None:
    snapshots, store = published(1, 2)
    store.put(f"{FOLDER}/snapshot/000000000002", b"{")
    snapshots.newest()
    snapshots.publish(snapshots.capture(a_mark(3), arrays()))
    assert snapshots.collect() == 1
    assert [path[-1] for path in store.names(f"{FOLDER}/snapshot")] == ["1", "3"]


def test_when_all_are_damaged_nothing_is_guessed() -> None:
    snapshots, store = published(1)
    store.put(f"{FOLDER}/snapshot/000000000001", b"{")
    with pytest.raises(DamagedStore, match="--new-generation"):
        snapshots.newest()


def test_another_format_is_refused() -> None:
    snapshots, store = published(1)
    path = f"{FOLDER}/snapshot/000000000001"
    store.put(path, json.dumps(json.loads(store.objects[path]) | {"format": 99}).encode())
    with pytest.raises(DamagedStore, match="format 99"):
        snapshots.newest()


def test_the_newest_two_are_kept_with_their_data() -> None:
    snapshots, store = published(1, 2, 3, 4)
    abandoned = snapshots.capture(a_mark(2, "dead"), arrays())
    assert snapshots.collect() == 3
    assert store.names(FOLDER) == [
        f"{FOLDER}/snapshot/000000000003", f"{FOLDER}/snapshot/000000000004",
        f"{FOLDER}/state/000000000003-me", f"{FOLDER}/state/000000000004-me",
    ]  # fmt: skip
    assert abandoned.data not in store.objects


def test_one_alone_is_kept() -> None:
    snapshots, store = published(1)
    assert snapshots.collect() == 0
    assert len(store.objects) == 2
