"""`liftstream demo`: the whole way on real data, on one machine."""

import sys
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from stream.cli import SUMMARIES, options
from stream.cli.printing import note, print_json, table_of
from stream.demo.look import View
from stream.demo.run import demo_folder, run_demo
from stream.demo.stop import Stopped, StopRequest

TILES = ("experiment", "arm", "impressions", "clicked", "ctr", "ctr 5m", "ctr 1h")
ABOUT = (
    "Open Bandit sample (ZOZO, Inc.): real impressions and clicks of a fashion shop, 24-30 November 2019. User ids and "
    "click times are invented; no difference here is significant."
)


@click.command("demo", short_help=SUMMARIES["demo"])
@click.option("--headless", is_flag=True, help="End when all is counted; implied where there is no terminal.")
@options.as_json
@click.option(
    "--dir",
    "folder",
    type=options.FOLDER,
    metavar="DIR",
    help="Keep everything in DIR (empty or new), not a temporary one.",
)
def command(headless: bool, as_json: bool, folder: Path | None) -> None:
    """Replay 60,000 real recommendation impressions through an embedded broker, a worker and an embedded ClickHouse.

    Tiles show what the database holds while it runs. Kill the worker if you like: it is started again and the totals
    stay exact. With --json the results are printed as {"results": [...]}, rows as in `results --json`.
    """
    stay = not (headless or as_json) and sys.stderr.isatty()
    with StopRequest() as stop, demo_folder(folder) as place:
        note(ABOUT)
        note(f"Everything is in {place}; the worker's process id is in {place / 'worker.pid'}.")
        try:
            rows = _on_screen(place, stop) if stay else run_demo(place, show=_Lines(), stop=stop)
        except Stopped as stopped:
            note("Stopped.")
            raise click.exceptions.Exit(0 if stay else stopped.exit_code) from None
    if as_json:
        print_json({"results": rows})


def _on_screen(place: Path, stop: StopRequest) -> list[dict[str, object]]:
    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        return run_demo(place, show=lambda view: live.update(_picture(view, place)), stop=stop, stay=True)


def _picture(view: View, place: Path) -> Group:
    tiles = table_of(_tiles(view), TILES, title="Totals, and CTR of the last 5 min and 1 h")
    return Group(tiles, Text(_state(view)), Text(_hint(view, place), style="dim"))


def _tiles(view: View) -> list[dict[str, object]]:
    recent = {(row["experiment"], row["arm"], row["window"]): row["ctr"] for row in view.rolling}
    return [
        {
            "experiment": row["experiment"],
            "arm": row["arm"],
            "impressions": row["impressions"],
            "clicked": row["clicked_impressions"],
            "ctr": _percent(row["ctr"]),
            "ctr 5m": _percent(recent.get((row["experiment"], row["arm"], "5m"))),
            "ctr 1h": _percent(recent.get((row["experiment"], row["arm"], "1h"))),
        }
        for row in view.results
    ]


def _percent(rate: float | None) -> str | None:
    return None if rate is None else f"{rate:.2%}"


def _state(view: View) -> str:
    counted = f"{view.counted:,} of {view.sent:,} events sent are counted"
    restarts = f", worker restarted {view.restarts} times" if view.restarts else ""
    waiting = f". The worker: {view.news}" if view.news else ""
    return counted + restarts + waiting


def _hint(view: View, place: Path) -> str:
    if not view.is_complete:
        return "Ctrl-C ends it."
    return f'All is counted. Ask: liftstream sql --into {place} "SELECT * FROM arm_totals". Ctrl-C ends it.'


class _Lines:
    """Progress without a terminal: a line whenever the state has changed by much."""

    def __init__(self) -> None:
        self._said = ("", -1, -1)

    def __call__(self, view: View) -> None:
        now = (view.news, view.sent // 40_000, view.counted // 20_000)
        if now != self._said or view.is_complete:
            self._said = now
            note(_state(view))
