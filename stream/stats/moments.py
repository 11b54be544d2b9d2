"""The sums over an arm's users that every estimate is made of."""

from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter
from typing import Self

Exact = int | Fraction

ROUNDING = Fraction(1, 10**9)  # of sums that were added up in floating point somewhere else


@dataclass(frozen=True, slots=True)
class Moments:
    """Number of users and sums over them of x, y, p and their products; they add over users, never over time.

    x: what is measured per user (clicked impressions, revenue); y: what a ratio divides by (impressions);
    p: the user's value before the experiment. A user's total is formed first, then squared. Python integers, so that
    nothing overflows; fractions where a sum is not whole.
    """

    n: int = 0
    sx: Exact = 0
    sxx: Exact = 0
    sy: Exact = 0
    syy: Exact = 0
    sxy: Exact = 0
    sp: Exact = 0
    spp: Exact = 0
    sxp: Exact = 0

    @classmethod
    def of_user(cls, x: Exact, y: Exact = 0, p: Exact = 0) -> Self:
        """The moments of one user."""
        return cls(1, x, x * x, y, y * y, x * y, p, p * p, x * p)

    def __add__(self, other: Self) -> Self:
        """Both groups of users together; they share no user."""
        return type(self)(*(a + b for a, b in zip(_all(self), _all(other), strict=True)))

    def __sub__(self, other: Self) -> Self:
        """The users without those of `other`, who are among them."""
        return type(self)(*(a - b for a, b in zip(_all(self), _all(other), strict=True)))

    # Products about the means, times n: n * sum((x - mean x) * (y - mean y)) = n * sxy - sx * sy, without division.

    @property
    def cxx(self) -> Exact:
        """n^2 times the variance of x among these users (with divisor n)."""
        return self.n * self.sxx - self.sx * self.sx

    @property
    def cyy(self) -> Exact:
        """n^2 times the variance of y."""
        return self.n * self.syy - self.sy * self.sy

    @property
    def cpp(self) -> Exact:
        """n^2 times the variance of p."""
        return self.n * self.spp - self.sp * self.sp

    @property
    def cxy(self) -> Exact:
        """n^2 times the covariance of x and y."""
        return self.n * self.sxy - self.sx * self.sy

    @property
    def cxp(self) -> Exact:
        """n^2 times the covariance of x and p."""
        return self.n * self.sxp - self.sx * self.sp

    def impossible(self) -> tuple[str, str] | None:
        """Name of a sum that no users can have, and the rule it breaks; None if all is well.

        Sums that overflowed a narrow type, or were squared over time and not per user, often show here.
        """
        if self.n < 0:
            return "n", "must be at least 0"
        if self.n == 0:
            named = ((name, getattr(self, name)) for name in self.__slots__)
            return next(((name, "must be 0, as n is 0") for name, value in named if value), None)
        squares: tuple[tuple[str, Exact, Exact], ...] = (
            ("sxx", self.cxx, self.sxx),
            ("syy", self.cyy, self.syy),
            ("spp", self.cpp, self.spp),
        )
        for name, c, square in squares:
            rounding = 0 if isinstance(c, int) else ROUNDING * self.n * square
            if c < -rounding:
                return name, f"is impossible: n * {name} must be at least {name[:2]} squared"
        for name, c, a, b in (("sxy", self.cxy, self.cxx, self.cyy), ("sxp", self.cxp, self.cxx, self.cpp)):
            if all(isinstance(part, int) for part in (a, b, c)) and c * c > a * b:
                return name, "is impossible: the covariance is larger than the variances allow"
        return None


_all = attrgetter(*Moments.__slots__)
