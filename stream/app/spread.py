"""How a measured value is spread: what a histogram shows. Cheap to add to, also many values at once."""

import bisect
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
)
ROWS = (1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0, 100_000.0)


class Spread:
    """Counts values by upper bounds. Added to by one thread, read by any."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0.0] * (len(self.bounds) + 1)  # the last one: above all bounds
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_many(self, values: npt.NDArray[np.float64], weight: float) -> None:
        """Count values that stand for `weight` each."""
        places = np.searchsorted(np.array(self.bounds), values)
        for place, count in enumerate(np.bincount(places, minlength=len(self.counts)).tolist()):
            self.counts[place] += weight * count
        self.total += weight * float(values.sum())
