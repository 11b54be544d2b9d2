"""One session of workers on real services: rounds of every kind of takeover, and at the end the count."""

import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

from benchmarks.services import Services
from benchmarks.takeover.crew import Member, crew
from benchmarks.takeover.kinds import PATIENCE_SECONDS, Scene, added, frozen, handed_over, killed, restarted
from benchmarks.takeover.steps import Steps
from benchmarks.takeover.traffic import Traffic, traffic
from benchmarks.workload import PARTITIONS
from stream.local.database import open_database
from stream.sink.queries import Database, ledger_imbalances

NAME = "takeover"
WORKERS = 2  # with three, Faust's sticky assignor may leave the newest without any of four partitions
KINDS = ("kill", "freeze", "hand-over", "restart")
SETTLE_SECONDS = 60
Found = dict[str, list[float]]


def measure(
    services: Services,
    folder: Path,
    found: Found,
    *,
    rounds: int,
    per_second: int,
    users: int,
    kinds: Collection[str],
) -> list[str]:
    """Add seconds by kind to `found`, round by round; what is wrong with the count, one sentence each."""
    environment = services.environment(NAME)
    migrate = [sys.executable, "-m", "stream.cli", "migrate"]
    subprocess.run(migrate, env=environment, check=True, stdout=sys.stderr)
    with crew(environment, folder, WORKERS) as members:
        with traffic(environment["LIFTSTREAM_BROKER"], f"{NAME}.", per_second, users) as sent:
            scene = _begin(members, Path(environment["LIFTSTREAM_CHECKPOINTS"]), users)
            for number in range(rounds):
                for kind, seconds in _round(scene, members[number % WORKERS], kinds):
                    found.setdefault(kind, []).extend(seconds)
        return _check(environment["LIFTSTREAM_CLICKHOUSE_URL"], sent)


def _begin(members: list[Member], checkpoints: Path, users: int) -> Scene:
    for member in members:
        member.start()
    scene = Scene(members, Steps(checkpoints, PARTITIONS), lambda: time.time_ns() // 1_000_000)
    scene.steps.wait_for(
        lambda steps: steps.records >= 2 * users, seconds=PATIENCE_SECONDS, what="That all users are counted"
    )
    counted_ms = scene.now_ms()
    scene.steps.wait_for(
        lambda steps: steps.are_saved_since(counted_ms), seconds=PATIENCE_SECONDS, what="A snapshot of all"
    )
    scene.settle(members)
    return scene


def _round(scene: Scene, victim: Member, kinds: Collection[str]) -> list[tuple[str, list[float]]]:
    """Every kind once; the victim is back at the end of each."""
    found: Found = {}
    if "kill" in kinds:
        found |= killed(scene, victim)
        found |= added(scene, victim)
    if "freeze" in kinds:
        found |= frozen(scene, victim)
    if "hand-over" in kinds:
        found |= handed_over(scene, victim)
        found |= added(scene, victim)
    if "restart" in kinds:
        victim.stays_in_group = True  # of the process that SIGKILL brings up, and SIGTERM ends
        found |= restarted(scene, victim, signal.SIGKILL)
        victim.stays_in_group = False
        found |= restarted(scene, victim, signal.SIGTERM)
    return list(found.items())


def _check(url: str, sent: Traffic) -> list[str]:
    """Compare the ledger with what was sent, once everything has had time to arrive."""
    with open_database(url) as db:
        deadline = time.monotonic() + SETTLE_SECONDS
        while (consumed := _consumed(db)) != sent.sent and time.monotonic() < deadline:
            time.sleep(0.5)
        wrong = [f"The ledger does not balance: {row}" for row in ledger_imbalances(db)]
        if consumed != sent.sent:
            wrong.append(f"{sent.sent} events were sent and {consumed} counted.")
        shown = db.query("SELECT sum(impressions) FROM arm_totals WHERE slice = 'all'").rows[0][0]
        if shown != sent.impressions:
            wrong.append(f"{sent.impressions} impressions were sent and arm_totals shows {shown}.")
        return wrong


def _consumed(db: Database) -> int:
    return int(db.query("SELECT sum(consumed) FROM ledger").rows[0][0])
