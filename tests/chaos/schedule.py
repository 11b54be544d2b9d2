"""Which faults happen when: drawn from the seed before the run begins, and printed."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What is done to whom. Times without a process are cut short at the end of the storm."""

    KILL = "kill -9 a worker"
    ZOMBIE = "stop a worker beyond its session, then continue"
    BLINK = "stop a worker for a moment"
    RESTART = "SIGTERM a worker and start it again"
    ROLL = "SIGTERM and start one worker after the other"
    ADD = "start another worker for a while"
    REMOVE = "take a worker away for a while"
    BROKER_KILL = "kill -9 the broker"
    BROKER_LONG = "kill -9 the broker, away for long"
    BROKER_STOP = "SIGTERM the broker"
    BROKER_PAUSE = "stop the broker for a moment"
    CLICKHOUSE_KILL = "kill -9 ClickHouse"
    CLICKHOUSE_LONG = "kill -9 ClickHouse, away for long"
    CLICKHOUSE_STOP = "SIGTERM ClickHouse"
    CLICKHOUSE_PAUSE = "stop ClickHouse for a while"
    POWER_CUT = "kill -9 everything at once"


# How often, and the shortest and longest absence in seconds; a start comes on top.
_KINDS: dict[Fault, tuple[float, float, float]] = {
    Fault.KILL: (3, 0, 10),
    Fault.ZOMBIE: (2, 8, 20),
    Fault.BLINK: (1, 0.3, 4),
    Fault.RESTART: (2, 0, 6),
    Fault.ROLL: (0.5, 0, 1),
    Fault.ADD: (1, 10, 40),
    Fault.REMOVE: (1, 10, 40),
    Fault.BROKER_KILL: (1, 0, 6),
    Fault.BROKER_LONG: (0.3, 30, 45),
    Fault.BROKER_STOP: (0.5, 0, 5),
    Fault.BROKER_PAUSE: (0.5, 1, 12),
    Fault.CLICKHOUSE_KILL: (1, 0, 8),
    Fault.CLICKHOUSE_LONG: (0.3, 60, 150),
    Fault.CLICKHOUSE_STOP: (0.5, 0, 8),
    Fault.CLICKHOUSE_PAUSE: (0.7, 2, 30),
    Fault.POWER_CUT: (0.3, 0, 3),
}
_LONG = {Fault.BROKER_LONG, Fault.CLICKHOUSE_LONG, Fault.POWER_CUT, Fault.ROLL}
_CALM_SECONDS = 16.0  # around a kill whose takeover is measured
_PAUSE_SECONDS = 7.0  # between two faults on average; they overlap
_SHORT_RUN_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Act:
    """One fault. at_s, seconds: from the begin of the storm, and how long. choice: which of those that can be hit."""

    at_s: float
    fault: Fault
    seconds: float
    choice: int

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s  {self.fault} ({self.seconds:.1f} s)"


def schedule_of(seed: int, seconds: float) -> list[Act]:
    """The faults of a storm of so many seconds: each kind once if there is time, then as they come.

    Now and then a kill stands alone, so that its takeover can be measured.
    """
    draw = random.Random(seed)
    is_short = seconds < _SHORT_RUN_SECONDS
    first = [fault for fault in Fault if not (is_short and fault in _LONG)]
    draw.shuffle(first)
    acts: list[Act] = []
    now = draw.uniform(1, 3)
    pause = (seconds - 6) / len(first) if is_short else _PAUSE_SECONDS
    while now < seconds - 3:
        if not is_short and draw.random() < 0.2:
            now += _CALM_SECONDS
            acts.append(Act(now, Fault.KILL, draw.uniform(*_KINDS[Fault.KILL][1:]), draw.randrange(1 << 16)))
            now += _CALM_SECONDS
            continue
        fault = first.pop() if first else _any(draw)
        low, high = _KINDS[fault][1:]
        longest = min(high, max(low + 1, seconds / 8)) if is_short else high
        acts.append(Act(now, fault, draw.uniform(low, longest), draw.randrange(1 << 16)))
        now += pause if is_short else draw.expovariate(1 / pause)
    return [act for act in acts if act.at_s < seconds]


def _any(draw: random.Random) -> Fault:
    return draw.choices(list(_KINDS), [weight for weight, _, _ in _KINDS.values()])[0]
