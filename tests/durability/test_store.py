import threading
from pathlib import Path

import obstore
import pytest
from obstore import exceptions
from obstore.store import MemoryStore

from stream.durability.store import ObjectStore, Store, open_store
from stream.errors import ConfigurationError, Unavailable
from tests.durability.fakes import DictStore


@pytest.fixture(params=["dict", "directory", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3"))
    if request.param == "dict":
        return DictStore()
    if request.param == "directory":
        return open_store(tmp_path.as_uri())
    return ObjectStore(MemoryStore())


class TestEveryStore:
    def test_the_first_create_wins_and_the_second_changes_nothing(self, store: Store) -> None:
        assert store.create("a/b", b"first")
        assert not store.create("a/b", b"second")
        assert store.get("a/b") == b"first"

    def test_put_replaces(self, store: Store) -> None:
        store.put("a", b"1")
        store.put("a", b"2")
        assert store.get("a") == b"2"

    def test_what_is_not_there_reads_as_none(self, store: Store) -> None:
        assert store.get("nothing/here") is None

    def test_names_are_sorted_and_below_the_folder(self, store: Store) -> None:
        for path in ("p/3", "p/1", "p/2", "pp/1", "q"):
            store.put(path, b"")
        assert store.names("p") == ["p/1", "p/2", "p/3"]
        assert store.names("nothing") == []

    def test_names_go_on_after_a_path_that_need_not_exist(self, store: Store) -> None:
        for path in ("p/1", "p/2", "p/4"):
            store.put(path, b"")
        assert store.names("p", after="p/2") == ["p/4"]
        assert store.names("p", after="p/3") == ["p/4"]

    def test_a_deleted_path_can_be_created_again(self, store: Store) -> None:
        store.create("a", b"1")
        store.delete(["a", "never-there"])
        assert store.get("a") is None
        assert store.create("a", b"2")

    def test_of_many_racing_creates_exactly_one_wins(self, store: Store) -> None:
        won: list[int] = []
        barrier = threading.Barrier(8)

        def race(number: int) -> None:
            barrier.wait()
            if store.create("race", str(number).encode()):
                won.append(number)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.get("race") == str(won[0]).encode()


def test_a_directory_survives_being_opened_again(tmp_path: Path) -> None:
    open_store(str(tmp_path)).put("a/b/c", b"kept")
    assert open_store(tmp_path.as_uri()).get("a/b/c") == b"kept"


def test_a_directory_holds_no_staged_leftovers(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.create("a", b"1")
    store.create("a", b"2")
    store.put("a", b"3")
    assert store.names("staging") == []


def test_an_unknown_scheme_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="LIFTSTREAM_CHECKPOINTS"):
        open_store("ftp://somewhere/x")


def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="checkpoint directory"):
        open_store(str(tmp_path / "file" / "below"))


def test_a_store_that_fails_is_unavailable(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    (tmp_path / "a").write_text("a file where a folder is needed")
    with pytest.raises(Unavailable, match="does not answer"):
        store.put("a/b", b"")


def test_a_store_that_takes_an_object_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(MemoryStore())
    store.refuse_without_put_if_absent()
    put = obstore.put
    monkeypatch.setattr(obstore, "put", lambda *args, **_: put(*args))  # knows no conditions
    with pytest.raises(ConfigurationError, match="put-if-absent"):
        store.refuse_without_put_if_absent()
    assert store.names("probe") == []


def test_a_full_disk_is_said_with_its_path_and_leaves_nothing_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    store.put("a", b"kept")
    put = obstore.put

    def no_room(*_: object, **__: object) -> None:
        raise exceptions.GenericError(
            "Generic LocalFileSystem error: Unable to copy data to file: No space left on device (os error 28)"
        )

    monkeypatch.setattr(obstore, "put", no_room)
    with pytest.raises(Unavailable, match=f"disk of the checkpoint store {tmp_path} is full"):
        store.put("a", b"new")
    monkeypatch.setattr(obstore, "put", put)
    assert store.get("a") == b"kept"
    assert store.names("staging") == []
    store.put("a", b"new")
    assert store.get("a") == b"new"
