"""What a worker says about itself over HTTP, and writes down in ClickHouse for `liftstream status`."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import faust
from mode import Service

from stream.app.ends import Ends
from stream.app.health import Health
from stream.app.metrics import Metrics
from stream.app.worker import Worker
from stream.contracts.topics import Topic

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
ENDS_SECONDS = 2.0
DIARY_SECONDS = 2.0
WRITE_SECONDS = 30.0  # or at once when something has changed


class Rows(Protocol):
    """What we need of sink.writer.Writer."""

    def put_rows(self, table: str, columns: Mapping[str, Any], *, generation: int, version: Any) -> None:
        """Take rows that belong to no step."""
        ...


def connect_pages(app: faust.App, health: Health, metrics: Metrics) -> None:
    """Serve /healthz (replace me?), /readyz (is everything up to date?) and /metrics."""

    @app.page("/healthz")
    async def healthz(web: Any, _: Any) -> Any:
        problems = health.stalls()
        return web.json({"ok": not problems, "problems": problems}, status=503 if problems else 200)

    @app.page("/readyz")
    async def readyz(web: Any, _: Any) -> Any:
        reasons = health.reasons()
        said = {"ready": not reasons, "reasons": reasons, "warnings": health.warnings()}
        return web.json(said, status=503 if reasons else 200)

    @app.page("/metrics")
    async def show_metrics(web: Any, _: Any) -> Any:
        return web.text(await asyncio.to_thread(metrics.text), content_type="text/plain")


def connect_watch(app: faust.App, worker: Worker, health: Health, ends: Ends, diary: "Diary") -> None:
    """Show that the event loop is alive, ask where the topics end, and keep the diary."""

    @app.service
    class Watch(Service):  # type: ignore[misc]
        @Service.task
        async def beat(self) -> None:
            while not self.should_stop:
                health.beat()
                await self.sleep(BEAT_SECONDS)

        @Service.task
        async def ask_ends(self) -> None:
            while not self.should_stop:
                await ends.ask(app.consumer.end_offsets, worker.feeds().keys())
                await self.sleep(ENDS_SECONDS)

        @Service.task
        async def keep_diary(self) -> None:
            while not self.should_stop:
                try:
                    diary.keep()
                except Exception as error:
                    worker.fail(error)
                await self.sleep(DIARY_SECONDS)


class Diary:
    """Logs what has changed in a worker's health, and writes its condition into the table behind the view `workers`."""

    def __init__(
        self,
        health: Health,
        rows: Rows,
        *,
        worker: str,
        generation: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        """worker: this process's name."""
        self._health = health
        self._rows = rows
        self._worker = worker
        self._generation = generation
        self._now = now
        self._warnings: list[str] = []
        self._was_ready: bool | None = None
        self._written_at = 0.0

    def keep(self) -> None:
        """Call it every few seconds."""
        reasons, warnings = self._health.reasons(), self._health.warnings()
        changed = (not reasons) != self._was_ready or len(warnings) != len(self._warnings)
        if changed:
            self._log(reasons, warnings)
        self._was_ready, self._warnings = not reasons, warnings
        if changed or self._now() - self._written_at >= WRITE_SECONDS:
            self._write(reasons, warnings)

    def _log(self, reasons: list[str], warnings: list[str]) -> None:
        if (not reasons) != self._was_ready:
            log.info("Ready." if not reasons else "Not ready: %s", *([" ".join(reasons)] if reasons else []))
        if len(warnings) > len(self._warnings):
            log.warning("%s", " ".join(warnings))
        if self._warnings and not warnings:
            log.warning("No warnings any more.")

    def _write(self, reasons: list[str], warnings: list[str]) -> None:
        self._written_at = self._now()
        at_ms = int(self._written_at * 1000)
        arrived_ms = self._health.arrivals_ms()
        columns = {
            "worker": [self._worker],
            "heard_at_ms": [at_ms],
            "is_ready": [int(not reasons)],
            "reasons": [" ".join(reasons)],
            "warnings": [" ".join(warnings)],
        } | {f"{topic.word}_at_ms": [arrived_ms.get(topic)] for topic in Topic}
        self._rows.put_rows("workers", columns, generation=self._generation, version=at_ms)
