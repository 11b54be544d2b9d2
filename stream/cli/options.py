"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

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

rejects: Decorator = click.option(
    "--rejects", type=FILE, metavar="FILE", help="Write the records that break the contract to FILE."
)
