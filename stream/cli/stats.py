"""`liftstream stats`: differences, lifts and sample ratios from sums per arm."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from stream.cli import SUMMARIES, options
from stream.cli.aggregates import read_aggregates
from stream.cli.printing import note, print_json, print_table, shown
from stream.stats.confidence import DEFAULT_CONCENTRATION, Confidence
from stream.stats.results import ExperimentSums, comparisons, experiment_sample_ratio
from stream.stats.srm import SampleRatio

Row = dict[str, Any]


@click.command("stats", short_help=SUMMARIES["stats"])
@click.option(
    "--from-aggregates",
    "path",
    type=options.FILE,
    required=True,
    metavar="FILE",
    help="JSON lines: the sums of one arm for one metric each.",
)
@options.alpha
@options.tuning
@click.option(
    "--concentration",
    type=click.IntRange(min=1),
    default=DEFAULT_CONCENTRATION,
    show_default=True,
    help="k of the sequential sample ratio test: a quarter of the users expected.",
)
@options.as_json
def command(path: Path, alpha: float, tuning: int, concentration: int, as_json: bool) -> None:
    """Compare arms with their control, from sums over users in a file of JSON lines.

    Each line: experiment, metric, kind (proportion, mean, ratio, cuped_mean), arm, control (true for one arm), n, sx,
    sxx, for ratios also sy, syy, sxy, for cuped_mean sp, spp, sxp, and the planned share if it is known.
    """
    experiments = read_aggregates(path)
    confidence = Confidence(alpha, tuning)
    compared = [row for experiment in experiments for row in _comparison_rows(experiment, confidence)]
    ratios = [
        _ratio_row(experiment.experiment, experiment_sample_ratio(experiment, concentration))
        for experiment in experiments
    ]
    if as_json:
        return print_json({"comparisons": compared, "srm": ratios})
    if not experiments:
        return note(f"{path} has no lines.")
    _print_tables(compared, ratios, f"{1 - alpha:.4g}")
    return None


def _comparison_rows(experiment: ExperimentSums, confidence: Confidence) -> list[Row]:
    return [
        {
            "experiment": experiment.experiment,
            "metric": row.metric,
            "arm": row.arm,
            "control": row.control,
            **asdict(row.comparison),
        }
        for metric in experiment.metrics
        for row in comparisons(metric, confidence)
    ]


def _ratio_row(experiment: str, ratio: SampleRatio) -> Row:
    return {
        "experiment": experiment,
        "p_fixed": ratio.p_fixed,
        "p_sequential": ratio.p_sequential,
        "reason": ratio.reason,
    }


def _print_tables(compared: list[Row], ratios: list[Row], level: str) -> None:
    rows = [
        {
            **row,
            f"fixed {level}": _interval(row, "fixed"),
            f"always-valid {level}": _interval(row, "always"),
            "lift interval": _interval(row, "lift"),
        }
        for row in compared
    ]
    if rows:
        columns = ("experiment", "metric", "arm", "control", "difference", "se", f"fixed {level}", "p_fixed")
        print_table(rows, (*columns, f"always-valid {level}", "p_always", "lift", "lift interval", "reason"))
    print_table(ratios, ("experiment", "p_fixed", "p_sequential", "reason"), title="Sample ratio")


def _interval(row: Row, name: str) -> str | None:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return None if low is None else f"[{shown(low)}, {shown(high)}]"
