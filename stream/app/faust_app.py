"""The Faust app: two agents that hand over, one service that steps."""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import FaustError
from faust.tables import TableManager
from faust.types import TP
from faust.types import Message as Received
from mode import Service

from stream.app.outlets import KafkaOutlet, Message
from stream.app.rolling import RollingWindows
from stream.app.stopping import Stopping
from stream.app.worker import Worker
from stream.contracts.topics import Topic
from stream.errors import ConfigurationError
from stream.intake.faust_settings import AsFetched, credentials, faust_settings
from stream.settings import Settings

log = logging.getLogger(__name__)

COMMIT_SECONDS = 5.0
ROLLING_SECONDS = 1.0
FLUSH_SECONDS = 0.1
RETRY_SECONDS = 1.0
FETCHES_BYTES = 48 << 20  # of one fetch of every topic-partition, as far as they may be small


class AsBytes(faust.Schema):  # type: ignore[misc]
    """Keys and values as they are; nothing a message contains can raise."""

    def loads_key(self, app: Any, message: Received, **_: Any) -> bytes | None:
        """The key."""
        return cast(bytes | None, message.key)

    def loads_value(self, app: Any, message: Received, **_: Any) -> bytes | None:
        """The value."""
        return cast(bytes | None, message.value)


class NoTables(TableManager):  # type: ignore[misc]
    """Faust's keeper of its tables; we have none."""

    async def sleep(self, *_: Any, **__: Any) -> None:
        """Faust sleeps a second at the start, for tables still to be declared: a restart would wait for it."""


def make_app(settings: Settings, *, partitions: int) -> faust.App:
    """A Faust app without agents; partitions: of each input topic.

    The web port makes this process's name in the consumer group, so that a worker that crashed and is quickly started
    again gets its partitions back without a rebalance.
    """
    port = free_port(settings.web_host, settings.web_port)
    return faust.App(
        settings.group,
        **faust_settings(
            settings.broker,
            instance=f"{socket.gethostname()}-{port}",
            partition_fetch_bytes=fetch_bytes(partitions),
        ),
        broker_credentials=credentials(settings),
        TableManager=NoTables,
        web_enabled=True,
        web_bind=settings.web_host,
        web_port=port,
    )


def fetch_bytes(partitions: int) -> int:
    """Of a topic-partition at once: large fetches cost less, but one of each may be held in memory."""
    return min(max(FETCHES_BYTES // (len(Topic) * partitions), 1 << 20), 4 << 20)


def free_port(host: str, wanted: int) -> int:
    """The wanted port, or, when another process has it, any free one. Raises ConfigurationError for a wrong host."""
    for port in (wanted, 0):
        try:
            with socket.create_server((host, port)) as probe:
                found = int(probe.getsockname()[1])
        except OSError as error:
            reason = error
            continue
        if found != wanted:
            log.warning("Port %d of %s is taken: the pages are on port %d.", wanted, host, found)
        return found
    raise ConfigurationError(f"No port can be opened on web_host {host}: {reason.strerror or reason}.")


def sender(app: faust.App) -> Callable[[Message], Awaitable[Awaitable[object]]]:
    """How a KafkaOutlet produces with this app."""

    async def send(message: Message) -> Awaitable[object]:
        producer = await app.maybe_start_producer()
        acknowledged: Awaitable[object] = await producer.send(
            message.topic, message.key, message.value, message.partition, None, dict(message.headers)
        )
        return acknowledged

    return send


def connect_agents(app: faust.App, worker: Worker, rolling: RollingWindows, partials_topic: str) -> None:
    """Let the topics' messages reach worker and rolling windows. Agents never raise: a batch would be lost."""
    app.intake = worker

    @app.agent(app.topic(*sorted(worker.input_topics), schema=AsFetched(), acks=False), name="intake")
    async def take_inputs(stream: Any) -> None:
        async for fetched in stream:
            worker.accept(fetched)

    @app.agent(app.topic(partials_topic, schema=AsBytes(), acks=False), name="rolling")
    async def take_partials(stream: Any) -> None:
        async for event in stream.events():
            rolling.take(event.message.partition, event.message.offset, event.key, event.value)

    @app.on_partitions_assigned.connect(weak=False)
    async def on_assigned(_: Any, assigned: set[TP], **__: Any) -> None:
        worker.keep_only({tp.partition for tp in assigned if tp.topic in worker.input_topics})
        rolling.assign({tp.partition for tp in assigned if tp.topic == partials_topic})


def connect_service(
    app: faust.App,
    worker: Worker,
    outlet: KafkaOutlet,
    rolling: RollingWindows,
    *,
    partials_topic: str,
    step_seconds: float,
    on_round: Callable[[], None],
) -> None:
    """Run steps, flushes, windows and commits, each at its own pace, from the app's start to its stop.

    on_round: called when every partition that was due has stepped.
    """

    @app.service
    class Steps(Service):  # type: ignore[misc]
        @Service.task
        async def run_steps(self) -> None:
            while not self.should_stop:
                await worker.round(app.consumer)
                on_round()
                await worker.wait(step_seconds)

        @Service.task
        async def flush_messages(self) -> None:
            while not self.should_stop:
                try:
                    await outlet.flush()
                    await self.sleep(FLUSH_SECONDS)
                except (KafkaError, FaustError) as error:
                    log.warning("Kafka does not take our messages and will be tried again: %r", error)
                    await self.sleep(RETRY_SECONDS)

        @Service.task
        async def write_windows(self) -> None:
            while not self.should_stop:
                try:
                    await self.ask_for_ends()
                    rolling.write()
                except (KafkaError, FaustError) as error:
                    log.warning("Kafka does not say where the partials end and is asked again: %r", error)
                except Exception as error:
                    worker.fail(error)
                await self.sleep(ROLLING_SECONDS)

        async def ask_for_ends(self) -> None:
            if tps := {TP(partials_topic, partition) for partition in rolling.without_end}:
                begins = await app.consumer.earliest_offsets(*tps)
                ends = await app.consumer.highwaters(*tps)
                rolling.expect({tp.partition: ends[tp] if ends[tp] > begins[tp] else 0 for tp in tps})

        @Service.task
        async def commit(self) -> None:
            while not self.should_stop:
                await self.sleep(COMMIT_SECONDS)
                if offsets := worker.offsets():
                    await app.consumer.commit_advisory(offsets)

        async def on_stop(self) -> None:
            """Last snapshots, still as a member of the group."""
            try:
                await worker.close(outlet.flush)
            except (KafkaError, FaustError) as error:
                log.warning("Kafka took no more messages; the next start repeats the last steps: %r", error)


class _Runner(faust.Worker):  # type: ignore[misc]
    """Faust's worker, whose signals are ours."""

    on_ready: Callable[[], None]

    def install_signal_handlers(self) -> None:
        """Called by Faust when it begins."""
        self.on_ready()

    def stop_soon(self) -> None:
        """Begin to stop; may be called from a signal handler."""
        self.loop.call_soon_threadsafe(self._schedule_shutdown, signal.SIGTERM)

    async def _sentinel_task(self) -> None:
        """Faust sleeps a second here, with everything stopped already: a restart would wait for it."""


def run_app(app: faust.App, stopping: Stopping, code: Callable[[], int]) -> int:
    """Run until it is told to stop; the exit code. Raises what crashed Faust. code: when it does not end in time."""
    runner = _Runner(
        app, override_logging=False, redirect_stdouts=False, quiet=True, loop=asyncio.get_event_loop()
    )
    runner.spinner = None  # it writes control characters
    runner.on_ready = lambda: stopping.connect(runner.stop_soon, code)
    try:
        runner.execute_from_commandline()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
