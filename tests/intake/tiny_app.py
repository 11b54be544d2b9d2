"""A Faust worker that writes down all it reads. Run by test_transport: python -m tests.intake.tiny_app CONFIG.json."""

import json
import sys
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from zlib import crc32

import faust
from faust.types import TP

from stream.errors import LiftstreamError
from stream.intake.faust_settings import AsFetched, faust_settings
from stream.intake.fetch_check import rows_of
from stream.intake.log_repeats import limit_repeats
from stream.intake.transport import Consumer, Fetched


@dataclass(frozen=True)
class Config:
    """positions: start offset by `topic-partition`; default: the earliest.

    again_from: once all is read, commit, and read again from this offset on; -1: do not.
    """

    broker: str
    group: str
    input_topics: list[str]
    other_topic: str
    out: str
    positions: Mapping[str, int]
    plain_fetch: bool
    again_from: int


@dataclass
class WritingIntake:
    """Accepts everything of the newest epoch and writes it to a file."""

    config: Config
    out: TextIO
    input_topics: frozenset[str]
    plain_fetch: bool
    stays_in_group: bool = False
    expected: dict[TP, tuple[int, int]] = field(default_factory=dict)  # epoch, seq
    at_end: set[TP] = field(default_factory=set)
    ends: int = 0

    async def read_again(self, consumer: Consumer, offset: int) -> None:
        assert await consumer.commit_advisory(dict.fromkeys(self.expected, 77))
        self.at_end.clear()
        epochs = await consumer.seek_stamped(dict.fromkeys(self.expected, offset))
        self.expected = {tp: (epoch, 0) for tp, epoch in epochs.items()}

    def wanted(self, tps: Set[TP]) -> Set[TP]:
        return tps & self.expected.keys()

    async def seek_all(self, consumer: Consumer, tps: Set[TP]) -> None:
        earliest = {TP(*tp): offset for tp, offset in (await consumer.earliest_offsets(*tps)).items()}
        wanted = {tp: self.config.positions.get(f"{tp.topic}-{tp.partition}", earliest[tp]) for tp in tps}
        self.at_end.clear()
        self.expected = {tp: (epoch, 0) for tp, epoch in (await consumer.seek_stamped(wanted)).items()}

    def fetch_failed(self, error: LiftstreamError) -> None:
        self.write(f"FAILED {error}")

    def accept(self, item: Fetched) -> None:
        epoch, seq = self.expected[item.tp]
        if item.epoch < epoch:
            return
        if item.seq != seq:
            self.write(f"MISSING {item}")
        self.expected[item.tp] = (epoch, item.seq + 1)
        for offset, at_ms, key, value in rows_of(item.columns()):
            self.write(
                f"{item.tp.topic} {item.tp.partition} {offset} {at_ms} {crc32(key or b'')} {crc32(value or b'')}"
            )
        if item.end_offset is not None and item.next_offset >= item.end_offset:
            self.at_end.add(item.tp)
        if len(self.at_end) == len(self.expected):
            self.write("END")
            self.ends += 1

    def write(self, line: str) -> None:
        self.out.write(line + "\n")
        self.out.flush()


def main() -> None:
    limit_repeats()
    config = Config(**json.loads(Path(sys.argv[1]).read_text()))
    app = faust.App(config.group, **faust_settings(config.broker, session_seconds=6), web_enabled=False)
    out = Path(config.out).open("a")  # noqa: SIM115 - closed by the process
    intake = app.intake = WritingIntake(config, out, frozenset(config.input_topics), config.plain_fetch)

    @app.agent(app.topic(*config.input_topics, schema=AsFetched(), acks=False))
    async def read_inputs(stream: Any) -> None:
        async for item in stream:
            intake.accept(item)
            if config.again_from >= 0 and intake.ends == 1:
                intake.ends += 1
                await intake.read_again(app.consumer, config.again_from)

    @app.agent(app.topic(config.other_topic, key_serializer="raw", value_serializer="raw", acks=False))
    async def read_others(stream: Any) -> None:
        async for value in stream:
            intake.write(f"OTHER {value.decode()}")

    worker = faust.Worker(app, override_logging=False, redirect_stdouts=False, quiet=True)
    worker.spinner = None
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
