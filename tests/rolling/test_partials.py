import io

import fastavro
import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from stream.engine.outputs import COUNTS, Chunk
from stream.rolling.partials import (
    CHUNK_MS,
    FORMAT,
    PANE_MS,
    SCHEMA,
    Malformed,
    PartialKey,
    decode,
    decode_key,
    encode,
    encode_key,
    partition_for,
)

CHUNK = 1_767_225_600_000


def a_chunk(rows=(("a", 0, [1, 2, 3, 4, 5, 6]),), *, experiment="ranker", start_ms=CHUNK):
    return Chunk(
        experiment=experiment,
        chunk_start_ms=start_ms,
        arms=[arm for arm, _, _ in rows],
        pane_start_ms=[start_ms + pane * PANE_MS for _, pane, _ in rows],
        counts=[counts for _, _, counts in rows],
    )


def encoded(chunk, **changes):
    facts = {
        "generation": 1,
        "version": 7,
        "partition": 3,
        "clock_ms": CHUNK + 5,
        "planned_at_ms": CHUNK + 900,
    }
    return encode(chunk, **facts | changes)


rows_of_chunk = st.lists(
    st.tuples(
        st.text(max_size=5),
        st.integers(0, CHUNK_MS // PANE_MS - 1),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=len(COUNTS), max_size=len(COUNTS)),
    ),
    max_size=8,
)


@given(rows=rows_of_chunk, experiment=st.text(max_size=9), version=st.integers(0, 2**62))
def test_what_is_encoded_is_decoded(rows, experiment, version):
    chunk = a_chunk(rows, experiment=experiment)
    key, value = encoded(chunk, version=version, clock_ms=-1)
    assert decode_key(key) == PartialKey(experiment, 3, CHUNK)
    partial = decode(value)
    assert (partial.generation, partial.version, partial.clock_ms) == (1, version, -1)
    assert partial.planned_at_ms == CHUNK + 900
    assert [partial.arms[i] for i in partial.arm] == chunk.arms
    assert [CHUNK + i * PANE_MS for i in partial.pane] == chunk.pane_start_ms
    assert partial.counts.tolist() == chunk.counts


def test_the_same_chunk_gives_the_same_bytes():
    assert encoded(a_chunk()) == encoded(a_chunk())


def test_a_busy_chunk_of_three_arms_takes_about_a_kilobyte():
    rows = [(arm, pane, [900, 80, 7, 90, 8, 60_000]) for arm in ("a", "b", "c") for pane in range(30)]
    assert len(encoded(a_chunk(rows))[1]) < 1_400


def test_a_key_can_be_read_in_any_tool():
    assert encode_key(PartialKey("größe", 3, CHUNK)) == '["größe",3,1767225600000]'.encode()


def test_a_pane_outside_its_chunk_cannot_be_encoded():
    chunk = a_chunk([("a", 30, [0] * 6)])
    with pytest.raises(ValueError, match="not in the chunk"):
        encoded(chunk)


@pytest.mark.parametrize(
    "key",
    [b"", b"\xff", b"{}", b"[]", b'["a",1]', b'["a",1,2,3]', b'["a","1",0]', b"[1,1,0]", b'["a",true,0]',
     b'["a",-1,0]', b'["a",1,1000]', b'["a",1,1e300]', b"[" * 100_000],
)  # fmt: skip
def test_a_key_of_another_shape_is_malformed(key):
    with pytest.raises(Malformed):
        decode_key(key)


def a_value(**changes):
    fields = {
        "generation": 1, "version": 1, "clock_ms": 0, "planned_at_ms": 0, "arms": ["a"], "arm": b"\0", "pane": b"\0",
        "counts": [b"\1"] * 6,
    }  # fmt: skip
    out = io.BytesIO()
    out.write(bytes([FORMAT]))
    fastavro.schemaless_writer(out, SCHEMA, fields | changes)
    return out.getvalue()


def test_the_smallest_value_decodes():
    assert decode(a_value()).counts.tolist() == [[1] * 6]


@pytest.mark.parametrize(
    "changes",
    [{"arm": b"\1"}, {"pane": bytes([30])}, {"pane": b""}, {"counts": [b"\1"] * 5}, {"counts": [b"\1\1\1"] * 6},
     {"counts": [b""] * 6}, {"version": -1}, {"generation": -1}, {"arm": b"", "pane": b"", "counts": [b"\1"] * 6}],
    ids=str,
)  # fmt: skip
def test_a_value_that_contradicts_itself_is_malformed(changes):
    with pytest.raises(Malformed):
        decode(a_value(**changes))


def test_a_newer_format_is_malformed():
    with pytest.raises(Malformed, match="format"):
        decode(bytes([FORMAT + 1]) + a_value()[1:])


@given(
    cut=st.integers(0, 10_000),
    flip=st.integers(0, 10_000),
    to=st.integers(0, 255),
    tail=st.binary(max_size=3),
)
def test_damaged_values_decode_or_are_malformed(cut, flip, to, tail):
    whole = bytearray(encoded(a_chunk([("a", 0, [1] * 6), ("b", 3, [300] * 6)]))[1])
    whole[flip % len(whole)] = to
    damaged = bytes(whole[: cut % (len(whole) + 1)]) + tail
    try:
        partial = decode(damaged)
    except Malformed:
        return
    assert partial.counts.shape == (len(partial.arm), len(COUNTS))


@given(experiment=st.text(), partitions=st.integers(1, 64))
def test_an_experiment_lies_where_other_clients_put_its_name(experiment, partitions):
    every = list(range(partitions))
    assert partition_for(experiment, partitions) == DefaultPartitioner()(experiment.encode(), every, every)
