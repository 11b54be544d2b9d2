"""What may go wrong in one run: every number drawn from the seed, so that runs differ in kind and not only in luck."""

import random
from dataclasses import dataclass, fields, replace

NEVER_MS = 10**9


@dataclass(frozen=True)
class Weather:
    """Probabilities are per effect, if not said otherwise; times are simulated milliseconds."""

    workers: int
    partitions: int
    events: int
    storm_ms: int  # then everything is well until all is counted
    nothing_is_late: bool
    topic_delays_ms: tuple[int, int, int]  # how far each topic lags behind its producers, at most
    batch_rows: int  # of a fetch, at most
    crash: float
    freeze: float
    freeze_ms: int  # at most
    refuse: float  # an effect does not happen, and an error comes back
    lose_answer: float  # an effect happens, and an error comes back
    lost_fetch: float  # per fetch
    left_over: float  # per fetch: it is handed out again after the next seek
    kill_every_ms: int
    pause_every_ms: int  # a process stands still, often for longer than its session
    leave_every_ms: int  # SIGTERM and a new process
    sink_away_every_ms: int
    compacts: bool  # the partials topic
    rots: bool  # the newest snapshot of each partition is damaged once
    schema_is_late: bool  # some processes know a schema id that others do not

    @property
    def calm(self) -> "Weather":
        """The same world without any trouble."""
        never = dict.fromkeys(("crash", "freeze", "refuse", "lose_answer", "lost_fetch", "left_over"), 0.0)
        return replace(self, **never)  # type: ignore[arg-type]

    def told(self) -> str:
        """For people."""
        return ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))


def weather_of(draw: random.Random) -> Weather:
    """The weather of a seed."""
    return Weather(
        workers=draw.choice([1, 2, 2, 2, 3]),
        partitions=draw.choice([1, 1, 1, 2, 2, 3]),
        events=draw.choice([30, 50, 80]),
        storm_ms=draw.choice([5_000, 8_000, 12_000]),
        nothing_is_late=draw.random() < 0.4,
        topic_delays_ms=(
            draw.choice([0, 3_000]),
            draw.choice([0, 1_000, 4_000]),
            draw.choice([0, 1_000, 6_000]),
        ),
        batch_rows=draw.choice([3, 8, 30]),
        crash=draw.choice([0, 0, 0.001, 0.004]),
        freeze=draw.choice([0, 0.005, 0.02]),
        freeze_ms=draw.choice([400, 3_000, 5_000]),
        refuse=draw.choice([0, 0, 0.02, 0.08]),
        lose_answer=draw.choice([0, 0.02, 0.08]),
        lost_fetch=draw.choice([0, 0.05]),
        left_over=draw.choice([0, 0.1]),
        kill_every_ms=draw.choice([NEVER_MS, NEVER_MS, 2_000, 4_000]),
        pause_every_ms=draw.choice([NEVER_MS, 2_000, 4_000, 4_000]),
        leave_every_ms=draw.choice([NEVER_MS, NEVER_MS, 2_000, 5_000]),
        sink_away_every_ms=draw.choice([NEVER_MS, 2_000, 5_000]),
        compacts=draw.random() < 0.6,
        rots=draw.random() < 0.3,
        schema_is_late=draw.random() < 0.3,
    )
