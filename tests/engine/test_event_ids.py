"""Event ids of assignments: packed or not, they compare as their texts do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from stream.contracts.limits import MAX_ARMS, MAX_EXPERIMENTS, MAX_ID_BYTES, MAX_PHASES
from stream.engine.event_ids import UUID, bytes_of_id, compare_id, keep_id
from stream.engine.gone import pack_event_ids
from stream.engine.layout import ASSIGNED
from stream.engine.tables import Store
from tests.engine.makers import T0, Run, an_assignment


@njit
def keep(t, row, buf, pos, length):  # type: ignore[no-untyped-def]
    keep_id(t, row, buf, pos, length)


@njit
def compare(t, row, buf, pos, length):  # type: ignore[no-untyped-def]
    return compare_id(t, row, buf, pos, length)


uuids = st.uuids().map(str)
texts = st.one_of(
    uuids, uuids.map(str.upper), uuids.map(lambda text: text[:-1] + "g"), uuids.map(lambda text: text[:20]),
    st.text("0aAf-~", max_size=40),
)  # fmt: skip


def kept(text: str) -> Store:
    store = Store()
    raw = text.encode()
    keep(store.tables(), 0, np.frombuffer(bytearray(raw + b"?"), np.uint8), 0, len(raw))
    return store


@given(texts, texts)
def test_ids_compare_as_their_texts_do(one: str, other: str) -> None:
    raw = other.encode()
    found = compare(kept(one).tables(), 0, np.frombuffer(bytearray(raw + b"?"), np.uint8), 0, len(raw))
    assert np.sign(found) == (one.encode() > raw) - (one.encode() < raw)


ROWS = st.tuples(texts.filter(bool), st.booleans(), st.integers(0, 9))  # text, is free, bytes before


@given(st.lists(ROWS, min_size=1, max_size=5), st.data())
def test_ids_that_began_at_any_byte_are_moved_to_where_a_row_can_say_it(
    rows: list[tuple[str, bool, int]], data: st.DataObject
) -> None:
    """As an engine of version 5 kept them: in any order, among bytes of no row, and some rows are free again."""
    stores = [kept(text) for text, _, _ in rows]
    assigned = np.concatenate([store.a["assigned"][:1] for store in stores])
    starts, old = np.zeros(len(rows), np.int64), np.zeros(0, np.uint8)
    for row in data.draw(st.permutations(range(len(rows)))):
        _, is_free, gap = rows[row]
        starts[row] = len(old) + gap
        length = 16 if assigned["id_len"][row] == UUID else assigned["id_len"][row]
        old = np.concatenate([old, np.full(gap, 0xFF, np.uint8), stores[row].a["arena"][:length]])
        assigned["experiment"][row] = -1 if is_free else 0
    there = assigned["experiment"] == 0
    store = Store()
    store.put(assigned=assigned, arena=np.zeros(1024, np.uint8))
    end = pack_event_ids(starts, assigned, old, store.a["arena"])
    assert end == sum(bytes_of_id(n) for n in assigned["id_len"][there])
    assert not store.a["arena"][end:].any()
    for row in np.flatnonzero(there):
        raw = rows[row][0].encode()
        assert compare(store.tables(), row, np.frombuffer(bytearray(raw + b"?"), np.uint8), 0, len(raw)) == 0


@pytest.mark.parametrize(
    ("field", "largest"),
    [("experiment", MAX_EXPERIMENTS), ("arm", MAX_ARMS), ("phase", MAX_PHASES), ("id_len", MAX_ID_BYTES)],
)
def test_a_row_of_an_assignment_has_room_for_what_the_limits_allow(field: str, largest: int) -> None:
    assert largest <= np.iinfo(ASSIGNED[field]).max


@given(uuids)
def test_a_uuid_takes_sixteen_bytes(text: str) -> None:
    assert bytes_of_id(kept(text).a["assigned"]["id_len"][0]) == 16
    assert bytes_of_id(kept(text.upper()).a["assigned"]["id_len"][0]) == 40


def test_of_two_assignments_at_the_same_time_the_one_with_the_larger_uuid_counts() -> None:
    small, large = "0b5c0000-0000-4000-8000-00000000000a", "0b5c0000-0000-4000-8000-0000000000a0"
    for first, second in ((small, large), (large, small)):
        run = Run()
        run.step(assignments=[an_assignment(first, T0, arm="a" if first == large else "b")])
        run.step(assignments=[an_assignment(second, T0, arm="a" if second == large else "b")])
        assert run.total(arm="a")["mixed_users"] == 1
