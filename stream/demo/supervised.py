"""A worker process that is started again when it dies."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from stream.access import PREFIX
from stream.errors import Unavailable

STOP_SECONDS = 15.0
SOON_SECONDS = (
    30.0  # a worker that dies sooner than this after its start has not really run, or started slowly
)
MAX_EARLY_DEATHS = 3
# Our own lines; those of Faust and its kind say nothing to who watches a demo.
_OURS = re.compile(r"(?:[\d-]+ [\d:,]+ [A-Z]+ stream[\w.]*|liftstream): (.+)")


class SupervisedWorker:
    """`liftstream worker` as a child. Call `check` often. FOLDER/worker.pid has its process id, worker.log its words.

    settings: its LIFTSTREAM_* variables; those of this process are not passed on, nor is a liftstream.toml.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.pid_file = folder / "worker.pid"
        self.log_file = folder / "worker.log"
        self.restarts = 0
        self._folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._environment = {**inherited, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._early_deaths = 0

    def start(self) -> None:
        """Start it and write down its process id."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stream.cli", "worker"],
                cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._started_at = time.monotonic()
        self.pid_file.write_text(f"{self._process.pid}\n")

    def check(self) -> None:
        """Start it again if it died. Raises Unavailable when it keeps dying right after its start."""
        if self._process is None or self._process.poll() is None:
            return
        early = time.monotonic() - self._started_at < SOON_SECONDS
        self._early_deaths = self._early_deaths + 1 if early else 0
        if self._early_deaths >= MAX_EARLY_DEATHS:
            raise Unavailable(f"The worker does not start: {self.last_words()} (all of it: {self.log_file})")
        self.restarts += 1
        self.start()

    def last_words(self) -> str:
        """The last message of ours in its log, without time, level and logger."""
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        ours = (found[1].strip() for line in reversed(lines) if (found := _OURS.fullmatch(line)))
        return next(ours, "it is starting")

    def stop(self) -> None:
        """End it: asked first, then killed."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.pid_file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
