"""The load, as a process of its own: sends the traffic until it is told to stop, and nothing is left unacknowledged.

A line on standard input ends it; the answer is a line of JSON with how many records of the traffic were sent, and
when the closing ones were.
"""

import json
import logging
import select
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from tests.chaos.traffic import Record, Traffic

_SILENT = logging.getLogger(__name__)  # librdkafka would write to stderr while the broker is away
_SLICE_SECONDS = 0.05
_MAX_WAITING = 50_000


@dataclass(frozen=True, slots=True)
class Load:
    """What to send; the same load is the same records."""

    seed: int
    start_ms: int
    rate: float

    def records(self) -> Iterator[Record]:
        """The traffic without the closing records."""
        return iter(Traffic(self.seed, start_ms=self.start_ms, rate=self.rate))

    def closing(self, at_ms: int) -> list[Record]:
        """The records after the traffic."""
        return Traffic(self.seed, start_ms=self.start_ms, rate=self.rate).closing(at_ms)


class Sender:
    """An idempotent producer that sends again what was not acknowledged, with another producer if need be."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._waiting: dict[int, Record] = {}  # not acknowledged, by serial number
        self._serial = 0
        self._producer = self._fresh()

    def send(self, records: Iterable[Record]) -> None:
        """Hand over; waits while very many are not acknowledged."""
        for record in records:
            self._serial += 1
            self._waiting[self._serial] = record
            self._produce(self._serial)
        self._producer.poll(0)
        while len(self._waiting) > _MAX_WAITING:
            self._attend()

    def flush(self) -> None:
        """Return when all is acknowledged."""
        while self._waiting:
            self._attend()

    def _produce(self, serial: int) -> None:
        record = self._waiting[serial]

        def acknowledged(error: KafkaError | None, _: Any) -> None:
            if error is None:
                self._waiting.pop(serial, None)

        while True:
            try:
                return self._producer.produce(
                    self._prefix + record.topic.word, record.value, record.key, on_delivery=acknowledged
                )
            except BufferError:
                self._producer.poll(0.1)

    def _attend(self) -> None:
        try:
            left = self._producer.flush(1)
        except KafkaException:
            left = 0
        if left == 0 and self._waiting:  # given up by this producer
            self._producer = self._fresh()
            for serial in list(self._waiting):
                self._produce(serial)

    def _fresh(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",  # as our own producers do
                "message.timeout.ms": 0,  # never
                "linger.ms": 5,
                "queue.buffering.max.messages": 2 * _MAX_WAITING,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            },
            logger=_SILENT,
        )


def main() -> None:
    """Arguments: bootstrap, topic prefix, seed, start in epoch milliseconds, records a second."""
    bootstrap, prefix, seed, start_ms, rate = sys.argv[1:]
    load = Load(int(seed), int(start_ms), float(rate))
    sender = Sender(bootstrap, prefix)
    records, sent = load.records(), 0
    while not select.select([sys.stdin], [], [], _SLICE_SECONDS)[0]:
        due = int((time.time() - load.start_ms / 1000) * load.rate) - sent
        sender.send(islice(records, max(0, due)))
        sent += max(0, due)
    sender.flush()
    closing_ms = time.time_ns() // 1_000_000
    sender.send(load.closing(closing_ms))
    sender.flush()
    print(json.dumps({"sent": sent, "closing_ms": closing_ms}), flush=True)


if __name__ == "__main__":
    main()
