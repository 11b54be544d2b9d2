import pytest
from rich.console import Console

from benchmarks.stages.measure import Round, measure, to_table


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--scale", type=float, default=0.25, help="1.0 is 2.4 million events")
    parser.addoption("--rounds", type=int, default=3)


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> list[Round]:
    """All stages come from the same runs, so that they add up."""
    found = measure(request.config.getoption("--scale"), request.config.getoption("--rounds"))
    request.config.stash[ROUNDS] = found
    return found


ROUNDS = pytest.StashKey[list[Round]]()


def pytest_terminal_summary(config: pytest.Config) -> None:
    if found := config.stash.get(ROUNDS, None):
        Console().print(to_table(found))
