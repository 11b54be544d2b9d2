"""`liftstream simulate`: traffic with known true rates."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from stream.cli import SUMMARIES, options
from stream.cli.printing import note, print_json, progress
from stream.contracts.topics import Topic
from stream.demo.events import DemoEvent
from stream.demo.traffic import Rates, Tally, Traffic
from stream.errors import ConfigurationError
from stream.producer import Producer
from stream.settings import Settings

Emit = Callable[[DemoEvent], None]


@click.command("simulate", short_help=SUMMARIES["simulate"])
@click.option(
    "--users", default=1_000, show_default=True, type=click.IntRange(1), help="How many users there are."
)
@click.option(
    "--seconds", default=60.0, show_default=True, type=options.Finite(0, min_open=True), help="How long."
)
@click.option(
    "--rate",
    default=100.0,
    show_default=True,
    type=options.Finite(0, min_open=True),
    help="Impressions a second.",
)
@click.option("--ctr", multiple=True, metavar="ARM=RATE", help="An arm and its true CTR; several times.")
@click.option(
    "--conversion",
    multiple=True,
    metavar="ARM=RATE",
    help="Its true conversion rate per impression (default 0).",
)
@click.option("--experiment", default="simulated", show_default=True, help="The experiment's name.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Same seed, same traffic.")
@click.option(
    "--to",
    "folder",
    type=options.FOLDER,
    metavar="DIR",
    help="Write JSONL files into DIR at once, use no broker.",
)
def command(
    users: int,
    seconds: float,
    rate: float,
    ctr: tuple[str, ...],
    conversion: tuple[str, ...],
    experiment: str,
    seed: int,
    folder: Path | None,
) -> None:
    """Make traffic with known true rates, in real time, and print the truth as JSON.

    Users are split evenly between the arms. The truth holds the true rates and what was sent per arm: results must show
    the latter exactly.
    """
    traffic = Traffic(
        users=users, seconds=seconds, rate=rate, arms=_arms(ctr, conversion), experiment=experiment, seed=seed
    )
    tally = Tally(traffic)
    with ExitStack() as stack:
        emit = stack.enter_context(_to_files(folder) if folder else _to_broker(Settings.load()))
        bar = stack.enter_context(progress())
        now = time.time_ns() // 1_000_000
        start_ms = now - round(seconds * 1000) if folder else now
        try:
            for event in bar.track(traffic.events(start_ms), description="Simulating"):
                if folder is None:
                    time.sleep(max(0.0, event.event.at / 1000 - time.time()))
                emit(event)
                tally.add(event.event)
        except KeyboardInterrupt:
            note("Stopped; the truth covers what was sent.")
    print_json(tally.truth())


def _arms(ctr: tuple[str, ...], conversion: tuple[str, ...]) -> dict[str, Rates]:
    rates = dict(map(_rate, ctr or ("control=0.05", "treatment=0.06")))
    conversions = dict(map(_rate, conversion))
    for arm, value in conversions.items():
        if value > rates.get(arm, -1.0):
            raise click.UsageError(
                f"--conversion {arm}={value:g} needs a --ctr of {arm} at least as high: purchases follow clicks."
            )
    return {arm: Rates(rate, conversions.get(arm, 0.0)) for arm, rate in rates.items()}


def _rate(text: str) -> tuple[str, float]:
    arm, _, value = text.rpartition("=")
    try:
        rate = float(value)
    except ValueError:
        rate = -1.0
    if not arm or not 0 <= rate <= 1:
        raise click.UsageError(
            f"{text!r} must be ARM=RATE with a rate from 0 to 1, for example control=0.05."
        )
    return arm, rate


@contextmanager
def _to_broker(settings: Settings) -> Iterator[Emit]:
    with Producer(
        settings.broker,
        topic_prefix=settings.topic_prefix,
        registry_url=settings.registry_url,
        **settings.kafka_options,
    ) as producer:
        yield lambda event: producer.send(event.topic, event.event)


@contextmanager
def _to_files(folder: Path) -> Iterator[Emit]:
    paths = {topic: folder / f"{topic.word}.jsonl" for topic in Topic}
    if there := next((path for path in paths.values() if path.exists()), None):
        raise ConfigurationError(f"{there} is there already: name another folder, or remove it.")
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files = {topic: stack.enter_context(path.open("w")) for topic, path in paths.items()}
        except OSError as error:
            raise ConfigurationError(f"{error.filename} cannot be written: {error.strerror}.") from None

        def emit(event: DemoEvent) -> None:
            fields = event.event.model_dump(exclude_none=True)
            files[event.topic].write(json.dumps(fields, ensure_ascii=False) + "\n")

        yield emit
