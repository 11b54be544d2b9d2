"""Let a log line that repeats through once in a while: aiokafka writes ten a second while its broker is away."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

# Loggers that repeat themselves while a broker is away, or a producer writes batches that cannot be unpacked.
CHATTY = (
    "aiokafka", "aiokafka.cluster", "aiokafka.consumer.fetcher", "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.sender", "stream.intake.record_sets",
)  # fmt: skip


class OncePer(logging.Filter):
    """Passes a message (its text before arguments) once per `seconds`, and says how many it held back since."""

    def __init__(self, seconds: float = 30.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._passed: dict[tuple[str, object], tuple[float, int]] = {}  # when last, held back since

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        if record.levelno < logging.WARNING:
            return True
        now = self._clock()
        key = (record.name, record.msg)
        with self._lock:
            last, held = self._passed.get(key, (float("-inf"), 0))
            if now - last < self._seconds:
                self._passed[key] = last, held + 1
                return False
            self._passed[key] = now, 0
        if held:
            record.msg, record.args = f"{record.getMessage()} (and {held} times more)", None
        return True


def limit_repeats(loggers: Iterable[str] = CHATTY, *, seconds: float = 30.0) -> None:
    """Put the filter on these loggers; again is harmless."""
    for name in loggers:
        logger = logging.getLogger(name)
        for old in [f for f in logger.filters if isinstance(f, OncePer)]:
            logger.removeFilter(old)
        logger.addFilter(OncePer(seconds))
