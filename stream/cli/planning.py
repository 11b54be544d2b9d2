"""`liftstream experiments plan`: how many users and days a lift needs."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from stream.cli import options
from stream.cli.printing import note, print_json, print_table
from stream.cli.reading import opened
from stream.contracts.definitions import DAY_MS
from stream.errors import ConfigurationError
from stream.results.compared import tallies_of
from stream.results.counted import ALL, Counted
from stream.results.metrics import metrics_of
from stream.results.rows import Basis
from stream.sink.counted import counted, definitions
from stream.stats.confidence import Confidence
from stream.stats.estimates import Estimate, estimate
from stream.stats.moments import Moments
from stream.stats.sample_size import DEFAULT_POWER, Plan, users_always, users_fixed

COLUMNS = ("interval", "users", "users per arm", "days")


@dataclass(frozen=True, slots=True)
class Base:
    """What is known before. variance: of one user's value. users_per_day: of both arms; None: unknown."""

    metric: str
    value: float
    variance: float
    is_proportion: bool = False
    users_per_day: float | None = None


def _part(context: click.Context, parameter: click.Parameter, text: str) -> float:
    """`5%`, `-5%` or `0.05`, not 0."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not value or not math.isfinite(value):
        raise click.BadParameter("write a percentage such as 5% or -2.5%, or a part such as 0.05, not 0.")
    return value


@click.command("plan")
@click.option(
    "--lift", required=True, callback=_part, metavar="PERCENT", help="The lift to find: 5%, -2.5% or 0.05."
)
@click.option("--rate", type=options.SHARE, help="The control's share of users.")
@click.option(
    "--mean", type=options.Finite(), help="The control's mean per user, instead of --rate; needs --sd."
)
@click.option(
    "--sd", type=options.Finite(min=0, min_open=True), help="Standard deviation over users, with --mean."
)
@click.option("--experiment", help="Take value, spread and users a day from this running experiment instead.")
@click.option(
    "--metric", default="user_conversion_rate", show_default=True, help="The metric, with --experiment."
)
@click.option(
    "--users-per-day", type=options.Finite(min=0, min_open=True), help="New users a day, in both arms."
)
@click.option(
    "--control-share",
    type=options.SHARE,
    default=0.5,
    show_default=True,
    help="The control's part of the two arms' users.",
)
@click.option(
    "--power",
    type=options.SHARE,
    default=DEFAULT_POWER,
    show_default=True,
    help="With which probability the lift shall be found.",
)
@options.alpha
@options.tuning
@options.into
@options.as_json
def plan(
    lift: float,
    rate: float | None,
    mean: float | None,
    sd: float | None,
    experiment: str | None,
    metric: str,
    users_per_day: float | None,
    control_share: float,
    power: float,
    alpha: float,
    tuning: int,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Say how many users and days a lift needs, with one look at the end and with any number of looks.

    The base comes from --rate (a share of users), from --mean and --sd (a mean per user), or from a running
    --experiment.
    """
    if (rate is not None) + (mean is not None) + (experiment is not None) != 1:
        raise click.UsageError("Say where the base comes from: --rate, --mean with --sd, or --experiment.")
    if (mean is None) != (sd is None):
        raise click.UsageError("--mean and --sd belong together.")
    base = _base(rate, mean, sd) if experiment is None else _running(folder, experiment, metric)
    per_day = users_per_day or base.users_per_day
    try:
        planned = _planned(base, lift, control_share, power)
        confidence = Confidence(alpha, tuning)
        needed = {
            "fixed": users_fixed(planned, confidence),
            "always-valid": users_always(planned, confidence),
        }
    except ValueError as error:
        raise ConfigurationError(f"This cannot be planned: {error}.") from None
    rows = [_row(interval, users, control_share, per_day) for interval, users in needed.items()]
    about = {
        "metric": base.metric, "control_value": base.value, "lift": lift, "difference": planned.difference,
        "control_share": control_share, "power": power, "alpha": alpha, "tuning": tuning, "users_per_day": per_day,
    }  # fmt: skip
    if as_json:
        return print_json(about | {"plans": rows})
    note(
        f"{base.metric} of {base.value:.4g}, to find a lift of {lift * 100:+g} % ({planned.difference:+.4g}) "
        f"with power {power:g} at alpha {alpha:g}:"
    )
    shown = [row | {"users per arm": f"{row['control_users']:,} + {row['arm_users']:,}"} for row in rows]
    return print_table(shown, COLUMNS)


def _planned(base: Base, lift: float, control_share: float, power: float) -> Plan:
    if base.is_proportion:
        return Plan.of_proportion(base.value, lift, control_share=control_share, power=power)
    return Plan(base.value * lift, base.variance, base.variance, control_share, power)


def _row(interval: str, users: int, control_share: float, per_day: float | None) -> dict[str, Any]:
    in_control = math.ceil(users * control_share)
    return {
        "interval": interval,
        "users": users,
        "control_users": in_control,
        "arm_users": users - in_control,
        "days": None if per_day is None else math.ceil(users / per_day),
    }


def _base(rate: float | None, mean: float | None, sd: float | None) -> Base:
    if rate is not None:
        return Base("share of users", rate, rate * (1 - rate), is_proportion=True)
    assert mean is not None
    assert sd is not None
    return Base("mean per user", mean, sd * sd)


def _running(folder: Path | None, experiment: str, name: str) -> Base:
    """The control of a running experiment as it is now."""
    with opened(folder) as db:
        found = counted(db, [experiment], slices=False)
        known = definitions(db)
    if not found or not found[0].sums:
        raise ConfigurationError(
            f"There is no experiment {experiment} with data: liftstream results lists them."
        )
    (sums,) = found
    rules = known.experiment(experiment) if known else None
    control = rules.control_among(sums.arms) if rules else "control"
    if rules is None or control not in sums.arms:
        raise ConfigurationError(
            f"The experiment {experiment} has no control with data: declare one in its file, or plan with --rate."
        )
    metrics = {metric.name: metric for metric in metrics_of(rules, sums.as_of_ms, sums.since_ms)}
    if name not in metrics:
        raise ConfigurationError(f"There is no metric {name}: known are {', '.join(metrics)}.")
    phases = tallies_of(sums)[ALL, control].values()
    basis = Basis.EXPOSED if any(tally.users(Basis.EXPOSED) for tally in phases) else Basis.ASSIGNED
    whole = sum((metrics[name].moments(tally, basis) for tally in phases), Moments())
    now = estimate(metrics[name].kind, whole, whole)
    if not isinstance(now, Estimate) or not now.value:
        raise ConfigurationError(
            f"{name} of {control} has no spread yet that one could plan with: wait for more users."
        )
    return Base(
        name, float(now.value), float(now.variance * now.n), users_per_day=_users_per_day(sums, control)
    )


def _users_per_day(sums: Counted, control: str) -> float | None:
    """New users a day in the control and one other arm of its size."""
    cohorts = [one for one in sums.cohorts if one.arm == control and one.since == "assignment"]
    if not cohorts or sums.as_of_ms is None:
        return None
    days = max(1.0, sums.as_of_ms / DAY_MS - min(one.start_date for one in cohorts))
    return 2 * sum(one.users for one in cohorts) / days
