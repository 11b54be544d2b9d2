"""Where the topics end, asked of the broker every few seconds; also tells whether it answers."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Set

from aiokafka.errors import KafkaError
from faust.exceptions import FaustError
from faust.types import TP

log = logging.getLogger(__name__)

Ask = Callable[[Set[TP]], Awaitable[Mapping[TP, int]]]


class Ends:
    """The newest answers. Everything is called in the event loop; the watchdog's thread reads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds that never step back."""
        self._clock = clock
        self._tps: Set[TP] = frozenset()
        self.by_tp: dict[TP, int] = {}
        self.unanswered_since: float | None = None  # by `clock`

    async def ask(self, ask: Ask, tps: Set[TP]) -> None:
        """Ask about these, the assigned ones. Never raises for what a broker does."""
        if not tps:
            self.by_tp, self.unanswered_since = {}, None
            return
        asked = self._clock()
        try:
            self.by_tp = dict(await ask(tps))
        except (KafkaError, FaustError, TimeoutError, OSError) as error:
            if self.unanswered_since is None:
                self.unanswered_since = asked
                log.warning("The broker does not answer and will be asked again: %r", error)
            return
        if self.unanswered_since is not None:
            log.warning("The broker answers again after %.0f s.", self._clock() - self.unanswered_since)
        self.unanswered_since = None

    @property
    def unanswered_seconds(self) -> float:
        """For how long the broker has not answered; 0 when it does."""
        since = self.unanswered_since
        return 0.0 if since is None else self._clock() - since
