"""`liftstream experiments`: check their files, plan them, and decide about them."""

from pathlib import Path

import click

from stream.cli import SUMMARIES, options
from stream.cli.deciding import promote, undo
from stream.cli.planning import plan
from stream.cli.printing import note, print_table
from stream.contracts.definitions import load_experiments
from stream.errors import ConfigurationError
from stream.settings import Settings


@click.group("experiments", short_help=SUMMARIES["experiments"])
def command() -> None:
    """Check experiment files, plan experiments, and decide about them."""


command.add_command(plan)
command.add_command(promote)
command.add_command(undo)


@command.command("check")
@click.argument("folder", required=False, type=options.FOLDER)
def check(folder: Path | None) -> None:
    """Check the files in FOLDER (default: the setting `experiments`) and show what they say."""
    folder = folder or Settings.load().experiments
    if folder is None:
        raise ConfigurationError(
            "There is no folder of experiments: name one, or set LIFTSTREAM_EXPERIMENTS."
        )
    experiments = load_experiments(folder)
    rows = [
        {
            "experiment": experiment.name,
            "control": experiment.control_among(()),
            "arms": ", ".join(experiment.arms) or "(any)",
            "policy": experiment.policy.value,
            "surfaces": ", ".join(experiment.surfaces) or "(all)",
            "currency": experiment.currency,
            "guardrails": ", ".join(guardrail.label for guardrail in experiment.guardrails) or None,
        }
        for experiment in experiments
    ]
    if rows:
        print_table(rows, rows[0])
    note(f"{len(rows)} experiment files are fine.")
