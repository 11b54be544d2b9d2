"""From an engine's columns to Arrow, the newest rows, and latency quantiles."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.engine.outputs import Words
from stream.sink import tables
from stream.sink.origins import Origins
from stream.sink.outbox import newest
from stream.sink.tables import SHAPES, int128
from tests.sink.makers import a_step, a_total


def values(array: pa.FixedSizeBinaryArray) -> list[int]:
    return [int.from_bytes(x, "little", signed=True) for x in array.to_pylist()]


def words(numbers: list[int]) -> np.ndarray:
    low_high = [((x & (2**64 - 1)) - (2**64 if x & 2**63 else 0), x >> 64) for x in numbers]
    return np.array(low_high, np.int64).reshape(-1, 2)


@given(st.lists(st.integers(-(2**127), 2**127 - 1)))
def test_integers_of_128_bits_pass_as_numbers_and_as_words(numbers: list[int]) -> None:
    assert values(int128(numbers)) == numbers
    assert values(int128(words(numbers))) == numbers


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_small_integers_are_widened_with_their_sign(numbers: list[int]) -> None:
    assert values(int128(np.array(numbers, np.int64))) == numbers
    assert values(int128(np.array([numbers, numbers], np.int64).T[:, 1])) == numbers


def test_an_integer_beyond_128_bits_is_an_error() -> None:
    with pytest.raises(OverflowError):
        int128([2**127])


@pytest.mark.parametrize("wrong", [{}, {"extra": [1]}])
def test_missing_and_unknown_columns_are_errors(wrong: dict[str, list[int]]) -> None:
    columns = a_step(totals=[a_total()]).tables["totals"] | wrong
    if not wrong:
        del columns["clicks"]
    with pytest.raises(ValueError, match="user_sums: columns differ"):
        SHAPES["totals"].rows(columns, generation=1, partition=0, version=1)


@given(codes=st.lists(st.integers(0, 2)))
def test_words_become_the_texts_they_stand_for(codes: list[int]) -> None:
    words = Words(["", "a", "größer"], np.array(codes, np.int64))
    texts = [words.names[code] for code in codes]
    assert (len(words), list(words)) == (len(texts), texts)
    columns = {"experiment": words, "metric": texts, "slot": [1] * len(texts), "since_ms": [-1] * len(texts)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "TAKEN_ROWS", 4)
        rows = SHAPES["declared_metrics"].rows(columns, generation=1, partition=0, version=1)
    assert rows["experiment"].type == rows["metric"].type == pa.string()
    assert rows["experiment"].to_pylist() == rows["metric"].to_pylist() == texts


def test_columns_of_different_lengths_are_an_error() -> None:
    columns = a_step(totals=[a_total()]).tables["totals"] | {"clicks": [1, 2]}
    with pytest.raises(pa.ArrowInvalid):
        SHAPES["totals"].rows(columns, generation=1, partition=0, version=1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.integers(0, 5)), min_size=1))
def test_of_each_key_the_newest_version_stays_and_of_equal_ones_the_last(
    rows: list[tuple[str, int, int]],
) -> None:
    blocks, expected = [], {}
    for i, (arm, partition, version) in enumerate(rows):
        columns = a_step(totals=[a_total(arm=arm, clicks=i)]).tables["totals"]
        blocks.append(SHAPES["totals"].rows(columns, generation=1, partition=partition, version=version))
        best = expected.get((arm, partition))
        if best is None or version >= best[0]:
            expected[arm, partition] = version, i
    found = newest("totals", blocks).to_pylist()
    assert {(r["arm"], r["partition"]): (r["version"], r["clicks"]) for r in found} == expected
    assert len(found) == len(expected)


@given(st.lists(st.lists(st.integers(0, 100_000), min_size=1, max_size=700), min_size=1, max_size=4))
def test_merged_origins_report_latencies_close_to_the_exact_ranks(steps: list[list[int]]) -> None:
    parts = [Origins.of(np.array(step, np.int64)) for step in steps]
    merged = Origins.merged(parts)
    ages = np.sort(100_000 - np.concatenate(steps))
    assert merged.count == len(ages)
    assert merged.newest_ms == max(map(max, steps))
    tolerance = 0.02 + 1 / len(ages)
    for q, found in zip((0.5, 0.95, 0.99), merged.latencies_ms(100_000), strict=True):
        assert found is not None
        assert np.mean(ages < found) <= q + tolerance
        assert np.mean(ages <= found) >= q - tolerance


def test_no_records_have_no_latency() -> None:
    nothing = Origins.of(np.empty(0, np.int64))
    assert nothing.latencies_ms(5) == (None, None, None)
    assert Origins.merged([nothing, nothing]).newest_ms is None
