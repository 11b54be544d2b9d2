"""Moves the consumer: to where a partition's state continues, and back to what was not queued."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

from faust.types import TP

from stream.app.feed import Feed
from stream.contracts.topics import Topic
from stream.durability.manifest import Offsets
from stream.durability.partition import Partition
from stream.errors import DamagedStore

Feeds = tuple[Feed, Feed, Feed]  # by Topic


class Seeks(Protocol):
    """What we need of the transport's Consumer."""

    async def earliest_offsets(self, *tps: TP) -> Mapping[TP, int]:
        """Where the logs begin."""
        ...

    async def seek_stamped(self, positions: Mapping[TP, int]) -> Mapping[TP, int]:
        """Seek; the new epoch of each that is still assigned."""
        ...

    async def commit_advisory(self, offsets: Mapping[TP, int]) -> bool:
        """Commit for lag monitors."""
        ...

    def highwater(self, tp: TP) -> int | None:
        """Where the log ends, None when that was not heard lately or it is not ours."""
        ...

    def partitions_of(self, topic: str) -> int | None:
        """How many partitions a topic has, as last heard; None when nothing is known."""
        ...


class Seeking:
    """One seek at a time: of two at once a feed might keep the older one's epoch and take nothing more."""

    def __init__(self, names: Mapping[Topic, str]) -> None:
        """names: of the input topics."""
        self._names = names
        self._earliest: dict[TP, int] = {}
        self._one = asyncio.Lock()

    def tp(self, topic: Topic, number: int) -> TP:
        """As Kafka's client calls it."""
        return TP(self._names[topic], number)

    async def park(self, consumer: Seeks, numbers: Iterable[int]) -> None:
        """Note where the topics of these partitions begin, and wait there: Kafka's client insists on a position."""
        tps = [self.tp(topic, number) for number in numbers for topic in Topic]
        if not tps:
            return
        async with self._one:
            begins = {TP(*tp): offset for tp, offset in (await consumer.earliest_offsets(*tps)).items()}
            self._earliest |= begins
            await consumer.seek_stamped(begins)

    async def go_to_state(self, consumer: Seeks, partition: Partition, feeds: Feeds) -> Offsets | None:
        """Go to where the state continues, with empty feeds; None when the partition is not wholly ours any more.

        Raises DamagedStore when Kafka no longer has that place.
        """
        offsets = self._offsets(partition)
        positions = {self.tp(topic, partition.number): offsets[topic] for topic in Topic}
        async with self._one:
            epochs = await consumer.seek_stamped(positions)
            if len(epochs) < len(positions):
                return None
            for topic in Topic:
                feeds[topic].restart(epochs[self.tp(topic, partition.number)], offsets[topic])
        return offsets

    async def go_on(self, consumer: Seeks, feeds: Mapping[TP, Feed]) -> None:
        """Fetch on behind what is queued. A topic-partition that is not ours now stays as it is."""
        async with self._one:
            for feed in feeds.values():
                feed.has_lost = True  # what arrives while we seek will come again
            epochs = await consumer.seek_stamped({tp: feed.next_offset for tp, feed in feeds.items()})
            for tp, epoch in epochs.items():
                feeds[tp].resume(epoch)

    def _offsets(self, partition: Partition) -> Offsets:
        """Where the state continues; for a new one where the topics begin."""
        one, two, three = (self._earliest[self.tp(topic, partition.number)] for topic in Topic)
        offsets = partition.offsets
        if offsets is None:
            return one, two, three
        for topic, first in zip(Topic, (one, two, three), strict=True):
            if offsets[topic] < first:
                raise DamagedStore(
                    f"Partition {partition.number} continues at offset {offsets[topic]} of the {topic.word} but the "
                    f"topic begins at {first}: Kafka has deleted records that were not counted, so start over with "
                    "--new-generation, and keep records longer (retention.ms)."
                )
        return offsets
