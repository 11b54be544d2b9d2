"""P-values of several metrics and arms at once. Both adjustments keep p-values valid under any number of looks."""

from collections.abc import Sequence


def bonferroni(p_values: Sequence[float]) -> list[float]:
    """min(1, m p) each: the chance of any false alarm among all of them stays below alpha.

    The intervals that go with it are those of alpha / m.
    """
    return [min(1.0, p * len(p_values)) for p in p_values]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Of those below alpha, at most the part alpha is expected to be false alarms (false discovery rate).

    The i-th smallest becomes the least of m p / j over all j >= i; in the order of the input. Promised for independent
    or positively dependent p-values. Benjamini, Hochberg: Controlling the False Discovery Rate (1995).
    """
    count = len(p_values)
    adjusted = [1.0] * count
    least = 1.0
    for rank, index in sorted(enumerate(sorted(range(count), key=p_values.__getitem__), 1), reverse=True):
        least = min(least, p_values[index] * count / rank)
        adjusted[index] = least
    return adjusted
