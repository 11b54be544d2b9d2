import pytest

from tests.simulation.ablations import ABLATIONS
from tests.simulation.run import Product, simulate

SEEDS = 200
# Where to begin to look for those that show in few seeds only.
RARE = {"no stale check": 6, "no wait for the sinks": 6, "no schemas in the journal": 11}


@pytest.mark.parametrize("rule", list(ABLATIONS))
def test_the_simulation_notices_when_a_rule_is_missing(rule: str) -> None:
    """No journal; entries written where collected ones were; snapshots that do not wait; decisions; ids of schemas."""
    first = RARE.get(rule, 1)
    product = ABLATIONS[rule]
    seed = next(seed for seed in range(first, first + SEEDS) if simulate(seed, product).broken)
    assert not simulate(seed, Product(weather=product.weather)).broken
