"""The peers' workload as live traffic: the same events, each at its moment, so many a second."""

import time
from collections.abc import Sequence
from threading import Event

from benchmarks.workload import START_MS, Record, Sender, Workload

EVENTS_PER_MS = 1.1  # of the workload as it is: an impression, and every tenth time an interaction
AT = slice(5 + 1 + 36, 5 + 1 + 36 + 6)  # `at` in a record's value: behind Avro's header and the event_id
TICK_SECONDS = 0.005


class LiveTraffic:
    """Records whose times are those of the workload, pressed together until `rate` of them come a second."""

    def __init__(self, workload: Workload, rate: int) -> None:
        """rate: events a second."""
        self._speed = rate / 1000 / EVENTS_PER_MS
        begin = next(i for i, record in enumerate(workload.records) if record.arrival_ms >= START_MS)
        self._before: Sequence[Record] = workload.records[:begin]
        self._records: Sequence[Record] = workload.records[begin:]
        self._steady_until_ms = START_MS + len(workload.impressions)  # afterwards only late clicks come
        self.sent = 0
        self.steady_rate = 0.0  # events a second that were sent until there

    @property
    def is_steady(self) -> bool:
        """Whether all kinds of events are being sent."""
        return self.sent < len(self._records) and self._is_steady(self._records[self.sent])

    @property
    def first(self) -> int:
        """Records that are there before the traffic begins: most assignments."""
        return len(self._before)

    def send_first(self, bootstrap: str, prefix: str) -> None:
        """Send them."""
        start_ms = _now_ms()
        with Sender(bootstrap, prefix) as sender:
            for record in self._before:
                sender.send(self._moved(record, start_ms, start_ms))

    def send(self, bootstrap: str, prefix: str, is_over: Event) -> None:
        """Send the rest, each when it is due, and tell when that is over, well or not."""
        start_ms, began = _now_ms(), time.monotonic()
        try:
            with Sender(bootstrap, prefix, linger_ms=5) as sender:
                while self.sent < len(self._records):
                    due = START_MS + (time.monotonic() - began) * 1000 * self._speed
                    while self.sent < len(self._records) and self._records[self.sent].arrival_ms <= due:
                        sender.send(self._moved(self._records[self.sent], start_ms, _now_ms()))
                        self.sent += 1
                    if self.is_steady:
                        self.steady_rate = self.sent / (time.monotonic() - began)
                    sender.poll()
                    time.sleep(TICK_SECONDS)
        finally:
            is_over.set()

    def _is_steady(self, record: Record) -> bool:
        return record.arrival_ms <= self._steady_until_ms

    def _moved(self, record: Record, start_ms: int, now_ms: int) -> Record:
        """The same event with its times moved; its Kafka time is the present."""
        at_ms = start_ms + int((_at_ms(record.value) - START_MS) / self._speed)
        value = b"".join((record.value[: AT.start], zigzag(min(at_ms, now_ms)), record.value[AT.stop :]))
        return record._replace(arrival_ms=now_ms, value=value)


def zigzag(number: int) -> bytes:
    """A non-negative Avro long."""
    rest, out = number << 1, bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _at_ms(value: bytes) -> int:
    number = 0
    for place, byte in enumerate(value[AT]):
        number |= (byte & 127) << 7 * place
    return number >> 1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
