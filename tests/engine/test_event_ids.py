"""Event ids of assignments: packed or not, they compare as their texts do."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from stream.engine.event_ids import bytes_of_id, compare_id, keep_id
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


@given(uuids)
def test_a_uuid_takes_sixteen_bytes(text: str) -> None:
    assert bytes_of_id(kept(text).a["assigned"]["id_len"][0]) == 16
    assert bytes_of_id(kept(text.upper()).a["assigned"]["id_len"][0]) == 36


def test_of_two_assignments_at_the_same_time_the_one_with_the_larger_uuid_counts() -> None:
    small, large = "0b5c0000-0000-4000-8000-00000000000a", "0b5c0000-0000-4000-8000-0000000000a0"
    for first, second in ((small, large), (large, small)):
        run = Run()
        run.step(assignments=[an_assignment(first, T0, arm="a" if first == large else "b")])
        run.step(assignments=[an_assignment(second, T0, arm="a" if second == large else "b")])
        assert run.total(arm="a")["mixed_users"] == 1
