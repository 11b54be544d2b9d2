"""When the records of a step reached Kafka, few enough to carry along, for the end-to-end latency."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

POINTS = 201  # quantiles kept; the error of a reported quantile is half a percent of the rank
REPORTED = (0.50, 0.95, 0.99)


@dataclass(frozen=True, slots=True, eq=False)
class Origins:
    """The Kafka record times of `count` records. record_at_ms: up to POINTS of their quantiles, ascending."""

    count: int
    record_at_ms: I64

    @classmethod
    def of(cls, record_at_ms: I64) -> "Origins":
        """Of int64 epoch milliseconds in any order; none is fine."""
        n = len(record_at_ms)
        if n <= POINTS:
            return cls(n, np.sort(record_at_ms))
        places = np.linspace(0, n - 1, POINTS).round().astype(np.int64)
        return cls(n, np.partition(record_at_ms, places)[places])

    @classmethod
    def merged(cls, parts: Sequence["Origins"]) -> "Origins":
        """Of all records of the parts together."""
        parts = [part for part in parts if part.count]
        if len(parts) < 2:
            return parts[0] if parts else cls(0, np.empty(0, np.int64))
        count = sum(part.count for part in parts)
        points = np.concatenate([part.record_at_ms for part in parts])
        weights = np.concatenate([np.full(len(p.record_at_ms), p.count / len(p.record_at_ms)) for p in parts])
        order = np.argsort(points, kind="stable")
        points, ends = points[order], np.cumsum(weights[order])
        if len(points) <= POINTS and count == len(points):
            return cls(count, points)
        places = np.searchsorted(ends, np.linspace(0, ends[-1], POINTS)).clip(max=len(points) - 1)
        return cls(count, points[places])

    @property
    def newest_ms(self) -> int | None:
        """The latest record time."""
        return int(self.record_at_ms[-1]) if self.count else None

    def latencies_ms(self, written_at_ms: int) -> tuple[int | None, ...]:
        """The REPORTED quantiles of (written - record time), milliseconds; None without records."""
        if not self.count:
            return (None,) * len(REPORTED)
        ages = written_at_ms - self.record_at_ms
        return tuple(int(q) for q in np.quantile(ages, REPORTED, method="nearest"))
