import asyncio
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream.app.decoder import Decoder
from stream.app.metrics import Measured, Metrics
from stream.app.outlets import KafkaOutlet, Message
from stream.app.spread import SECONDS, Spread
from stream.app.timed import SinkTimes, TimedInserter, TimedStore
from stream.contracts.versions import Schemas
from stream.durability.partition import Pause
from stream.sink.writer import Writer
from tests.app.fakes import NAMES
from tests.app.test_health import Judged
from tests.app.test_outlets import Producer
from tests.sink.fakes import FakeClickHouse
from tests.sink.makers import a_pane, an_emission

DOC = Path(__file__).parents[2] / "docs" / "metrics.md"
# Of the process, not of ours; which there are depends on the system.
OTHERS = "process_"


async def measured() -> str:
    """The page of a worker that has done a bit of everything."""
    s = Judged()
    await s.settle()
    s.worker.counters.tallies[("impressions", "rejected", "empty")] = 3
    outlet = KafkaOutlet(Producer().send)
    outlet.put(0, 1, [Message("t", b"k", b"v")])
    await outlet.flush()
    return page_of(s, outlet)


def page_of(s: Judged, outlet: KafkaOutlet | None = None) -> str:
    """A worker's page, when some was written to store and database."""
    store, times = TimedStore(s.store), SinkTimes()
    writer = Writer(
        lambda: TimedInserter(FakeClickHouse(), times.insert_seconds),
        on_latency=times.add_latency,
        interval_seconds=0,
    )
    store.put("g000001/p00001/state/000000000001-me", b"123")
    store.put("g000001/p00001/snapshot/000000000001", b"12345")
    store.put("g000001/definitions/abc", b"1")
    writer.put(an_emission(1, panes=[a_pane()]))
    assert writer.drain(10)
    parts = Measured(
        s.worker, Decoder(Schemas(), partitions=2), writer, outlet or KafkaOutlet(Producer().send), store, s.ends,
        s.health, times, NAMES,
    )  # fmt: skip
    text = Metrics(parts).text()
    writer.close()
    return text


@pytest.fixture(scope="module")
def page() -> str:
    return asyncio.run(measured())


def exposed(page: str) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Type, meaning and labels by name of what the page shows; the name as its samples have it."""
    found = {}
    for family in text_string_to_metric_families(page):
        if family.name.startswith(OTHERS):
            continue
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        name = family.name if family.name.endswith(suffix) else family.name + suffix
        kind = "gauge" if suffix == "_info" or name.endswith("_info") else family.type
        found[name] = kind, family.documentation, tuple(sorted(labels))
    return found


def documented() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """The same from the rows of the document: name, type, labels, unit, meaning, hint."""
    found = {}
    for line in DOC.read_text().splitlines():
        if not line.startswith("| `liftstream_"):
            continue
        name, kind, labels, unit, meaning, hint = (cell.strip() for cell in line.strip("|").split(" | "))
        assert unit
        assert hint
        found[name.strip("`")] = kind, meaning, tuple(sorted(re.findall(r"`(\w+)`", labels)))
    return found


def test_every_metric_is_documented_and_every_documented_one_is_there(page: str) -> None:
    assert documented() == exposed(page)


def test_the_page_counts_what_happened(page: str) -> None:
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    rejected = (("outcome", "rejected"), ("reason", "empty"), ("topic", "impressions"))
    assert samples["liftstream_records_total", *rejected] == 3
    assert samples["liftstream_lag_records", ("partition", "1"), ("topic", "rec.impressions")] == 0
    assert samples["liftstream_latency_seconds_count",] > 0
    assert samples["liftstream_clickhouse_insert_seconds_count", ("table", "panes")] == 1
    assert samples["liftstream_store_written_bytes_total", ("kind", "snapshot")] == 5
    assert samples["liftstream_store_written_bytes_total", ("kind", "definitions")] == 1
    assert samples["liftstream_snapshot_seconds_count",] == 1
    assert samples["liftstream_partition_paused", ("partition", "0"), ("reason", "sink_is_full")] == 0
    assert samples["liftstream_ready",] == 1


def test_a_partition_that_loses_its_state_in_the_middle_of_a_turn_is_shown_without() -> None:
    async def scene() -> tuple[str, list[str], dict[Any, int]]:
        s = Judged()
        await s.settle()
        s.held[1].pause = Pause.MEMORY_LIMIT
        s.held[1].partition._fall_behind()  # the step's thread has not come back yet
        return page_of(s), s.health.reasons(), s.worker.offsets()

    text, reasons, offsets = asyncio.run(scene())
    assert 'liftstream_partition_state_bytes{partition="1"} 0.0' in text
    assert "its state is 0 bytes" in reasons[0]
    assert {tp.partition for tp in offsets} == {0}


def test_a_spread_counts_the_same_one_by_one_and_many_at_once() -> None:
    values = np.array([0.0005, 0.001, 0.3, 7_000.0])
    one, many = Spread(), Spread()
    for value in values:
        one.add(float(value))
        one.add(float(value))
    many.add_many(values, 2.0)
    assert one.counts == many.counts
    assert one.total == pytest.approx(many.total)
    assert many.counts[0] == 4
    assert many.counts[-1] == 2
    assert len(many.counts) == len(SECONDS) + 1
