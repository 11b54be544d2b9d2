"""How long after the record that makes a guardrail's rule true its decision is in ClickHouse and at the webhook.

`make reaction`: one worker on real Kafka and ClickHouse, background traffic, and an experiment per
measurement. Each lacks one user to its minimum; that user's impression is the record that makes the rule true.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from clickhouse_connect.driver.client import Client

from benchmarks.services import Services, services
from stream.producer import Producer
from tests.decisions.receiver import SECRET, ReceiverServer
from tests.services.process import free_port
from tests.services.tools import ServiceMissing

NAME = "reaction"
MIN_USERS = 100
PATIENCE_SECONDS = 240
POLL_SECONDS = 0.05
TEXT = """
control = "old"
[arms.old]
[arms.new]
[[guardrails]]
name = "ctr-collapse"
metric = "ctr"
change = "-50%"
min_users = {min_users}
"""


@click.command()
@click.option("--experiments", default=20, show_default=True, help="How many times to measure.")
@click.option("--rate", default=200, show_default=True, help="Impressions a second of other traffic.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(experiments: int, rate: int, as_json: bool) -> None:
    """Measure from the record to the decision; exit 1 when the 95th percentile is above 5 s or one fired twice."""
    try:
        with services() as running, ReceiverServer() as receiver:
            seconds = _measure(running, receiver, experiments, rate)
    except ServiceMissing as why:
        raise click.ClickException(f"This needs real services: {why}.") from None
    report = {
        "experiments": experiments,
        "webhooks": len(receiver.received),
        **{f"to_{name}": _quantiles(values) for name, values in seconds.items()},
    }
    click.echo(
        json.dumps(report) if as_json else "\n".join(f"{key}: {value}" for key, value in report.items())
    )
    is_good = max(_quantiles(values)["p95"] for values in seconds.values()) <= 5
    raise SystemExit(0 if is_good and len(receiver.received) == experiments else 1)


def _measure(running: Services, receiver: ReceiverServer, count: int, rate: int) -> dict[str, list[float]]:
    folder = running.folder / NAME
    (folder / "experiments").mkdir(parents=True)
    names = [f"exp{number:03d}" for number in range(count)]
    for name in names:
        (folder / "experiments" / f"{name}.toml").write_text(TEXT.format(min_users=MIN_USERS))
    with _worker(running, receiver, folder) as is_ready:
        _wait(is_ready)
        with Producer(f"kafka://{running.bootstrap}", topic_prefix=f"{NAME}.") as producer:
            for name in names:
                _send_users(producer, name, range(MIN_USERS - 1))
            producer.flush()
            client = running.client(NAME)
            _wait(lambda: _exposed(client) == 2 * count * (MIN_USERS - 1))
            with _traffic(running, rate):
                return _provoke(producer, client, receiver, names)


def _provoke(
    producer: Producer, client: Client, receiver: ReceiverServer, names: list[str]
) -> dict[str, list[float]]:
    """One after the other, at moments that have nothing to do with the worker's rounds."""
    seconds: dict[str, list[float]] = {"webhook": [], "row": []}
    for name in names:
        time.sleep(random.uniform(0.5, 1.5))
        _send_users(producer, name, range(MIN_USERS - 1, MIN_USERS))
        producer.flush()
        sent_at = time.monotonic()
        _wait(lambda name=name: _has_row(client, name))
        seconds["row"].append(time.monotonic() - sent_at)
        _wait(lambda name=name: any(received.key.startswith(f"{name}/") for received in receiver.received))
        at = next(received.at for received in receiver.received if received.key.startswith(f"{name}/"))
        seconds["webhook"].append(max(0.0, at - sent_at))
    return seconds


def _send_users(producer: Producer, experiment: str, numbers: range) -> None:
    """An impression each; the control's users click every other time, those of the new arm never."""
    at = int(time.time() * 1000) - 1_000
    for number in numbers:
        for arm in ("old", "new"):
            user = f"{experiment}-{arm}-{number}"
            producer.assignment(event_id=f"a-{user}", at=at, user_id=user, experiment=experiment, arm=arm)
            producer.impression(
                event_id=f"i-{user}", at=at + 1, user_id=user, impression_id=f"s-{user}", request_id=f"r-{user}",
                item_id="item", surface="home", position=0, model=arm, model_version="1",
            )  # fmt: skip
            if arm == "old" and number % 2:
                producer.interaction(
                    event_id=f"c-{user}", at=at + 2, user_id=user, impression_id=f"s-{user}", kind="click"
                )


def _exposed(client: Client) -> int:
    return int(
        client.query("SELECT sum(exposed_users) FROM arm_totals WHERE slice = 'all'").result_rows[0][0] or 0
    )


def _has_row(client: Client, experiment: str) -> bool:
    rows = client.query(
        "SELECT count() FROM decisions WHERE experiment = {e:String}", {"e": experiment}
    ).result_rows
    return bool(rows[0][0])


@contextmanager
def _worker(running: Services, receiver: ReceiverServer, folder: Path) -> Iterator[Callable[[], bool]]:
    port = free_port()
    log = folder / "worker.log"
    environment = running.environment(NAME) | {
        "LIFTSTREAM_EXPERIMENTS": str(folder / "experiments"),
        "LIFTSTREAM_WEBHOOK_URL": receiver.url,
        "LIFTSTREAM_WEBHOOK_SECRET": SECRET,
        "LIFTSTREAM_WEB_PORT": str(port),
    }
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "stream.cli", "worker", "--arm"], env=environment, stdout=out, stderr=out
        )
    try:
        yield lambda: "Decided" in log.read_text() and _has_partitions(log)
    finally:
        child.terminate()
        child.wait(60)


def _has_partitions(log: Path) -> bool:
    return "[^--Steps]: Starting" in log.read_text()


@contextmanager
def _traffic(running: Services, rate: int) -> Iterator[None]:
    command = [
        sys.executable, "-m", "stream.cli", "simulate", "--seconds", "3600", "--rate", str(rate), "--users", "20000",
    ]  # fmt: skip
    child = subprocess.Popen(command, env=running.environment(NAME), stdout=subprocess.DEVNULL)
    try:
        time.sleep(5)
        yield
    finally:
        child.kill()
        child.wait()


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise click.ClickException("The worker did not get there in time.")
        time.sleep(POLL_SECONDS)


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        name: round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 2)
        for name, part in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
    }


if __name__ == "__main__":
    main(prog_name="make reaction")
