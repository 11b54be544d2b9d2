"""`liftstream experiments promote` and `undo`: decisions of people, with who, when, why and the figures."""

import time
from contextlib import closing
from pathlib import Path

import click

from stream.cli import options
from stream.cli.printing import note
from stream.cli.reading import CHECKPOINTS, CLICKHOUSE, opened
from stream.decisions.book import Book, Page, switches_of
from stream.decisions.decision import PROMOTED, Decision, Kind, Undone
from stream.decisions.figures import Figures, figures_of
from stream.decisions.flags import FlagFile
from stream.decisions.rows import decision_columns, version_of
from stream.durability.store import open_store
from stream.errors import ConfigurationError, DirectoryInUse, Unavailable
from stream.results.rows import Standing
from stream.results.standing import standing
from stream.settings import Settings
from stream.sink.connect import connect
from stream.sink.counted import counted, definitions
from stream.sink.writer import Writer

_WRITE_SECONDS = 20.0

by = click.option("--by", required=True, metavar="NAME", help="Who decides.")
why = click.option("--why", required=True, metavar="TEXT", help="The reason, for those who ask later.")


@click.command("promote")
@click.argument("experiment")
@click.argument("arm")
@by
@why
@click.option(
    "--metric", help="The metric whose figures are recorded (default: that of the promotion rule, or ctr)."
)
@options.into
def promote(experiment: str, arm: str, by: str, why: str, metric: str | None, folder: Path | None) -> None:
    """Record that ARM of EXPERIMENT is the champion from now on, with the figures of this moment.

    The view `champions` keeps the history. The workers publish it as they do their own decisions.
    """
    settings = Settings.load()
    now, chosen = _standing(settings, folder, experiment, arm, metric)
    book = _book(settings, folder)
    last = max(
        (page.decision.number for page in book.pages(experiment) if _is_promotion_of(page, arm)), default=0
    )
    decision = Decision(
        experiment=experiment,
        guardrail=PROMOTED,
        arm=arm,
        number=last + 1,
        kind=Kind.PROMOTED,
        generation=now.generation,
        as_of_ms=now.as_of_ms or 0,
        decided_at_ms=_now_ms(),
        is_armed=True,
        fallback=None,
        rule="",
        reason=f"health: {now.health.reason}",
        by=by,
        why=why,
        figures=figures_of(now.results, chosen, arm) or Figures(chosen),
    )
    if not book.write(decision):
        raise ConfigurationError(
            f"Somebody else promotes {arm} at this moment: look at liftstream decisions."
        )
    _tell(settings, folder, book, Page(decision))
    note(f"{arm} is the champion of {experiment}: decision {decision.id}.")


@click.command("undo")
@click.argument("decision_id", metavar="DECISION_ID")
@by
@why
@options.into
def undo(decision_id: str, by: str, why: str, folder: Path | None) -> None:
    """Take a decision back: an arm that it switched off is on again, a champion is none.

    A guardrail whose rule stays true fires again after its cooldown.
    """
    settings = Settings.load()
    book = _book(settings, folder)
    page = book.page(decision_id)
    if page is None:
        raise ConfigurationError(f"There is no decision {decision_id}: liftstream decisions lists them.")
    if not book.undo(decision_id, Undone(by, why, _now_ms())):
        raise ConfigurationError(
            f"The decision {decision_id} was undone before: liftstream decisions says by whom."
        )
    name = page.decision.experiment
    book.keep_switches(switches_of(name, book.pages(name)))
    if settings.flag_file is not None:
        experiments = settings.definitions().experiments
        FlagFile(settings.flag_file, experiments).show(book.switches())
    undone = book.page(decision_id)
    assert undone is not None
    _tell(settings, folder, book, undone)
    note(f"The decision {decision_id} is undone.")


def _standing(
    settings: Settings, folder: Path | None, experiment: str, arm: str, metric: str | None
) -> tuple[Standing, str]:
    """How the experiment stands now, and the metric whose figures count."""
    with opened(folder) as db:
        found = counted(db, [experiment])
        known = definitions(db) or settings.definitions()
    if not found or arm not in found[0].arms:
        arms = ", ".join(found[0].arms) if found else ""
        known_arms = f"it has {arms}" if arms else "it has no data: liftstream results lists what there is"
        raise ConfigurationError(f"There is no arm {arm} in the experiment {experiment}: {known_arms}.")
    rules = known.experiment(experiment)
    chosen = metric or (rules.promotion.metric if rules.promotion else "ctr")
    now = standing(rules, found[0])
    if chosen not in {row.metric for row in now.results}:
        raise ConfigurationError(f"There is no metric {chosen} in the experiment {experiment}.")
    return now, chosen


def _is_promotion_of(page: Page, arm: str) -> bool:
    return page.decision.kind is Kind.PROMOTED and page.decision.arm == arm


def _book(settings: Settings, folder: Path | None) -> Book:
    return Book(open_store(str(folder / CHECKPOINTS) if folder else settings.checkpoints))


def _tell(settings: Settings, folder: Path | None, book: Book, page: Page) -> None:
    """The row at once, where we can write it; the rest by the workers, who find the note."""
    book.leave_note(page)
    url = f"chdb://{(folder / CLICKHOUSE).resolve()}" if folder else settings.clickhouse_url
    try:
        _write_row(url, page)
    except (DirectoryInUse, Unavailable):
        note("The worker will write it to the view decisions.")


def _write_row(url: str, page: Page) -> None:
    with (
        connect(url, create=False) as connection,
        closing(Writer(connection.client, interval_seconds=0)) as writer,
    ):
        writer.put_rows(
            "decisions",
            decision_columns(page),
            generation=page.decision.generation,
            version=version_of(page),
        )
        if not writer.drain(_WRITE_SECONDS):
            raise Unavailable("ClickHouse does not take the row of the decision.")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
