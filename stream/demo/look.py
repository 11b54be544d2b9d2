"""What the demo's database says at one moment."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.demo.supervised import SupervisedWorker
from stream.errors import LiftstreamError
from stream.local.database import ask_owner
from stream.results.rows import Standing
from stream.results.rules import Rules
from stream.sink.as_json import with_metrics
from stream.sink.counted import definitions
from stream.sink.queries import Database, ledger, results
from stream.sink.standings import read_standings

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """What there is to see at one moment. results, rolling: rows of the views, for slice `all`."""

    sent: int
    counted: int
    results: Sequence[Row]
    rolling: Sequence[Row]
    restarts: int
    news: str  # the worker's last words while it does not answer yet
    is_complete: bool


class Look:
    """Asks the worker, which owns the embedded database, what it has counted.

    results: rows of `results` as seen last. total: how many events there will be.
    """

    def __init__(self, directory: Path, total: int) -> None:
        self.results: list[dict[str, Any]] = []
        self._directory = directory
        self._total = total
        self._rolling: list[dict[str, Any]] = []
        self._ledger: list[dict[str, Any]] = []

    def __call__(self, *, sent: int, worker: SupervisedWorker) -> View:
        """Look once."""
        news = "" if self._ask() and self._ledger else worker.last_words()
        counted = sum(row["counted"] for row in self._ledger)
        return View(
            sent=sent,
            counted=counted,
            results=[row for row in self.results if row["slice"] == "all"],
            rolling=self._rolling,
            restarts=worker.restarts,
            news=news,
            is_complete=counted == self._total and self._totals_agree(),
        )

    def with_metrics(self) -> list[dict[str, Any]]:
        """The results, each arm's with its comparisons; without these where the worker does not answer now."""
        standings: list[Standing] = []
        with suppress(LiftstreamError):
            if db := ask_owner(self._directory):
                with db:
                    standings = read_standings(db, definitions(db) or Definitions(), Rules())
        return with_metrics(self.results, standings)

    def _ask(self) -> bool:
        """Whether the worker answered; while it starts (again) it does not, and what was seen last stays."""
        try:
            db = ask_owner(self._directory)
            if db is None:
                return False
            with db:
                self._read(db)
        except LiftstreamError:
            return False
        return True

    def _read(self, db: Database) -> None:
        rolling = db.query("SELECT * FROM arm_rolling WHERE slice = 'all'").dicts()
        self._ledger, self._rolling, self.results = ledger(db), rolling, results(db)

    def _totals_agree(self) -> bool:
        """Whether the totals hold what the ledger counted: the sample's users are in one experiment each."""
        counted = dict.fromkeys(Topic, 0)
        for row in self._ledger:
            topic = next(topic for topic in Topic if row["topic"].endswith(topic.word))
            counted[topic] += row["attributed"] if topic is Topic.INTERACTIONS else row["counted"]
        whole = [row for row in self.results if row["slice"] == "all"]
        totals = {
            Topic.ASSIGNMENTS: sum(row["assigned_users"] for row in whole),
            Topic.IMPRESSIONS: sum(row["impressions"] for row in whole),
            Topic.INTERACTIONS: sum(row["clicked_impressions"] for row in whole),
        }
        return totals == counted
