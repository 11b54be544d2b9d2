"""One process's consumer: what aiokafka, Faust and the transport are together."""

import asyncio
import random
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace

from faust.types import TP

from stream.intake.transport import Fetched
from tests.simulation.broker import Broker, Placed
from tests.simulation.schedule import Schedule
from tests.simulation.weather import Weather

_PAUSE_SECONDS = 0.05  # of a request, at most


class SimulatedConsumer:
    """Positions, stamps and what is assigned; see app.worker.Seeks. Partials are read from their beginning."""

    def __init__(self, broker: Broker, schedule: Schedule, weather: Weather, draw: random.Random) -> None:
        self.weather = weather
        self.inputs: Set[TP] = frozenset()
        self._partials: dict[int, int] = {}  # partition: position
        self._unread: list[Placed] = []  # of the compacted part
        self.partials_ends: dict[int, int] = {}  # when they were assigned
        self._broker = broker
        self._schedule = schedule
        self._draw = draw
        self._positions: dict[TP, int] = {}
        self._stamps: dict[TP, tuple[int, int]] = {}
        self._ends: dict[TP, int] = {}
        self._left_over: list[Fetched] = []

    def assign(self, inputs: Set[TP], partials: Iterable[int]) -> None:
        """Forget all positions and begin anew."""
        self.inputs = inputs
        self._partials, self._unread, self.partials_ends = {}, [], {}
        for partition in sorted(partials):
            cleaned = (
                self._draw.randint(0, len(self._broker.partials[partition])) if self.weather.compacts else 0
            )
            self._unread += self._broker.compacted(partition, cleaned)
            self._partials[partition] = cleaned
            self.partials_ends[partition] = len(self._broker.partials[partition])
        self._positions, self._ends = {}, {}

    async def earliest_offsets(self, *tps: TP) -> Mapping[TP, int]:
        await self._pause()
        return dict.fromkeys(tps, 0)

    async def seek_stamped(self, positions: Mapping[TP, int]) -> Mapping[TP, int]:
        await self._pause()
        epochs = {}
        for tp, offset in positions.items():
            if tp in self.inputs:
                epochs[tp] = self._stamps.get(tp, (0, 0))[0] + 1
                self._stamps[tp] = epochs[tp], 0
                self._positions[tp] = offset
        await self._pause()
        return epochs

    async def commit_advisory(self, offsets: Mapping[TP, int]) -> bool:
        return True

    def highwater(self, tp: TP) -> int | None:
        return self._ends.get(tp)

    def partitions_of(self, topic: str) -> int | None:
        return None

    def fetch(self, wanted: Set[TP]) -> list[Fetched]:
        """What Faust hands out next; some of it is dropped on the way, some comes after a seek."""
        found, self._left_over = self._left_over, []
        for tp in sorted(wanted & self.inputs):
            if tp not in self._positions:
                continue
            limit = self._draw.randint(1, self.weather.batch_rows)
            now_ms = self._schedule.now_ms
            self._ends[tp] = self._broker.logs[tp].end_at(now_ms)
            fetched = self._broker.fetch(tp, self._positions[tp], now_ms, limit)
            if fetched is not None:
                found += self._handed_out(self._stamped(tp, fetched))
        return found

    def new_partials(self) -> list[Placed]:
        """Messages of the partials topic by partition and offset, some of them not for the first time."""
        if self._unread:
            found, self._unread = self._unread[:100], self._unread[100:]
            return found
        found: list[Placed] = []
        for partition, position in self._partials.items():
            messages = self._broker.partials[partition]
            some = enumerate(messages[position : position + 100], position)
            found += [(partition, offset, message) for offset, message in some]
            self._partials[partition] = min(position + 100, len(messages))
            if self._draw.random() < self.weather.left_over:
                self._partials[partition] = max(0, self._partials[partition] - self._draw.randint(0, 20))
        return found

    def _stamped(self, tp: TP, fetched: Fetched) -> Fetched:
        epoch, seq = self._stamps[tp]
        self._stamps[tp] = epoch, seq + 1
        self._positions[tp] = fetched.next_offset
        return replace(fetched, epoch=epoch, seq=seq)

    def _handed_out(self, fetched: Fetched) -> list[Fetched]:
        luck = self._draw.random()
        if luck < self.weather.lost_fetch:
            return []
        if luck < self.weather.lost_fetch + self.weather.left_over:
            self._left_over.append(fetched)  # once more
        return [fetched]

    async def _pause(self) -> None:
        await asyncio.sleep(self._draw.uniform(0, _PAUSE_SECONDS))
