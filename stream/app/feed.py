"""What was fetched of one topic-partition and is not decoded yet."""

from collections import deque
from dataclasses import replace

from stream.contracts.topics import Topic
from stream.intake.record_sets import Chunk, is_compressed, unpacked
from stream.intake.transport import Fetched

MAX_ROWS = 150_000
MAX_BYTES = 16 << 20  # as fetched
MIN_BYTES = 2 << 20
ALL_BYTES = 256 << 20  # of all feeds of a worker, as far as each may have MIN_BYTES
LOST_SECONDS = 10.0  # nothing comes although the topic has more


def share_of_bytes(partitions: int) -> int:
    """What each feed of a worker with so many partitions may hold: all may be behind at once."""
    return min(max(ALL_BYTES // (len(Topic) * partitions), MIN_BYTES), MAX_BYTES)


class Feed:
    """A queue between Faust's event loop, which accepts, and the step's thread, which takes.

    Counters are written by one side each, so no lock is needed.
    """

    def __init__(self) -> None:
        self._items: deque[tuple[Fetched, int]] = deque()  # with their bytes as fetched
        self._epoch = 0
        self._seq = 0
        self._in = [0, 0]  # rows, bytes accepted
        self._out = [0, 0]  # rows, bytes taken
        self.max_bytes = MAX_BYTES
        self.next_offset = 0  # where the next item begins
        self.end: int | None = None  # of the topic, as last heard
        self.is_end_recent = False
        self.has_lost = False  # an item is missing: seek again to next_offset
        self._stands_at = -1  # next_offset
        self._stands_since = 0.0  # uptime

    @property
    def rows(self) -> int:
        """Records that wait, at most."""
        return self._in[0] - self._out[0]

    @property
    def nbytes(self) -> int:
        """Bytes that wait, as they were fetched."""
        return self._in[1] - self._out[1]

    @property
    def has_room(self) -> bool:
        """Whether more should be fetched."""
        return not self.has_lost and self.rows < MAX_ROWS and self.nbytes < self.max_bytes

    def restart(self, epoch: int, offset: int) -> None:
        """Forget everything: the topic-partition was sought to an offset."""
        self._items.clear()
        self._in, self._out = [0, 0], [0, 0]
        self.next_offset = offset
        self.end = None
        self.is_end_recent = False
        self.resume(epoch)

    def resume(self, epoch: int) -> None:
        """Keep everything: the topic-partition was sought to `next_offset`."""
        self._epoch, self._seq = epoch, 0
        self.has_lost = False

    def accept(self, fetched: Fetched) -> None:
        """Queue an item, unless it is a left-over of an earlier epoch or comes after a lost one."""
        if fetched.epoch != self._epoch or self.has_lost:
            return
        if fetched.seq != self._seq:
            self.has_lost = True
            return
        self._seq += 1
        self.next_offset = fetched.next_offset
        self.hear_end(fetched.end_offset)
        nbytes = size_of(fetched)
        self._in[0] += fetched.rows
        self._in[1] += nbytes
        self._items.append((fetched, nbytes))

    def hear_end(self, end: int | None) -> None:
        """Note where the topic ends; None: nobody has said so lately."""
        self.is_end_recent = end is not None
        if end is not None:
            self.end = max(end, self.end or 0)

    def notice_loss(self, uptime: float) -> None:
        """Take an item for lost when the topic has more and nothing has come for a while.

        The last one before a silence has no follower that would tell. uptime: seconds that never step back.
        """
        lacks = self.end is not None and self.next_offset < self.end and self.has_room
        if not lacks or self._stands_at != self.next_offset:
            self._stands_at, self._stands_since = self.next_offset, uptime
        elif uptime - self._stands_since > LOST_SECONDS:
            self.has_lost = True

    def peek(self) -> Fetched | None:
        """The oldest item; of a compressed one as much as may be unpacked together."""
        if not self._items:
            return None
        fetched, nbytes = self._items[0]
        first, rest = split(fetched)
        if rest is not None:
            self._items[0] = rest, nbytes
            self._items.appendleft((first, 0))
        elif first is not fetched:
            self._items[0] = first, nbytes
        return first

    def pop(self) -> None:
        """Forget the oldest item: it was taken."""
        fetched, nbytes = self._items.popleft()
        self._out[0] += fetched.rows
        self._out[1] += nbytes


def split(fetched: Fetched) -> tuple[Fetched, Fetched | None]:
    """The part of a fetch that may be unpacked together, unpacked, and the rest of it, if any."""
    chunks = [record for record in fetched.records if isinstance(record, Chunk)]
    if not any(is_compressed(chunk) for chunk in chunks):
        return fetched, None
    head, tail = unpacked(chunks[0])
    left = (*((tail,) if tail else ()), *chunks[1:])
    if not left:
        return replace(fetched, records=(head,)), None
    first = replace(fetched, rows=head.rows, next_offset=head.next_offset, records=(head,))
    return first, replace(fetched, rows=fetched.rows - head.rows, records=left)


def size_of(fetched: Fetched) -> int:
    """Bytes of an item's records."""
    return sum(
        len(record.buf) if isinstance(record, Chunk) else len(record.value or b"")
        for record in fetched.records
    )
