import logging

import numpy as np
import pytest

from stream.durability.image import Sizes
from stream.durability.manifest import Mark, Snapshot
from stream.durability.seal import sealed, unsealed
from stream.durability.snapshot import Snapshots
from stream.engine.rows import Rows, flat, of_ring
from stream.errors import DamagedStore
from tests.durability.damage import Damage, any_damage, damaged, flipped
from tests.durability.fakes import DictStore

FOLDER = "g000001/p00003"
TINY = Sizes(piece_bytes=2_048, round_bytes=4_096, spare_bytes=0, pieces=8, is_checked=True)


def a_mark(step: int = 1, writer: str = "me") -> Mark:
    return Mark(
        step=step, offsets=(1, 2, 3), planned_at_ms=5, clock_ms=-1, definitions="abc", engine_version=1,
        taken_at_ms=9, writer=writer,
    )  # fmt: skip


def tables(seed: int = 0) -> dict[str, Rows]:
    rng = np.random.default_rng(seed)
    pairs = np.zeros(4, np.dtype([("user", "u4"), ("sums", "i8", (2,))]))
    pairs["user"] = rng.integers(0, 9, 4)
    return {
        "meta": flat(np.frombuffer(bytearray(b'{"step": 1}'), np.uint8)),
        "matrix": flat(rng.integers(-(2**62), 2**62, (50, 3))),
        "empty": flat(np.empty((0, 5), np.float64)),
        "flags": flat(rng.integers(0, 2, 17).astype(np.bool_)),
        "pairs": flat(pairs),
        "ring": of_ring(np.arange(1_024, dtype=np.uint32), 2**32 - 1_000, 1_010),
    }


def numbers(n: int) -> dict[str, Rows]:
    return {"numbers": flat(np.arange(n, dtype=np.int64))}


class Partition:
    """Snapshots of a growing and changing table."""

    def __init__(self, store: DictStore, sizes: Sizes = TINY, rows: int = 4_000) -> None:
        self.store = store
        self.snapshots = Snapshots(store, FOLDER, sizes)
        self.array = np.zeros(rows, np.int64)
        self.step = 0

    def change(self, *places: int) -> "Partition":
        self.step += 1
        self.array[list(places)] = self.step
        return self

    def publish(self, writer: str = "me") -> bool:
        export = {"numbers": flat(self.array)}
        return self.snapshots.publish(self.snapshots.capture(a_mark(self.step, writer), export))

    def written_by(self, *places: int) -> int:
        before = sum(map(len, self.store.objects.values()))
        self.change(*places).publish()
        return sum(map(len, self.store.objects.values())) - before


def loaded(store: DictStore) -> tuple[Snapshot, dict[str, Rows]]:
    found = Snapshots(store, FOLDER, TINY).newest()
    assert found is not None
    return found


def published(*steps: int) -> tuple[Snapshots, DictStore]:
    store = DictStore()
    snapshots = Snapshots(store, FOLDER, TINY)
    for step in steps:
        assert snapshots.publish(snapshots.capture(a_mark(step), tables(step)))
    return snapshots, store


def test_every_table_comes_back_as_it_was() -> None:
    snapshots, store = published(7)
    snapshot, export = loaded(store)
    assert snapshot.mark == a_mark(7)
    assert list(export) == list(tables())
    for name, rows in tables(7).items():
        assert export[name].joined.dtype == rows.joined.dtype
        assert [first for first, _ in export[name].parts] == [first for first, _ in rows.parts]
        np.testing.assert_array_equal(export[name].joined, rows.joined)
    assert snapshots.newest_step() == 7


def test_the_manifest_reads_back_as_written() -> None:
    snapshots, _ = published()
    snapshot = snapshots.capture(a_mark(), tables())
    assert Snapshot.from_fields(unsealed(snapshot.to_json())).to_json() == snapshot.to_json()


def test_nobody_sees_a_snapshot_before_it_is_published() -> None:
    snapshots, store = published(1)
    snapshots.capture(a_mark(2), tables())
    assert snapshots.newest_step() == 1
    assert loaded(store)[0].step == 1


# ---- what is written


def test_what_is_written_grows_with_what_changed_and_not_with_the_state() -> None:
    partition = Partition(DictStore(), Sizes(), rows=400_000)
    partition.array[:] = np.random.default_rng(1).integers(0, 2**62, 400_000)
    whole = partition.written_by(1)
    few, many = partition.written_by(5, 90_000), partition.written_by(*range(0, 400_000, 8_000))
    assert few < 4_000 < many < whole / 30
    np.testing.assert_array_equal(loaded(partition.store)[1]["numbers"].joined, partition.array)


def test_a_loaded_state_is_not_written_again() -> None:
    first = Partition(DictStore(), Sizes(), rows=100_000)
    first.array[:] = np.random.default_rng(1).integers(0, 2**62, 100_000)
    first.change(1).publish()
    other = Partition(first.store, Sizes())
    found = other.snapshots.newest()
    assert found is not None
    other.array, other.step = found[1]["numbers"].joined, 1
    assert other.written_by(3) < 2_000
    np.testing.assert_array_equal(loaded(first.store)[1]["numbers"].joined, other.array)


def test_a_ring_that_moves_on_and_grows_is_written_where_it_changed() -> None:
    store, size = DictStore(), 2**16
    snapshots = Snapshots(store, FOLDER, Sizes())
    base, count = 2**32 - 50_000, 40_000
    sizes = []
    for step in range(1, 30):
        ring = np.zeros(size, np.int64)
        order = (base + np.arange(count)) & 0xFFFFFFFF
        ring[order & (size - 1)] = order * 7
        before = sum(map(len, store.objects.values()))
        export = {"ring": of_ring(ring, base, count)}
        assert snapshots.publish(snapshots.capture(a_mark(step), export))
        sizes.append(sum(map(len, store.objects.values())) - before)
        np.testing.assert_array_equal(loaded(store)[1]["ring"].joined, order * 7)
        base, count = (base + 1_000) & 0xFFFFFFFF, count + 300
        size = 2**17 if step > 10 else size
    assert max(sizes[1:]) < sizes[0] / 5


def test_a_state_that_goes_on_between_two_rounds_is_saved_as_it_is_at_the_last_one() -> None:
    partition = Partition(DictStore())
    snapshots, export = partition.snapshots, {"numbers": flat(partition.array)}
    rounds = 1
    while not snapshots.copy(export):
        partition.change(rounds, 3_999 - rounds)  # both what is copied already and what is not
        while not snapshots.write("me"):
            pass
        rounds += 1
    while not snapshots.write("me"):
        pass
    assert snapshots.publish(snapshots.finish(a_mark(partition.step)))
    assert rounds >= 8
    np.testing.assert_array_equal(loaded(partition.store)[1]["numbers"].joined, partition.array)


def test_a_state_that_changes_faster_than_a_round_copies_is_saved_all_the_same() -> None:
    partition = Partition(DictStore())
    export = {"numbers": flat(partition.array)}
    for _ in range(20):
        if partition.snapshots.copy(export):
            return
        partition.change(*range(0, 4_000, 3))
        while not partition.snapshots.write("me"):
            pass
    raise AssertionError("it does not come to an end")


def test_number_and_size_of_what_is_stored_are_bounded() -> None:
    partition, rng = Partition(DictStore()), np.random.default_rng(3)
    most_objects = most_bytes = 0
    for _ in range(300):
        partition.change(*rng.integers(0, 4_000, rng.choice([1, 1, 40]))).publish()
        partition.snapshots.collect()
        pieces = [path for path in partition.store.objects if "/state/" in path]
        listed = loaded(partition.store)[0].pieces
        most_objects = max(most_objects, len(pieces))
        most_bytes = max(most_bytes, sum(piece.bytes for piece in listed))
    assert most_bytes <= 2 * partition.array.nbytes
    assert most_objects < 100
    np.testing.assert_array_equal(loaded(partition.store)[1]["numbers"].joined, partition.array)


def test_thousands_of_snapshots_cost_no_more_than_the_first() -> None:
    partition = Partition(DictStore(), rows=64)
    for _ in range(3_000):
        partition.change(5).publish()
        partition.snapshots.collect()
    assert partition.snapshots._image._last < 1_100
    np.testing.assert_array_equal(loaded(partition.store)[1]["numbers"].joined, partition.array)


# ---- damage


@any_damage
def test_whichever_object_of_two_snapshots_is_damaged_one_of_them_can_be_read(damage: Damage) -> None:
    partition, arrays = Partition(DictStore()), {}
    for place in range(6):
        partition.change(*range(place * 300, 4_000, 900)).publish()
        partition.snapshots.collect()
        arrays[partition.step] = partition.array.copy()
    older, newer = (
        set(snapshot.pieces) for snapshot in (partition.snapshots._read(5), loaded(partition.store)[0])
    )
    assert older & newer
    assert older != newer
    for path in partition.store.objects:
        snapshot, export = loaded(damaged(partition.store, path, damage))
        np.testing.assert_array_equal(export["numbers"].joined, arrays[snapshot.step])
        assert snapshot.step == (5 if path.endswith("snapshot/000000000006") else 6)


@any_damage
def test_a_damaged_piece_is_read_from_its_copy_and_both_are_written_anew(
    damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    first = Partition(DictStore()).change(1)
    first.publish()
    path = min(first.store.names(f"{FOLDER}/state"))
    other = Partition(damaged(first.store, path, damage))
    with caplog.at_level(logging.WARNING):
        found = other.snapshots.newest()
    assert f"{path} is missing or changed: its copy" in caplog.text
    assert found is not None
    other.array, other.step = found[1]["numbers"].joined, 1
    assert other.change(2).publish()
    newest = loaded(other.store)[0]
    assert path not in [piece.path for piece in newest.pieces]
    assert 1 < len(newest.pieces) < 2 * len(found[0].pieces)


def test_pieces_of_earlier_versions_have_no_copies_and_get_some_with_the_next_snapshot() -> None:
    first = Partition(DictStore()).change(1)
    first.publish()
    first.store.delete([path for path in first.store.objects if path.endswith(".copy")])
    other = Partition(first.store)
    found = other.snapshots.newest()
    assert found is not None
    other.array, other.step = found[1]["numbers"].joined, 1
    other.change(2).publish()
    stored = set(other.store.objects)
    assert all(stored.issuperset(piece.paths) for piece in loaded(other.store)[0].pieces)
    np.testing.assert_array_equal(loaded(other.store)[1]["numbers"].joined, other.array)


def test_what_somebody_removes_from_the_store_is_there_again_with_the_next_snapshot() -> None:
    partition = Partition(DictStore())
    for place in range(3):
        partition.change(place).publish()
        partition.snapshots.collect()
    partition.store.delete(partition.store.names(f"{FOLDER}/state"))
    partition.snapshots.collect()
    partition.change(7).publish()
    np.testing.assert_array_equal(loaded(partition.store)[1]["numbers"].joined, partition.array)


@pytest.mark.parametrize("damage", ["manifest", "piece", "missing piece"])
def test_a_damaged_newest_one_falls_back_and_says_so(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    _, store = published(1, 2)
    pieces = [path for path in store.objects if "/state/000000000002" in path][-2:]  # one and its copy
    if damage == "manifest":
        store.put(f"{FOLDER}/snapshot/000000000002", b"{")
    elif damage == "piece":
        for path in pieces:
            store.put(path, flipped(store.objects[path]))
    else:
        store.delete(pieces)
    with caplog.at_level(logging.WARNING):
        snapshot, export = loaded(store)
    assert snapshot.step == 1
    np.testing.assert_array_equal(export["matrix"].joined, tables(1)["matrix"].joined)
    assert "snapshot/000000000002 is damaged" in caplog.text


def test_after_falling_back_the_next_snapshot_is_whole() -> None:
    _, store = published(1, 2)
    store.put(f"{FOLDER}/snapshot/000000000002", b"{")
    snapshots = Snapshots(store, FOLDER, TINY)
    snapshots.newest()
    assert snapshots.publish(snapshots.capture(a_mark(3), tables(3)))
    assert snapshots.collect() == 1
    assert [path[-1] for path in store.names(f"{FOLDER}/snapshot")] == ["1", "3"]
    np.testing.assert_array_equal(loaded(store)[1]["matrix"].joined, tables(3)["matrix"].joined)


def test_when_all_are_damaged_nothing_is_guessed() -> None:
    snapshots, store = published(1)
    store.put(f"{FOLDER}/snapshot/000000000001", b"{")
    with pytest.raises(DamagedStore, match="--new-generation"):
        snapshots.newest()


def test_another_format_is_refused() -> None:
    snapshots, store = published(1)
    path = f"{FOLDER}/snapshot/000000000001"
    store.put(path, sealed(unsealed(store.objects[path]) | {"format": 99}))
    with pytest.raises(DamagedStore, match="format 99"):
        snapshots.newest()


# ---- two writers


def test_of_two_writers_behind_one_snapshot_one_wins_and_the_other_shares_nothing_afterwards() -> None:
    store = DictStore()
    ours, theirs = Partition(store), Partition(store)
    assert ours.change(1).publish("we")
    theirs.snapshots.newest()
    theirs.step, theirs.array[1] = 1, 1
    ours.change(2)
    assert theirs.change(2).publish("they")
    assert not ours.publish("we")
    assert ours.change(3).publish("we")
    newest = loaded(store)[0]
    assert all("000000000003-we" in piece.path for piece in newest.pieces)
    assert store.names(f"{FOLDER}/snapshot")[-1].endswith("3")


def test_a_manifest_whose_answer_was_lost_counts_as_published() -> None:
    partition = Partition(DictStore()).change(1)
    snapshot = partition.snapshots.capture(a_mark(1), {"numbers": flat(partition.array)})
    partition.store.put(f"{FOLDER}/snapshot/000000000001", snapshot.to_json())
    assert partition.snapshots.publish(snapshot)
    assert len(partition.store.names(f"{FOLDER}/snapshot")) == 1


def test_a_later_snapshot_follows_one_of_ours_whose_answer_was_lost() -> None:
    partition = Partition(DictStore()).change(1)
    snapshot = partition.snapshots.capture(a_mark(1), {"numbers": flat(partition.array)})
    partition.store.put(f"{FOLDER}/snapshot/000000000001", snapshot.to_json())
    assert partition.change(2).publish()
    assert loaded(partition.store)[0].step == 2


def test_two_owners_of_one_step_do_not_mix_their_pieces() -> None:
    store = DictStore()
    ours, theirs = Partition(store).change(1), Partition(store).change(1)
    theirs.array[7] = 7  # a bug, to tell them apart
    one = ours.snapshots.capture(a_mark(1, "we"), {"numbers": flat(ours.array)})
    assert theirs.publish("they")
    assert not ours.snapshots.publish(one)
    assert loaded(store)[1]["numbers"].joined[7] == 7


def test_a_zombie_that_writes_where_a_collected_manifest_was_removes_nothing_that_is_needed() -> None:
    store = DictStore()
    zombie, owner = Partition(store), Partition(store)
    zombie.change(1)
    late = zombie.snapshots.capture(a_mark(1, "zombie"), {"numbers": flat(zombie.array)})
    for place in range(5):
        assert owner.change(place).publish("owner")
        owner.snapshots.collect()
    assert zombie.snapshots.publish(late)  # number 1 is free again
    assert zombie.snapshots.collect() == 4
    np.testing.assert_array_equal(loaded(store)[1]["numbers"].joined, owner.array)
    assert [path[-1] for path in store.names(f"{FOLDER}/snapshot")] == ["4", "5"]
    assert not any("zombie" in path for path in store.objects)
    assert zombie.change(*range(9)).publish("zombie")
    np.testing.assert_array_equal(loaded(store)[1]["numbers"].joined, zombie.array)


# ---- collecting


def test_the_newest_two_are_kept_with_their_pieces_and_nothing_else() -> None:
    store = DictStore()
    partition, dead = Partition(store), Partition(store)
    dead.change(9)
    dead.snapshots.capture(a_mark(1, "dead"), {"numbers": flat(dead.array)})
    for place in range(5):
        partition.change(*range(place * 700, place * 700 + 600)).publish()
    assert partition.snapshots.collect() == 4
    newest = loaded(store)[0]
    assert not any("dead" in path for path in store.objects)
    assert {piece.path for piece in newest.pieces} <= set(store.names(f"{FOLDER}/state"))
    store.delete([f"{FOLDER}/snapshot/000000000005"])
    assert loaded(store)[0].step == 4


def test_what_another_process_is_writing_now_is_not_collected() -> None:
    store = DictStore()
    owner = Partition(store)
    for place in range(3):
        owner.change(place).publish("owner")
    other = Partition(store)
    found = other.snapshots.newest()
    assert found is not None
    other.array, other.step = found[1]["numbers"].joined, 3
    other.change(7)
    snapshot = other.snapshots.capture(a_mark(4, "other"), {"numbers": flat(other.array)})
    owner.snapshots.collect()
    assert other.snapshots.publish(snapshot)
    np.testing.assert_array_equal(loaded(store)[1]["numbers"].joined, other.array)


def test_a_process_that_loads_while_its_snapshot_is_collected_loads_a_newer_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    partition = Partition(DictStore())
    for place in range(3):
        partition.change(place).publish()

    class Slow(DictStore):
        """Others publish and collect while the first piece is read."""

        def get(self, path: str) -> bytes | None:
            if "/state/" in path and partition.step == 3:
                for _ in range(3):
                    partition.change(*range(0, 4_000, 3)).publish()
                    partition.snapshots.collect()
            return super().get(path)

    slow = Slow()
    slow.objects = partition.store.objects
    snapshot, export = loaded(slow)
    assert snapshot.step == 6
    np.testing.assert_array_equal(export["numbers"].joined, partition.array)
    assert "damaged" not in caplog.text
    assert "missing" not in caplog.text


def test_one_alone_is_kept() -> None:
    snapshots, store = published(1)
    before = dict(store.objects)
    assert snapshots.collect() == 0
    assert store.objects == before
