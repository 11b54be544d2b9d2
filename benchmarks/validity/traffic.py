"""An experiment whose truth is known: users arrive, come back, click and buy; sums per arm at each look."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.stats.estimates import Kind
from stream.stats.moments import Moments

Matrix = npt.NDArray[np.int64]  # users x looks, cumulative

CTR = 0.1  # of the mean user; users differ
BUYS_PER_CLICK = 0.2
METRICS = {
    "ctr": Kind.RATIO,
    "clicks_per_user": Kind.MEAN,
    "clicks_per_user_cuped": Kind.CUPED_MEAN,
    "buyers": Kind.PROPORTION,
    "revenue_per_user": Kind.MEAN,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How large an experiment is, and how often one looks at it. lift: the arm's true relative effect on clicking."""

    users: int = 4_000
    looks: int = 100
    lift: float = 0.0

    @property
    def difference(self) -> float:
        """The true difference of the CTR."""
        return CTR * self.lift


def simulate(shape: Shape, random: np.random.Generator) -> dict[str, list[tuple[Moments, Moments]]]:
    """Per metric the moments of control and arm at each look.

    A user's visits are Poisson with a gamma rate from arrival on, the click probability is beta, independent of it,
    so that the true CTR is CTR at all looks. Amounts are lognormal: few users make most of the revenue. p is the clicks
    of a period before.
    """
    rate = random.gamma(0.8, 0.2, shape.users)
    click = random.beta(2, 2 / CTR - 2, shape.users)
    arrival = np.sort(random.integers(0, shape.looks, shape.users))
    in_arm = random.random(shape.users) < 0.5
    pre = random.poisson(rate * click * shape.looks)

    here = np.arange(shape.looks) >= arrival[:, None]
    shown = random.poisson(np.where(here, rate[:, None], 0))
    shown[np.arange(shape.users), arrival] += 1
    clicks = random.binomial(shown, np.where(in_arm, click * (1 + shape.lift), click)[:, None])
    bought = random.binomial(clicks, BUYS_PER_CLICK)
    cents = np.zeros_like(bought)
    cents[bought > 0] = np.rint(bought[bought > 0] * random.lognormal(8, 1, int((bought > 0).sum())))

    x, y = clicks.cumsum(axis=1), shown.cumsum(axis=1)
    exposed = here.astype(np.int64)  # everybody sees something on arrival
    p = exposed * pre[:, None]
    buyer = (bought.cumsum(axis=1) > 0).astype(np.int64)
    columns = {
        "ctr": (x, y, p),
        "clicks_per_user": (x, y, p),
        "clicks_per_user_cuped": (x, y, p),
        "buyers": (buyer, y, p),
        "revenue_per_user": (cents.cumsum(axis=1), y, p),
    }
    arms = np.stack([~in_arm, in_arm]).astype(np.int64)
    return {metric: _moments(arms, exposed, *parts) for metric, parts in columns.items()}


def _moments(arms: Matrix, exposed: Matrix, x: Matrix, y: Matrix, p: Matrix) -> list[tuple[Moments, Moments]]:
    products = (exposed, x, x * x, y, y * y, x * y, p, p * p, x * p)
    sums = np.stack([_per_arm(arms, product) for product in products])  # sums x arms x looks
    return [
        (Moments(*sums[:, 0, look].tolist()), Moments(*sums[:, 1, look].tolist()))
        for look in range(sums.shape[2])
    ]


def _per_arm(arms: Matrix, product: Matrix) -> Matrix:
    return np.stack([product[arm == 1].sum(axis=0) for arm in arms])
