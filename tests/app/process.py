"""`liftstream worker` as a child process."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.services.kafka import KafkaServer
from tests.services.process import free_port

SECONDS = 240  # a cold machine compiles the kernels first


def worker_settings(
    kafka: KafkaServer, clickhouse_url: str, folder: Path, unique: str, **more: str
) -> dict[str, str]:
    """What a quick worker of a test's own is given: topics, a group, a port and checkpoints in `folder`."""
    return {
        "broker": f"kafka://{kafka.bootstrap}",
        "clickhouse_url": clickhouse_url,
        "checkpoints": str(folder / "checkpoints"),
        "topic_prefix": f"{unique}.",
        "topic_partitions": "2",
        "group": unique,
        "web_port": str(free_port()),
        "step_seconds": "0.2",
        **more,
    }


class WorkerProcess:
    """One worker with settings of its own, as a child process."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.log = folder / "worker.log"
        self._folder = folder
        self._settings = {f"LIFTSTREAM_{name.upper()}": value for name, value in settings.items()}
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        others = {name: value for name, value in os.environ.items() if not name.startswith("LIFTSTREAM_")}
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "stream.cli", "worker"],
                cwd=self._folder, env=others | self._settings, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        assert self.child is not None
        self.child.kill()
        self.child.wait()

    def stop(self) -> int:
        assert self.child is not None
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(60)

    def wait_for(self, condition: Callable[[], Any], seconds: float = SECONDS) -> None:
        """Until it is so; the worker must live meanwhile."""
        assert self.child is not None
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.child.poll() is None, self.log.read_text()[-3_000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3_000:]
            time.sleep(0.2)

    def memory_bytes(self, field: str = "VmRSS") -> int:
        """Resident memory now, or at its largest (VmHWM); Linux only."""
        assert self.child is not None
        lines = Path(f"/proc/{self.child.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def ask(web_port: str, page: str) -> tuple[int, str]:
    """Status and text of a worker's page; status 0 when nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{web_port}/{page}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def has_written_all(web_port: str) -> bool:
    """Whether nothing waits for ClickHouse: a flush writes one table after the other."""
    return "\nliftstream_outbox_rows 0.0\n" in ask(web_port, "metrics")[1]
