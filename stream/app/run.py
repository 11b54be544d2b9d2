"""`liftstream worker` from its start to its exit code."""

import gc
import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from stream.app.breaker import Breaker, Rule
from stream.app.cluster import Broker, describe_broker
from stream.app.decisions import connect_decisions, decisions_of
from stream.app.decoder import Decoder
from stream.app.ends import Ends
from stream.app.engines import Engines
from stream.app.faust_app import (
    connect_agents,
    connect_service,
    make_app,
    run_app,
    sender,
)
from stream.app.health import Health, Patience
from stream.app.metrics import Measured, Metrics
from stream.app.outlets import Destination, KafkaOutlet, Outlets
from stream.app.pages import Diary, connect_pages, connect_watch
from stream.app.results import Results, connect_results
from stream.app.rolling import RollingWindows
from stream.app.stopping import Stopping
from stream.app.timed import SinkTimes, TimedInserter, TimedStore
from stream.app.warm import warm_up
from stream.app.watchdog import Watchdog
from stream.app.worker import Worker
from stream.contracts.definitions import Definitions
from stream.contracts.registry import Registry
from stream.contracts.topics import Topic
from stream.contracts.versions import Schemas
from stream.durability.identity import Deployment, open_deployment
from stream.durability.partition import Partition
from stream.durability.snapshot import Snapshots
from stream.durability.store import Store, open_store
from stream.durability.surroundings import Clock, Owner, Surroundings
from stream.engine import ENGINE_VERSION
from stream.errors import LiftstreamError
from stream.intake.log_repeats import limit_repeats
from stream.intake.reading import Readings
from stream.local.query_server import QueryServer
from stream.settings import Settings
from stream.sink.claim import claim
from stream.sink.connect import Connection, connect, embedded_path
from stream.sink.migrate import migrate
from stream.sink.queries import Database
from stream.sink.row_limit import RowLimit
from stream.sink.standings import put_definitions
from stream.sink.writer import Writer
from stream.topics import create_topics

log = logging.getLogger(__name__)

GC_ALLOCATIONS = 10_000  # objects made since, before the youngest are looked through
FLUSH_SECONDS = 0.25  # between two flushes, at least
GATHER_SECONDS = 1.0  # a step's rows wait for those of the other partitions' steps, until the round is over
CLOSE_SECONDS = 2.0  # for rows that no snapshot waits for

_CHATTY = ("faust", "mode", "aiokafka", "aiohttp.access")


def run_worker(settings: Settings, *, new_generation: bool = False) -> int:
    """Count until SIGTERM or SIGINT; the exit code of the process.

    new_generation: start over beside the present state and rows.
    Raises a LiftstreamError with what must be done when it cannot start or must not go on.
    """
    _log_to_stderr()
    stopping = Stopping()
    stopping.install()
    definitions = settings.definitions()
    store = open_store(settings.checkpoints)
    store.refuse_without_put_if_absent()
    create_topics(settings)
    broker = describe_broker(settings)
    with ExitStack() as stack:
        connection = stack.enter_context(_database(settings))
        deployment = open_deployment(
            store,
            broker.cluster,
            newest_rows=lambda: newest_generation(connection),
            new_generation=new_generation,
        )
        _claim(connection, store, deployment, broker.cluster.partitions)
        warm_up(definitions)
        times = SinkTimes()
        writer = Writer(
            lambda: TimedInserter(connection.client(), times.insert_seconds),
            max_bytes=int(settings.outbox_limit),
            on_latency=times.add_latency,
            interval_seconds=FLUSH_SECONDS,
            gather_seconds=GATHER_SECONDS,
            limit=RowLimit(settings.rows_per_second),
        )
        stack.callback(writer.close, CLOSE_SECONDS)
        return _run(
            settings, definitions, TimedStore(store), broker, deployment, connection, writer, times, stopping
        )  # fmt: skip


def _run(
    settings: Settings,
    definitions: Definitions,
    store: TimedStore,
    broker: Broker,
    deployment: Deployment,
    connection: Connection,
    writer: Writer,
    times: SinkTimes,
    stopping: Stopping,
) -> int:
    app = make_app(settings, partitions=broker.cluster.partitions)
    outlet = KafkaOutlet(sender(app), max_bytes=int(settings.outbox_limit) // 4)
    around = Surroundings(
        store=store,
        machines=Engines(key=deployment.hash_key, partitions=broker.cluster.partitions),
        readings=Readings(broker.cluster.partitions),
        sink=Outlets(writer, outlet, _destination(settings, deployment, broker)),
        clock=system_clock(),
    )
    owner = Owner(_writer_id(), ENGINE_VERSION, definitions)
    schemas = Schemas(Registry(settings.registry_url) if settings.registry_url else None)
    names = {topic: settings.topic(topic) for topic in Topic}
    decoder = Decoder(schemas, partitions=broker.cluster.partitions)
    worker = Worker(
        names,
        partition_of=lambda number: Partition(number, deployment.folder(number), owner, around),
        decoder=decoder,
        breaker_of=lambda number: Breaker(number, _rule(settings)),
        partitions=broker.cluster.partitions,
        memory_limit=int(settings.memory_limit),
        stays_in_group=settings.stay_in_group,
        rows_per_second=settings.rows_per_second,
        on_failure=stopping.begin,
    )
    rolling = RollingWindows(writer, partitions=broker.partials_partitions)
    connect_agents(app, worker, rolling, settings.partials_topic)
    connect_service(
        app, worker, outlet, rolling,
        partials_topic=settings.partials_topic, step_seconds=settings.step_seconds,
        on_round=writer.flush,
    )  # fmt: skip
    ends = Ends()
    health = Health(worker, writer, ends, names, _patience(settings))
    health.remember_arrivals(last_arrivals(connection, deployment.generation))

    def open_database() -> Database:
        return Database(connection.read_only_client(), lambda: None)

    results = Results(
        open_database, writer, definitions, settings.rules(), partitions=broker.partials_partitions
    )
    health.others.append(lambda: results.trouble)
    connect_results(app, results, settings.partials_topic)
    told = KafkaOutlet(sender(app))
    decisions = decisions_of(settings, definitions, around, told, writer, rolling, open_database)
    health.others.append(lambda: decisions.trouble)
    connect_decisions(app, decisions, told, settings.partials_topic, broker.partials_partitions)
    put_definitions(writer, definitions, generation=deployment.generation, now_ms=around.clock.now_ms())
    measured = Measured(worker, decoder, writer, outlet, store, ends, health, times, names)
    connect_pages(app, health, Metrics(measured))
    diary = Diary(health, writer, worker=owner.writer, generation=deployment.generation)
    connect_watch(app, worker, health, ends, diary)
    log.info(
        "Worker %s of group %s starts: deployment %s, generation %d.",
        owner.writer, settings.group, deployment.id, deployment.generation,
    )  # fmt: skip
    watchdog = Watchdog(lambda: health.stalls(share=1.0))
    spare_the_collector()
    try:
        return _verdict(worker, run_app(app, stopping, lambda: _last_code(worker)))
    finally:
        watchdog.close()


def _patience(settings: Settings) -> Patience:
    return Patience(
        stalled=settings.stall_timeout.total_seconds(),
        behind=settings.behind_after.total_seconds(),
        silent=settings.silent_after.total_seconds(),
    )


def _rule(settings: Settings) -> Rule:
    return Rule(settings.breaker_rows, settings.breaker_share, stops=settings.breaker_action == "stop")


def _verdict(worker: Worker, code: int) -> int:
    """The exit code; what stopped the worker is raised if it is for the user, and logged if it is a bug."""
    if worker.failure is None:
        return code
    if isinstance(worker.failure, LiftstreamError):
        raise worker.failure
    log.critical("The worker stopped because of a fault of its own.", exc_info=worker.failure)
    return 1


def _last_code(worker: Worker) -> int:
    """The same when the worker does not come to an end: nobody is left who would print what is raised."""
    if worker.failure is None:
        return 0
    log.critical("The worker stopped: %s", worker.failure)
    return 1


@contextmanager
def _database(settings: Settings) -> Iterator[Connection]:
    """The migrated database; an embedded one answers other processes' questions meanwhile."""
    with connect(settings.clickhouse_url) as connection:
        connection.ask(migrate)
        if not connection.is_embedded:
            yield connection
            return
        server = QueryServer(connection, embedded_path(settings.clickhouse_url))
        try:
            yield connection
        finally:
            server.close()


def _claim(connection: Connection, store: Store, deployment: Deployment, partitions: int) -> None:
    """Refuse a database and a store that do not belong together."""
    snapshots = [Snapshots(store, deployment.folder(number)) for number in range(partitions)]
    connection.ask(
        partial(
            claim,
            generation=deployment.generation,
            deployment=deployment.id,
            # A snapshot is published once its rows are acknowledged.
            has_written=lambda: any(of_partition.newest_step() for of_partition in snapshots),
        )
    )


def spare_the_collector() -> None:
    """Let the garbage collector pass over what the start has made, which stays: it went through all of it often."""
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)


def newest_generation(connection: Connection) -> int:
    """The newest generation that has rows, 0 when there are none."""
    return connection.ask(
        lambda client: int(client.query("SELECT max(generation) FROM generations").result_rows[0][0])
    )


def last_arrivals(connection: Connection, generation: int) -> dict[Topic, int]:
    """When records of each topic last came, epoch milliseconds, as the workers of this generation wrote it down."""
    columns = ", ".join(f"toUnixTimestamp64Milli(max({topic.word}_at))" for topic in Topic)
    question = f"SELECT {columns} FROM worker_status WHERE generation = {generation}"
    (found,) = connection.ask(lambda client: client.query(question).result_rows)
    return {topic: int(at_ms) for topic, at_ms in zip(Topic, found, strict=True) if at_ms is not None}


def _destination(settings: Settings, deployment: Deployment, broker: Broker) -> Destination:
    return Destination(
        generation=deployment.generation,
        partials_topic=settings.partials_topic,
        partials_partitions=broker.partials_partitions,
        dead_letters_topic=settings.dead_letters_topic,
        input_topics={topic.word: settings.topic(topic) for topic in Topic},
    )


def system_clock() -> Clock:
    """The machine's clocks; where uptime does not count suspension (macOS), the wall clock stands in."""
    uptime = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_REALTIME)
    return Clock(
        now_ms=lambda: time.time_ns() // 1_000_000,
        uptime_ms=lambda: time.clock_gettime_ns(uptime) // 1_000_000,
    )


def _writer_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("kafka").setLevel(
        logging.CRITICAL
    )  # only used at the start; its errors are raised as well
    limit_repeats()
