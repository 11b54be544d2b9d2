"""What was fetched of one topic-partition and is not decoded yet."""

from collections import deque

from stream.intake.record_sets import Chunk
from stream.intake.transport import Fetched

MAX_ROWS = 100_000
MAX_BYTES = 8 << 20  # as fetched
LOST_SECONDS = 10.0  # nothing comes although the topic has more


class Feed:
    """A queue between Faust's event loop, which accepts, and the step's thread, which takes.

    Counters are written by one side each, so no lock is needed.
    """

    def __init__(self) -> None:
        self._items: deque[Fetched] = deque()
        self._epoch = 0
        self._seq = 0
        self._in = [0, 0]  # rows, bytes accepted
        self._out = [0, 0]  # rows, bytes taken
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
        return not self.has_lost and self.rows < MAX_ROWS and self.nbytes < MAX_BYTES

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
        self._in[0] += fetched.rows
        self._in[1] += size_of(fetched)
        self._items.append(fetched)

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
        """The oldest item."""
        return self._items[0] if self._items else None

    def pop(self) -> None:
        """Forget the oldest item: it was taken."""
        fetched = self._items.popleft()
        self._out[0] += fetched.rows
        self._out[1] += size_of(fetched)


def size_of(fetched: Fetched) -> int:
    """Bytes of an item's records."""
    return sum(
        len(record.buf) if isinstance(record, Chunk) else len(record.value or b"")
        for record in fetched.records
    )
