"""Options that several commands share."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from stream.stats.confidence import DEFAULT_ALPHA, DEFAULT_TUNING

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class Finite(click.FloatRange):
    """A number within a range; a plain FloatRange takes nan, and without an upper bound infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. Raises BadParameter."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


SHARE = Finite(0, 1, min_open=True, max_open=True)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

as_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

into: Decorator = click.option(
    "--into",
    "folder",
    type=FOLDER,
    metavar="DIR",
    help="Use the embedded database in DIR instead of LIFTSTREAM_CLICKHOUSE_URL.",
)

experiment_files: Decorator = click.option(
    "--experiments",
    "files",
    type=FOLDER,
    metavar="DIR",
    help="Folder of experiment files, instead of those it was counted with.",
)

alpha: Decorator = click.option(
    "--alpha",
    type=SHARE,
    default=DEFAULT_ALPHA,
    show_default=True,
    help="How often intervals may miss the truth.",
)

tuning: Decorator = click.option(
    "--tuning",
    type=click.IntRange(min=1),
    default=DEFAULT_TUNING,
    show_default=True,
    help="Users at which the always-valid interval is tightest.",
)

rejects: Decorator = click.option(
    "--rejects", type=FILE, metavar="FILE", help="Write the records that break the contract to FILE."
)
