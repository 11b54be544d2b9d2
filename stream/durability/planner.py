"""Which records the next step takes: a pure choice over what the queues hold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream.engine.batch import I64

NEVER = -(1 << 62)  # the event time of a topic that has shown none


@dataclass(frozen=True, slots=True)
class Head:
    """The front of one topic's queue.

    reached_ms: int64 (rows,): the largest event time up to and including each queued record, never falling.
    newest_ms: the largest event time read so far, executed records included; NEVER when there is none.
    at_end: everything the topic holds is queued, as far as was heard lately.
    """

    reached_ms: I64
    newest_ms: int
    at_end: bool


def choose(
    heads: Sequence[Head], max_rows: int, *, aligned: bool = True, until_ms: int | None = None
) -> list[int]:
    """How many records to take from the front of each queue, at most `max_rows` together.

    The earliest in event time go first. While a topic still has records to be fetched, nothing later than what
    has been read of it is taken, so that no topic runs far ahead of another in a catch-up. That may leave
    nothing to take until it has been fetched; `aligned=False` goes on without it, which costs memory but makes
    nothing late: the clock waits for the topic that is not caught up. `until_ms`: take nothing later than this.
    """
    behind = [head.newest_ms for head in heads if not head.at_end] if aligned else []
    cut = min((*behind, *(() if until_ms is None else (until_ms,))), default=None)
    offered = [_until(head.reached_ms[:max_rows], cut) for head in heads]
    if sum(len(times) for times in offered) <= max_rows:
        return [len(times) for times in offered]
    last = np.partition(np.concatenate(offered), max_rows - 1)[max_rows - 1]
    taken = [int(np.searchsorted(times, last, side="left")) for times in offered]
    room = max_rows - sum(taken)
    for topic, times in enumerate(offered):  # those at the border, in the order of the topics
        tied = min(room, int(np.searchsorted(times, last, side="right")) - taken[topic])
        taken[topic] += tied
        room -= tied
    return taken


def _until(times: I64, cut: int | None) -> I64:
    return times if cut is None else times[: int(np.searchsorted(times, cut, side="right"))]
