"""What happens to one effect of one process: nothing, an error before or after it, standing still, the end."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.simulation.schedule import Crash, Life, Schedule
from tests.simulation.weather import Weather


class Trouble:
    """Stands between a process and the outer world. `weather` is replaced by a calm one at the end."""

    def __init__(self, schedule: Schedule, life: Life, weather: Weather, draw: random.Random) -> None:
        self.weather = weather
        self._schedule = schedule
        self._life = life
        self._draw = draw

    @contextmanager
    def around(self, what: str, error: Callable[[], Exception], *, may_freeze: bool = True) -> Iterator[None]:
        """One effect. Raises Crash, or `error()` with the effect done or not.

        may_freeze: only in a simulated thread.
        """
        self._schedule.note(f"{self._life.name} {what}")
        self._moment(what, may_freeze)
        if self._draw.random() < self.weather.refuse:
            self._schedule.note(f"{self._life.name} refused {what}")
            raise error()
        yield
        self._moment(what, may_freeze)
        if self._draw.random() < self.weather.lose_answer:
            self._schedule.note(f"{self._life.name} no answer to {what}")
            raise error()

    def crash(self, what: str) -> None:
        """End the process here."""
        self._schedule.note(f"{self._life.name} crashes at {what}")
        self._life.is_dead = True
        raise Crash

    def _moment(self, what: str, may_freeze: bool) -> None:
        if self._life.is_dead:
            raise Crash
        luck = self._draw.random()
        if luck < self.weather.crash:
            self.crash(what)
        planned = self._life.will_stand_still
        if planned is not None and what.startswith(planned[0]):
            self._life.will_stand_still = None
            self._stand_still(what, planned[1])
        elif may_freeze and luck < self.weather.crash + self.weather.freeze:
            self._stand_still(what, self._draw.uniform(1, self.weather.freeze_ms))

    def _stand_still(self, what: str, ms: float) -> None:
        self._schedule.note(f"{self._life.name} stands still at {what}")
        self._schedule.stand_still(self._life, ms)
        self._schedule.note(f"{self._life.name} goes on at {what}")
