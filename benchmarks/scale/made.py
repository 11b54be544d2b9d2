"""Events by the million: decoded batches whose every value follows from the event's number, so nothing is remembered.

Impression number k is of user k * ODD mod 2**32 mod users; ids look like UUIDs. Nothing is ever sent twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream.contracts.topics import FIELDS, Topic
from stream.engine.batch import NULL, SPARE_BYTES, TEXT_SHIFT, Batch

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

START_MS = 1_800_000_000_000
ODD = 2_654_435_761
DIGITS = 12
UUID_HEAD = b"0f8fad5b-d9cb-469f-a165-"  # and twelve digits
USER_HEAD = b"user-"
ITEM_HEAD = b"item-"
CLICKS = 1 << 39  # interactions are numbered from here, so that ids differ
ITEMS = 50_000
# The values of columns with few of them; a row has the one at its number modulo how many there are.
WORDS: dict[str, tuple[bytes, ...]] = {
    "arm": (b"control", b"treat_a", b"treat_b"),
    "surface": (b"home", b"search", b"detail", b"cart"),
    "model": (b"two-tower",),
    "model_version": (b"v12", b"v13"),
    "country": (b"US", b"DE", b"IN", b"BR"),
    "device": (b"ios", b"android", b"web"),
    "kind": (b"click",),
}
# The columns of an impression among them; each number is divided by another one, so that they do not go together.
SHOWN = {"surface": 3, "model": 1, "model_version": 5, "country": 11, "device": 17, "category": 29}


@dataclass(frozen=True, slots=True)
class Crowd:
    """users: how many. of_partition: which of them live in this one of so many partitions."""

    users: int
    partition: int
    partitions: int

    def members(self) -> I64:
        """The users of this partition."""
        return np.arange(self.partition, self.users, self.partitions)

    def of_impressions(self, numbers: I64) -> I64:
        """The user of each impression; every partition has its own numbers."""
        mine = -(-(self.users - self.partition) // self.partitions)
        return self.partition + (numbers * ODD % (1 << 32)) % mine * self.partitions


@dataclass(slots=True)
class Maker:
    """Batches for one partition. at_step_us: event time from one event to the next, microseconds."""

    crowd: Crowd
    at_step_us: int
    words: Mapping[str, tuple[bytes, ...]] = field(default_factory=lambda: WORDS)
    impressions: int = 0  # made so far
    clicks: int = 0
    _offsets: dict[Topic, int] = field(default_factory=lambda: dict.fromkeys(Topic, 0))

    @property
    def now_ms(self) -> int:
        """Event time of the next event."""
        return START_MS + (self.impressions + self.clicks) * self.at_step_us // 1000

    def assignments(self, users: I64, experiment: bytes) -> Batch:
        """One of each of these users, before everything else."""
        n = len(users)
        numbers = self._take(Topic.ASSIGNMENTS, n)
        texts = _Texts()
        columns = {
            "event_id": texts.numbered(UUID_HEAD, numbers),
            "user_id": texts.numbered(USER_HEAD, users),
            "experiment": texts.words((experiment,), numbers),
            "arm": texts.words(self.words["arm"], users * ODD % (1 << 32) // 7),
            "country": texts.words(self.words["country"], users),
            "device": texts.words(self.words["device"], users),
        }
        return self._batch(Topic.ASSIGNMENTS, numbers, np.full(n, START_MS - 1), columns, texts)

    def shown(self, n: int) -> Batch:
        """The next impressions."""
        numbers = np.arange(self.impressions, self.impressions + n)
        at = self._at(n)
        self.impressions += n
        texts = _Texts()
        ids = texts.numbered(UUID_HEAD, numbers)
        columns = {
            "event_id": ids,
            "user_id": texts.numbered(USER_HEAD, self.crowd.of_impressions(numbers)),
            "impression_id": ids,
            "request_id": ids,
            "item_id": texts.numbered(ITEM_HEAD, numbers * ODD % ITEMS),
            "position": numbers % 40,
            "latency_ms": (numbers % 80).astype(np.float64).view(np.int64),
            **{
                name: texts.words(self.words[name], numbers * ODD % (1 << 32) // divisor)
                for name, divisor in SHOWN.items()
                if name in self.words
            },
        }
        return self._batch(Topic.IMPRESSIONS, self._take(Topic.IMPRESSIONS, n), at, columns, texts)

    def clicked(self, n: int, newest: int) -> Batch:
        """Clicks on impressions among the `newest` ones."""
        newest = min(newest, self.impressions)
        numbers = self._take(Topic.INTERACTIONS, n)
        at = self._at(n)
        self.clicks += n
        of = self.impressions - 1 - numbers * ODD % newest
        texts = _Texts()
        columns = {
            "event_id": texts.numbered(UUID_HEAD, numbers + CLICKS),
            "user_id": texts.numbered(USER_HEAD, self.crowd.of_impressions(of)),
            "impression_id": texts.numbered(UUID_HEAD, of),
            "item_id": texts.numbered(ITEM_HEAD, of * ODD % ITEMS),
            "kind": texts.words(self.words["kind"], numbers),
        }
        return self._batch(Topic.INTERACTIONS, numbers, at, columns, texts)

    def _at(self, n: int) -> I64:
        first = self.impressions + self.clicks
        return START_MS + np.arange(first, first + n) * self.at_step_us // 1000

    def _take(self, topic: Topic, n: int) -> I64:
        first = self._offsets[topic]
        self._offsets[topic] = first + n
        return np.arange(first, first + n)

    def _batch(self, topic: Topic, offsets: I64, at: I64, columns: dict[str, I64], texts: "_Texts") -> Batch:
        n = len(offsets)
        fields = np.full((n, len(FIELDS[topic])), NULL, np.int64)
        for place, name in enumerate(FIELDS[topic]):
            if name == "at":
                fields[:, place] = at
            elif name in columns:
                fields[:, place] = columns[name]
        zeros = np.zeros(n, np.int64)
        return Batch(
            topic, texts.joined(), offsets, at, zeros, zeros, fields, zeros.copy(), np.zeros(n, np.bool_)
        )


class _Texts:
    """The bytes of a batch while its columns are made."""

    def __init__(self) -> None:
        self._parts: list[U8] = []
        self._size = 0

    def numbered(self, head: bytes, numbers: I64) -> I64:
        """A text of its own for each row: the head and twelve digits."""
        width = len(head) + DIGITS
        rows = np.empty((len(numbers), width), np.uint8)
        rows[:, : len(head)] = np.frombuffer(head, np.uint8)
        rest = numbers.copy()
        for place in range(width - 1, len(head) - 1, -1):
            rest, digit = np.divmod(rest, 10)
            rows[:, place] = digit + ord("0")
        start = self._add(rows.reshape(-1))
        return (start + np.arange(len(numbers)) * width) << TEXT_SHIFT | width

    def words(self, words: tuple[bytes, ...], numbers: I64) -> I64:
        """One of these for each row."""
        packed = [self._add(np.frombuffer(word, np.uint8)) << TEXT_SHIFT | len(word) for word in words]
        return np.array(packed, np.int64)[numbers % len(words)]

    def joined(self) -> U8:
        return np.concatenate([*self._parts, np.zeros(SPARE_BYTES, np.uint8)])

    def _add(self, part: U8) -> int:
        start = self._size
        self._parts.append(part)
        self._size += len(part)
        return start
