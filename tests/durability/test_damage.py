"""A disk changes, cuts or loses one object of the store."""

import copy
from collections import Counter
from dataclasses import replace

import pytest

from stream.durability.identity import Cluster, Deployment, InputTopic
from stream.durability.journal import Entry, Range
from stream.durability.seal import sealed, unsealed
from tests.durability.damage import Damage, any_damage, damaged
from tests.durability.fakes import Database, DictStore, HandClock
from tests.durability.process import FOLDER, SMALL, Process, a_log, expected

# Journal entries are collected as early as the rules allow.
BRIEF = replace(SMALL, journal_kept_ms=0, collect_every_ms=0)
A_RANGE = Range(lo=3, hi=7, rows=4, digest=99)
AN_ENTRY = Entry(
    number=12, ranges=(A_RANGE, A_RANGE, A_RANGE), caught_up=(True, False, True), definitions="abc",
    engine_version=7, planned_at_ms=1_700_000_000_000, writer="me",
)  # fmt: skip
A_TOPIC = InputTopic("impressions", None)
A_DEPLOYMENT = Deployment("d", 1, bytes(range(16)), Cluster("c", (A_TOPIC, A_TOPIC, A_TOPIC), 4))


@any_damage
def test_whichever_object_of_the_snapshots_is_damaged_nothing_is_lost_or_doubled(damage: Damage) -> None:
    log, store, database, clock = a_log(), DictStore(), Database(), HandClock()
    killed = Process(log, store, database, clock=clock, pace=BRIEF)
    killed.start()
    while killed.partition.step < 12:
        killed.turn()
    paths = [*store.names(f"{FOLDER}/snapshot"), *store.names(f"{FOLDER}/state")]
    assert len(paths) >= 6
    assert len(store.names(f"{FOLDER}/step")) < 12
    for seed, path in enumerate(paths, 1):
        own = copy.deepcopy(database)
        Process(
            log, damaged(store, path, damage), own, clock=HandClock(clock.ms), pace=BRIEF, seed=seed
        ).run()
        assert Counter(own.totals()) == expected(log)


@pytest.mark.parametrize("stored", [AN_ENTRY, A_DEPLOYMENT], ids=["journal entry", "deployment"])
def test_a_document_with_a_changed_bit_is_read_as_it_was_or_not_at_all(stored: Entry | Deployment) -> None:
    data = stored.to_json()
    for place in range(len(data)):
        for bit in range(8):
            changed = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            try:
                assert type(stored).from_json(changed) == stored
            except (ValueError, KeyError, TypeError):
                continue


def test_documents_of_earlier_versions_have_no_seal() -> None:
    assert unsealed(b'{"format":1}') == unsealed(sealed({"format": 1})) == {"format": 1}
