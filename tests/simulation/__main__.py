"""`make simulate-faults SEEDS=1000 FIRST=1`: run seeds; print those that fail, and how to see one again."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence

from tests.simulation.ablations import ABLATIONS
from tests.simulation.run import Finished, Product, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 when a seed failed."""
    asked = _asked(arguments)
    logging.disable(logging.CRITICAL)  # a worker complains of every trouble; that is not news here
    product = ABLATIONS[asked.without] if asked.without else Product()
    if asked.told:
        return _tell(simulate(asked.first, product, is_told=True))
    return _run(range(asked.first, asked.first + asked.seeds), product)


def _run(seeds: range, product: Product) -> int:
    began, failed, steps, repeats, processes = time.monotonic(), [], 0, 0, 0
    for done, seed in enumerate(seeds, 1):
        finished = simulate(seed, product)
        steps, repeats = steps + finished.steps, repeats + finished.repeats
        processes += finished.processes
        if finished.broken:
            failed.append(seed)
            print(f"seed {seed}: {finished.broken}", flush=True)
        if done % 100 == 0:
            print(f"{done} of {len(seeds)} seeds, {len(failed)} failed", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    print(
        f"{len(seeds) - len(failed)} of {len(seeds)} seeds equal the oracle: {steps:,} steps, {repeats:,} of them "
        f"executed again, {processes:,} processes, {seconds:.0f} s."
    )
    if failed:
        print(f"To read what happened: make simulate-faults FIRST={failed[0]} ARGS=--told")
    return 1 if failed else 0


def _tell(finished: Finished) -> int:
    print(finished.weather.told())
    print("\n".join(finished.happened))
    print(f"seed {finished.seed}, trace {finished.trace:08x}: {finished.broken or 'equal to the oracle'}")
    return 1 if finished.broken else 0


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulate-faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first one")
    parser.add_argument("--told", action="store_true", help="tell all that happens in the first seed")
    parser.add_argument(
        "--without", choices=list(ABLATIONS), help="take a rule out of the product: seeds must fail"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
