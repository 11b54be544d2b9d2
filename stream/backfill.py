"""The same engine over files, without a broker: events merged by their time, counted in steps, written at the end.

Nothing of a run becomes visible before all of it was counted, so a run that dies leaves the folder as it was.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from clickhouse_connect.driver.client import Client

from stream.app.engines import Engines, LiveEngine
from stream.contracts import avro
from stream.contracts.definitions import Definitions
from stream.contracts.files import BadRecord, read_numbered
from stream.contracts.reasons import Reason, status_of
from stream.contracts.topics import DEFAULT_PREFIX, FIELDS, Topic
from stream.contracts.versions import newest
from stream.durability.compatibility import incompatible
from stream.durability.identity import Cluster, Deployment, InputTopic, open_deployment
from stream.durability.manifest import Mark
from stream.durability.snapshot import Snapshots
from stream.durability.store import open_store
from stream.engine import ENGINE_VERSION
from stream.engine.batch import Batch
from stream.engine.engine import Step
from stream.engine.outputs import Outputs
from stream.errors import ConfigurationError, DamagedStore
from stream.intake.avro_program import Program
from stream.intake.decode import columns_of, decode
from stream.results.rules import Rules
from stream.rolling.partials import encode
from stream.rolling.state import RollingState
from stream.sink.connect import connect
from stream.sink.emission import Emission
from stream.sink.migrate import migrate
from stream.sink.origins import Origins
from stream.sink.queries import Database
from stream.sink.standings import put_definitions, put_standings, read_standings
from stream.sink.writer import Writer

I64 = npt.NDArray[np.int64]
Progress = Callable[[int, int | None], None]

STEP_ROWS = 100_000
PARTITION = 0
CLUSTER = Cluster(
    id="files",
    topics=(
        InputTopic("assignments", None),
        InputTopic("impressions", None),
        InputTopic("interactions", None),
    ),
    partitions=1,
)
NAMES = {topic.word: DEFAULT_PREFIX + topic.word for topic in Topic}  # as if they had come through Kafka
CAUGHT_UP = (True, True, True)
REPORT_EVERY = 20_000


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """What a run did. rows_by_topic: events read, good ones. bad: records of the files that were not usable.

    late: good events that came after the horizon an earlier run had reached, and so were not counted.
    """

    rows_by_topic: dict[Topic, int]
    bad: list[BadRecord]
    late: int


@dataclass(slots=True)
class _Read:
    """One topic's records in file order: encoded values, their `at`, and where each stood."""

    values: list[bytes] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    places: list[tuple[Path, int]] = field(default_factory=list)  # (file, line) of each value
    bad: list[BadRecord] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Sorted:
    """One topic's records in order of time, ties in file order; `first_offset` is that of the first."""

    topic: Topic
    values: list[bytes]
    at: I64
    places: list[tuple[Path, int]]
    first_offset: int
    bad: list[BadRecord]


def backfill(
    files: Mapping[Topic, Sequence[Path]],
    *,
    into: Path,
    definitions: Definitions,
    rules: Rules | None = None,
    progress: Progress = lambda done, total: None,
) -> BackfillReport:
    """Count the events of files into the embedded database in `into`; a second run into the same folder continues.

    progress: called with records done and, once known, their number. Records that break the contract are in the report
    and in `dead_letters`. Raises ConfigurationError for files that cannot be read or definitions that do not fit what
    the folder holds, DirectoryInUse when another process has it open.
    """
    _refuse_unreadable(files)
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"The folder {into} cannot be made: {error.strerror}.") from None
    with ExitStack() as stack:
        connection = stack.enter_context(connect(f"chdb://{(into / 'clickhouse').resolve()}"))
        client = connection.client()
        migrate(client)
        late = _late(client)
        store = open_store(f"file://{(into / 'checkpoints').resolve()}")
        deployment = open_deployment(store, CLUSTER, newest_rows=lambda: 0, new_generation=False)
        snapshots = Snapshots(store, deployment.folder(PARTITION))
        engine, offsets = _resume(snapshots, deployment, definitions)
        topics = [_sorted(topic, files.get(topic, ()), offsets[topic], progress) for topic in Topic]
        emissions, bad = _count(engine, topics, definitions, deployment.generation, progress)
        writer = Writer(connection.client, interval_seconds=0.0)
        stack.callback(writer.close)
        for emission in emissions:
            writer.put(emission)
        _write_windows(writer, engine, deployment.generation)
        put_definitions(
            writer, definitions, generation=deployment.generation, now_ms=time.time_ns() // 1_000_000
        )
        writer.drain()
        with Database(connection.read_only_client(), lambda: None) as db:
            put_standings(writer, read_standings(db, definitions, rules or Rules()))
        writer.drain()
        _publish(snapshots, engine, topics, definitions)
        late = _late(client) - late
        client.close()
    unread = sum(len(one.bad) for one in topics)
    rejected = Counter(topic for topic, _ in bad[unread:])
    rows = {one.topic: len(one.values) - rejected[one.topic] for one in topics}
    records = [record for _, record in bad]
    return BackfillReport(rows, sorted(records, key=lambda record: (str(record.path), record.line)), late)


def _refuse_unreadable(files: Mapping[Topic, Sequence[Path]]) -> None:
    """Before anything is made."""
    for topic, paths in files.items():
        for path in paths:
            next(read_numbered(path, topic), None)


def _write_windows(writer: Writer, engine: LiveEngine, generation: int) -> None:
    """The rolling windows as they are at the end, by the second agent's code."""
    state = RollingState(partitions=1)
    for chunk in engine.live_chunks():
        key, value = encode(
            chunk,
            generation=generation,
            version=engine.step,
            partition=PARTITION,
            clock_ms=engine.clock_ms,
            planned_at_ms=0,
        )
        state.apply(key, value)
    rolling = state.rows()
    if not len(rolling.version):
        return
    writer.put_rows("rolling", rolling.columns, generation=generation, version=rolling.version)


def _late(client: Client) -> int:
    return int(client.query("SELECT sum(late) FROM ledger").result_rows[0][0])


def _resume(
    snapshots: Snapshots, deployment: Deployment, definitions: Definitions
) -> tuple[LiveEngine, tuple[int, int, int]]:
    engines = Engines(key=deployment.hash_key, partitions=CLUSTER.partitions)
    found = snapshots.newest()
    if found is None:
        return engines.create(PARTITION, definitions), (0, 0, 0)
    snapshot, export = found
    if snapshot.mark.engine_version > ENGINE_VERSION:
        raise DamagedStore(
            f"The folder was written by engine version {snapshot.mark.engine_version}, this is {ENGINE_VERSION}: "
            "count the files into a new folder."
        )
    engine = engines.load(PARTITION, definitions, export)
    why = incompatible(engine.definitions, definitions, engine.experiments_with_data(), max(engine.newest_ms))
    if why is not None:
        raise ConfigurationError(why)
    return engine, snapshot.mark.offsets


# ---- reading


def _sorted(topic: Topic, paths: Sequence[Path], first_offset: int, progress: Progress) -> _Sorted:
    read = _Read()
    encoder = avro.Encoder(topic)
    for path in paths:
        _read_file(path, topic, encoder, read, progress)
    at = np.array(read.at, np.int64)
    order = np.argsort(at, kind="stable")
    return _Sorted(
        topic=topic,
        values=[read.values[i] for i in order],
        at=at[order],
        places=[read.places[i] for i in order],
        first_offset=first_offset,
        bad=read.bad,
    )


def _read_file(path: Path, topic: Topic, encoder: avro.Encoder, read: _Read, progress: Progress) -> None:
    for line, event in read_numbered(path, topic):
        if isinstance(event, BadRecord):
            read.bad.append(event)
            continue
        read.values.append(encoder.encode(event))
        read.at.append(event.at)
        read.places.append((path, line))
        if len(read.values) % REPORT_EVERY == 0:
            progress(0, None)


# ---- counting


def _count(
    engine: LiveEngine, topics: list[_Sorted], definitions: Definitions, generation: int, progress: Progress
) -> tuple[list[Emission], list[tuple[Topic, BadRecord]]]:
    """Steps over the merged files; what they put out, and all records that were rejected, those of the files first."""
    now_ms = time.time_ns() // 1_000_000
    programs = {topic: Program.of(topic, {newest(topic).schema_id: newest(topic).schema}) for topic in Topic}
    bad = [(one.topic, record) for one in topics for record in one.bad]
    emissions: list[Emission] = []

    def take(batches: dict[Topic, list[Batch]]) -> Outputs:
        outputs = engine.execute(Step(engine.step + 1, now_ms, CAUGHT_UP, definitions), batches)
        origins = Origins.of(np.full(outputs.rows, now_ms, np.int64))
        emissions.append(Emission(generation, PARTITION, outputs.with_topics(NAMES), now_ms, 0, origins))
        return outputs

    if bad:
        take({one.topic: [_rejected(one, now_ms)] for one in topics if one.bad})
    total = sum(len(one.values) for one in topics)
    done = 0
    for slices in _steps(topics):
        batches = {}
        for one, (start, stop) in zip(topics, slices, strict=True):
            first = one.first_offset + len(one.bad) + start
            columns = columns_of(
                one.values[start:stop], np.arange(first, first + stop - start), np.full(stop - start, now_ms)
            )
            batches[one.topic] = [
                decode(one.topic, columns, programs[one.topic], partition=PARTITION, partitions=1)
            ]
            done += stop - start
        bad += _rejected_by_engine(take(batches), topics)
        progress(done, total)
    return emissions, bad


def _steps(topics: list[_Sorted]) -> list[list[tuple[int, int]]]:
    """By step, the (start, stop) of each topic: about STEP_ROWS records up to a common time."""
    times = np.sort(np.concatenate([one.at for one in topics]))
    cuts = np.unique(np.append(times[STEP_ROWS - 1 :: STEP_ROWS], times[-1:]))
    stops = [np.searchsorted(one.at, cuts, side="right").tolist() for one in topics]
    return [[(stop[k - 1] if k else 0, stop[k]) for stop in stops] for k in range(len(cuts))]


def _rejected(one: _Sorted, now_ms: int) -> Batch:
    """The records that broke the contract already in the file, as a batch of rejected ones."""
    n = len(one.bad)
    columns = columns_of(
        [record.raw for record in one.bad],
        np.arange(one.first_offset, one.first_offset + n),
        np.full(n, now_ms),
    )
    names = FIELDS[one.topic]
    status = [
        status_of(record.reason, names.index(record.field) if record.field in names else -1)
        for record in one.bad
    ]
    return Batch(
        topic=one.topic,
        buf=columns.buf,
        offset=columns.offset,
        record_at_ms=columns.record_at_ms,
        value_pos=columns.value_pos,
        value_len=columns.value_len,
        fields=np.zeros((n, len(names)), np.int64),
        status=np.array(status, np.int64),
        misrouted=np.zeros(n, np.bool_),
    )


def _rejected_by_engine(outputs: Outputs, topics: list[_Sorted]) -> list[tuple[Topic, BadRecord]]:
    """Records with good fields that the engine could not take, such as one of an unknown arm."""
    table = outputs.tables["dead_letters"]
    by_word = {one.topic.word: one for one in topics}
    found = []
    columns = (table[name] for name in ("topic", "offset", "reason", "field", "rule", "payload"))
    for word, offset, reason, name, rule, payload in zip(*columns, strict=True):
        one = by_word[word]
        path, line = one.places[offset - one.first_offset - len(one.bad)]
        raw = json.dumps(avro.decode(one.topic, payload), ensure_ascii=False).encode()
        found.append((one.topic, BadRecord(path, line, name, rule, Reason[reason.upper()], raw)))
    return found


def _publish(
    snapshots: Snapshots, engine: LiveEngine, topics: list[_Sorted], definitions: Definitions
) -> None:
    now_ms = time.time_ns() // 1_000_000
    a, b, c = (one.first_offset + len(one.bad) + len(one.values) for one in topics)
    mark = Mark(
        step=engine.step,
        offsets=(a, b, c),
        planned_at_ms=now_ms,
        clock_ms=engine.clock_ms,
        definitions=definitions.digest,
        engine_version=ENGINE_VERSION,
        taken_at_ms=now_ms,
        writer="backfill",
    )
    if engine.step > snapshots.newest_step():
        snapshots.publish(snapshots.capture(mark, engine.export()))
        snapshots.collect()
