from dataclasses import replace

import pytest

from stream.contracts.definitions import Definitions
from stream.durability.journal import Entry, Journal, Range
from stream.errors import DamagedStore
from tests.durability.fakes import DictStore

FOLDER = "g000001/p00003"


def an_entry(number: int = 1, *, writer: str = "me", planned_at_ms: int = 1_000) -> Entry:
    taken = Range(10, 20, 7, 2**64 - 1)
    return Entry(number, (taken, taken, taken), (True, False, True), "abc", 1, planned_at_ms, writer)


def a_journal(*numbers: int) -> tuple[Journal, DictStore]:
    store = DictStore()
    journal = Journal(store, FOLDER)
    for number in numbers:
        journal.append(an_entry(number, planned_at_ms=number * 1_000))
    return journal, store


def test_an_entry_reads_back_as_written() -> None:
    assert Entry.from_json(an_entry().to_json()) == an_entry()


def test_the_path_of_an_entry_sorts_by_its_step() -> None:
    _, store = a_journal(42)
    assert list(store.objects) == ["g000001/p00003/step/000000000042"]


def test_whoever_loses_the_race_gets_the_entry_that_is_there() -> None:
    journal, _ = a_journal(1)
    theirs = an_entry(1, planned_at_ms=1_000)
    assert journal.append(an_entry(1, writer="late", planned_at_ms=5)) == theirs


def test_a_gap_in_the_journal_is_refused() -> None:
    journal, _ = a_journal(1, 2, 4)
    assert [entry.number for entry in journal.after(3)] == [4]
    with pytest.raises(DamagedStore, match="no entry for step 3"):
        journal.after(0)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"format": 2}'])
def test_an_unreadable_entry_is_refused_with_its_path(data: bytes) -> None:
    journal, store = a_journal(1)
    store.put(f"{FOLDER}/step/000000000001", data)
    with pytest.raises(DamagedStore, match="step/000000000001 cannot be read"):
        journal.after(0)


def test_only_old_entries_before_the_kept_snapshots_are_collected() -> None:
    journal, store = a_journal(*range(1, 10))
    assert journal.collect(before=7, planned_before_ms=5_000) == 4
    assert [int(path[-12:]) for path in sorted(store.objects)] == [5, 6, 7, 8, 9]
    assert journal.collect(before=7, planned_before_ms=1_000_000) == 2
    assert [int(path[-12:]) for path in sorted(store.objects)] == [7, 8, 9]


def test_definitions_are_stored_once_and_shared_by_the_partitions() -> None:
    journal, store = a_journal()
    definitions = Definitions(currency="USD")
    journal.keep_definitions(definitions)
    assert list(store.objects) == [f"g000001/definitions/{definitions.digest}"]
    assert Journal(store, "g000001/p00009").definitions(definitions.digest) == definitions


def test_missing_or_changed_definitions_are_refused() -> None:
    journal, store = a_journal()
    with pytest.raises(DamagedStore, match="missing or damaged"):
        journal.definitions("0123")
    store.put("g000001/definitions/0123", Definitions().to_json())
    with pytest.raises(DamagedStore, match="not what their name says"):
        journal.definitions("0123")


def test_an_entry_names_every_topic() -> None:
    broken = replace(an_entry(), caught_up=(True, True))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every topic"):
        Entry.from_json(broken.to_json())
