from collections import Counter
from dataclasses import replace

import pytest

from stream.durability.identity import Cluster, Deployment, InputTopic, open_deployment
from stream.errors import DamagedStore
from tests.durability.damage import Damage, any_damage, damaged
from tests.durability.fakes import Database, DictStore, HandClock
from tests.durability.process import Process, a_log, expected

TOPICS = (
    InputTopic("rec.assignments", "id-a"),
    InputTopic("rec.impressions", "id-b"),
    InputTopic("rec.interactions", "id-c"),
)
CLUSTER = Cluster("cluster-1", TOPICS, 4)


def opened(store: DictStore, cluster: Cluster = CLUSTER, *, rows: int = 0, new: bool = False) -> Deployment:
    return open_deployment(store, cluster, newest_rows=lambda: rows, new_generation=new)


def test_the_record_is_written_once_and_read_ever_after() -> None:
    store = DictStore()
    first = opened(store)
    assert first.generation == 1
    assert len(first.hash_key) == 16
    assert first.folder(3) == "g000001/p00003"
    assert opened(store) == first == opened(store, rows=1)


def test_no_two_deployments_share_a_key() -> None:
    assert opened(DictStore()).hash_key != opened(DictStore()).hash_key


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (replace(CLUSTER, id="cluster-2"), "cluster id"),
        (replace(CLUSTER, partitions=8), "4 partitions became 8"),
        (replace(CLUSTER, topics=(replace(TOPICS[0], id="id-x"), *TOPICS[1:])), "deleted and created again"),
        (
            replace(CLUSTER, topics=(*TOPICS[:2], replace(TOPICS[2], name="x"))),
            "interactions topic .* became x",
        ),
    ],
)
def test_another_broker_or_topic_is_refused(changed: Cluster, words: str) -> None:
    store = DictStore()
    opened(store)
    with pytest.raises(DamagedStore, match=words):
        opened(store, changed)


def test_ids_that_a_broker_does_not_give_are_not_compared() -> None:
    store = DictStore()
    silent = Cluster(None, tuple(replace(topic, id=None) for topic in TOPICS), 4)  # type: ignore[arg-type]
    assert opened(store) == opened(store, silent)


def test_an_empty_store_beside_rows_is_refused() -> None:
    with pytest.raises(DamagedStore, match="empty but the database has rows of generation 2"):
        opened(DictStore(), rows=2)


def test_a_store_older_than_the_rows_is_refused() -> None:
    store = DictStore()
    opened(store)
    with pytest.raises(DamagedStore, match="rows of generation 3 but the checkpoint store ends at 1"):
        opened(store, rows=3)


def test_state_without_a_record_is_refused() -> None:
    store = DictStore()
    store.put("g000001/p00000/step/000000000001", b"")
    with pytest.raises(DamagedStore, match="no deployment record"):
        opened(store)


def test_a_record_that_cannot_be_read_is_refused() -> None:
    store = DictStore()
    store.put("deployment/g000001", b"{}")
    with pytest.raises(DamagedStore, match="cannot be read"):
        opened(store)


@any_damage
@pytest.mark.parametrize("path", ["deployment/g000001", "deployment-copy/g000001"])
def test_a_damaged_record_is_read_from_its_copy_and_written_anew(
    path: str, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    store = DictStore()
    first = opened(store)
    assert set(store.objects) == {"deployment/g000001", "deployment-copy/g000001"}
    assert caplog.text == ""
    broken = damaged(store, path, damage)
    assert opened(broken, rows=1) == first
    assert broken.objects == store.objects


def test_a_new_generation_starts_beside_everything_old() -> None:
    store = DictStore()
    first = opened(store)
    second = opened(store, replace(CLUSTER, partitions=8), rows=1, new=True)
    assert (second.generation, second.folder(0)) == (2, "g000002/p00000")
    assert second.hash_key != first.hash_key
    assert opened(store, replace(CLUSTER, partitions=8)) == second
    assert opened(DictStore(), rows=6, new=True).generation == 7


def test_a_new_generation_counts_from_zero_and_leaves_the_old_one_as_it_was() -> None:
    log, store, old_numbers, numbers = a_log(), DictStore(), Database(), Database()
    old = opened(store)
    Process(log, store, old_numbers, clock=HandClock(), seed=1, folder=old.folder(3)).run()
    before = dict(store.objects)
    new = opened(store, rows=old.generation, new=True)
    process = Process(log, store, numbers, clock=HandClock(), seed=2, folder=new.folder(3))
    process.partition.recover()
    assert process.partition.step == 0
    process.run()
    assert Counter(numbers.totals()) == expected(log)
    assert {path: store.objects.get(path) for path in before} == before
