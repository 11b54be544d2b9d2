"""The demo: an embedded broker, a supervised worker, the sample replayed through them, and looks at the database."""

import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from stream.access import OPEN_TO_ALL, PREFIX
from stream.demo.events import EXPERIMENTS, demo_events
from stream.demo.look import Look, View
from stream.demo.replay import Replay
from stream.demo.stop import StopRequest
from stream.demo.supervised import SupervisedWorker
from stream.errors import ConfigurationError, Unavailable
from stream.local.broker import EmbeddedBroker
from stream.settings import Settings
from stream.topics import create_topics

REPLAY_SECONDS = 20.0
LOOK_SECONDS = 0.5
PATIENCE_SECONDS = 300.0  # without any progress; a first start compiles kernels


def run_demo(
    folder: Path, *, show: Callable[[View], None], stop: StopRequest, stay: bool = False
) -> list[dict[str, Any]]:
    """Run until all events are counted and return the results; `stay` goes on showing until it is interrupted.

    Children end with this call, whatever ends it. Raises Stopped when asked to stop, and Unavailable when nothing moves
    for PATIENCE_SECONDS.
    """
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(log_path=folder / "broker.log"))
        settings = _settings(folder, broker.url)
        stop.check()
        create_topics(Settings.load(**settings))
        stop.check()
        worker = stack.enter_context(SupervisedWorker(folder, _as_variables(settings)))
        events = demo_events()
        replay = stack.enter_context(Replay(events, broker.url, settings["topic_prefix"], REPLAY_SECONDS))
        look = Look(folder / "clickhouse", len(events))
        patience = _Patience()
        while True:
            stop.check()
            worker.check()
            replay.check()
            view = look(sent=sum(replay.sent.values()), worker=worker)
            show(view)
            if view.is_complete and not stay:
                return look.with_metrics()
            if not view.is_complete:
                patience.check(view)
            time.sleep(LOOK_SECONDS)


@contextmanager
def demo_folder(chosen: Path | None) -> Iterator[Path]:
    """`chosen`, made if need be, or a temporary folder. Raises ConfigurationError when it holds something already."""
    if chosen is None:
        with tempfile.TemporaryDirectory(prefix="liftstream-demo-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    chosen = chosen.absolute()
    try:
        chosen.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"The folder {chosen} cannot be made: {error.strerror}.") from None
    if any(chosen.iterdir()):
        raise ConfigurationError(
            f"{chosen} is not empty: the demo starts anew each time, so name an empty folder."
        )
    yield chosen


def _settings(folder: Path, broker: str) -> dict[str, Any]:
    """Everything that matters, so that neither the environment nor a file decides how the demo runs."""
    return {
        "broker": broker,
        **OPEN_TO_ALL,
        "clickhouse_url": f"chdb://{folder}/clickhouse",
        "checkpoints": f"file://{folder}/checkpoints",
        "experiments": str(EXPERIMENTS),
        "topic_prefix": "rec.",
        "topic_partitions": 2,
        "topic_replicas": 1,
        "allowed_lateness": "14d",  # the sample's week passes in seconds, so a moment's delay is hours of event time
        "web_port": _free_port(),
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _as_variables(settings: Mapping[str, Any]) -> dict[str, str]:
    return {PREFIX + name.upper(): str(value) for name, value in settings.items() if value is not None}


class _Patience:
    """Ends when nothing moves."""

    def __init__(self) -> None:
        self._last: tuple[int, int, int] = (-1, -1, -1)
        self._moved_at = time.monotonic()

    def check(self, view: View) -> None:
        now = (view.sent, view.counted, view.restarts)
        if now != self._last:
            self._last, self._moved_at = now, time.monotonic()
        elif time.monotonic() - self._moved_at > PATIENCE_SECONDS:
            raise Unavailable(
                f"Nothing moved for {PATIENCE_SECONDS:g} s; {view.counted:,} of {view.sent:,} events are counted. "
                f"{view.news}"
            )
