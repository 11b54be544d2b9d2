"""`make validity`: false alarms, coverage and power on simulated experiments, into docs/validity.md."""

import time
from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track

from benchmarks.validity.tables import (
    coverage,
    false_alarms,
    markdown,
    power,
    sample_ratio_alarms,
    stream_alarms,
)

DOC = Path(__file__).parents[2] / "docs" / "validity.md"
TEXT = """\
# Do the intervals keep their promise?

Made by `make validity` ({runs:,} experiments for a row of false alarms, {half:,} for one of the other tables), with the
code that `liftstream stats` and `liftstream results` run. The number after ± is the Monte-Carlo standard error. The
formulas are in [statistics.md](statistics.md).

Each experiment: 4,000 users in two arms who arrive one after the other, come back, click and buy; 100 looks at it, from
the first at which both arms have 50 users; alpha = .05, N* = 5,000. Users differ in how often they come (gamma) and how
often they click (beta, 10 % on average), and amounts are lognormal: few users make most of the revenue.

## False alarms

Both arms are the same. At most 5 % of the experiments may ever be called significant.

{false_alarms}

*Events as units*: the z-test of two proportions that takes impressions for independent. *Fixed*: Welch's t-test with
users as units; at one planned look it keeps its promise, at 100 looks it cannot. *Always-valid*: the promise holds over
all looks together. *Lift excludes 0*: no verdict should rest on it, for the reason given under coverage.

## False alarms on the stream's own way

Events through engine, sums and results, as in a worker: {traffics} traffics of 600 users, each split at random by 40
experiments at once, looked at after each of 15 steps, from the first at which both arms have 50 users. Splits of one
traffic are not quite independent, so that the error is a little larger than said.

{stream}

*Health: broken*: all checks of `liftstream health`, the sample ratio of every slice among them.

## Coverage

The arm clicks 20 % more. The interval should hold the truth in at least 95 % of the experiments.

{coverage}

The lift divides by the control's value, and the delta method is good only once that value is well known: from ten of
its own standard errors on, the interval holds. Before that, which for rare and heavy-tailed metrics is long, it
misses too often. Read the lift for its size, and the absolute difference for whether there is one.

## Power

What it costs to be allowed to look at any time: a lift of the CTR is found less often than by one look at the end, but
often long before the end.

{power}

## Sample ratio

50:50 was planned, and 50,000 users came; flagged at p < .001, 100 looks, k = 12,500.

{sample_ratio}
"""


@click.command()
@click.option("--runs", default=1_000, show_default=True, help="Experiments for a row of false alarms.")
@click.option("--into", "doc", type=click.Path(path_type=Path), default=DOC, show_default=True)
def main(runs: int, doc: Path) -> None:
    """Simulate, and write the tables."""
    started = time.monotonic()
    console = Console(stderr=True)

    def seeds(n: int, label: str) -> Iterable[int]:
        return track(range(n), label, console=console, disable=not console.is_terminal)

    half = max(1, runs // 2)
    text = TEXT.format(
        runs=runs,
        half=half,
        false_alarms=markdown(false_alarms(seeds, runs)),
        traffics=max(1, runs // 100),
        stream=markdown(stream_alarms(seeds, max(1, runs // 100))),
        coverage=markdown(coverage(seeds, half)),
        power=markdown(power(seeds, half)),
        sample_ratio=markdown(sample_ratio_alarms(seeds, half)),
    )
    doc.write_text(text)
    click.echo(text)
    click.echo(f"Written to {doc} after {time.monotonic() - started:.0f} s.", err=True)


if __name__ == "__main__":
    main(prog_name="make validity")
