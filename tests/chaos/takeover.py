"""How long partitions stood still, read from the journal: who planned which step when."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stream.durability.journal import Entry
from tests.chaos.schedule import Fault
from tests.chaos.stage import Hit

_ALONE_BEFORE_MS = 15_000  # a takeover is isolated when no other fault was there so long before
_GRACEFUL = {Fault.RESTART, Fault.REMOVE}


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from a fault to the first step that somebody else planned, one for each partition."""

    killed_alone: list[float]
    killed: list[float]
    stopped: list[float]


def takeover_times(hits: Sequence[Hit], steps: Mapping[int, Sequence[Entry]]) -> Times:
    """From kill -9 and SIGTERM of a worker to the new owner's first step of each of its partitions."""
    times = Times([], [], [])
    for hit in hits:
        if hit.fault is Fault.KILL:
            found = _gaps(hit, steps)
            times.killed.extend(seconds for seconds, _ in found)
            times.killed_alone.extend(
                seconds for seconds, until_ms in found if _is_alone(hit, hits, until_ms)
            )
        elif hit.fault in _GRACEFUL:
            alone = [seconds for seconds, until_ms in _gaps(hit, steps) if _is_alone(hit, hits, until_ms)]
            times.stopped.extend(alone)
    return times


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    """n, p50, p95 and max; only n when there are none."""
    ordered = sorted(seconds)
    if not ordered:
        return {"n": 0}
    return {
        "n": len(ordered),
        "p50": round(ordered[(len(ordered) - 1) // 2], 2),
        "p95": round(ordered[round(0.95 * (len(ordered) - 1))], 2),
        "max": round(ordered[-1], 2),
    }


def _gaps(hit: Hit, steps: Mapping[int, Sequence[Entry]]) -> list[tuple[float, int]]:
    """(seconds, time of the first other step) for each partition that the worker had."""
    found = []
    for entries in steps.values():
        before = [entry for entry in entries if entry.planned_at_ms <= hit.at_ms]
        if before and _pid(before[-1]) in hit.pids:
            others = [entry for entry in entries[len(before) :] if _pid(entry) not in hit.pids]
            if others:
                # A worker that is told to stop works on for a moment.
                own = [entry.planned_at_ms for entry in entries[len(before) :] if _pid(entry) in hit.pids]
                until_ms = others[0].planned_at_ms
                last_ms = max([hit.at_ms, *(at for at in own if at < until_ms)])
                found.append(((until_ms - last_ms) / 1000, until_ms))
    return found


def _pid(entry: Entry) -> int:
    return int(entry.writer.rsplit("-", 2)[1])


def _is_alone(hit: Hit, hits: Sequence[Hit], until_ms: int) -> bool:
    return not any(
        other is not hit and other.at_ms < until_ms and other.ends_at_ms > hit.at_ms - _ALONE_BEFORE_MS
        for other in hits
    )
