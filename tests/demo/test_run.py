"""The demo as a person runs it: exact counts, also when its worker is killed, and nothing left running."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from stream.demo.run import demo_folder
from stream.demo.supervised import SupervisedWorker
from stream.errors import ConfigurationError, Unavailable
from tests.demo.test_events import CLICKED

PATIENCE_SECONDS = 400.0  # a cold machine compiles first


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Popen[bytes]]:
    """`liftstream demo --headless --json` in tmp_path/demo."""
    command = [
        sys.executable,
        "-m",
        "stream.cli",
        "demo",
        "--headless",
        "--json",
        "--dir",
        str(tmp_path / "demo"),
    ]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = Popen(command, stdout=out, stderr=err)
    yield process
    if process.poll() is None:
        process.terminate()
    process.wait(30)


def until(condition: Callable[[], bool], process: Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)


def check_until_it_raises(worker: SupervisedWorker) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        worker.check()
        time.sleep(0.05)


def worker_pid(folder: Path) -> int:
    return int((folder / "worker.pid").read_text())


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_totals_are_exact_although_the_worker_is_killed(demo: Popen[bytes], tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    until(lambda: any(folder.glob("checkpoints/g*/p*/step/*")), demo)  # the first step is journaled
    os.kill(worker_pid(folder), signal.SIGKILL)
    assert demo.wait(PATIENCE_SECONDS) == 0
    rows = [row for row in json.loads((tmp_path / "out").read_text())["results"] if row["slice"] == "all"]
    assert {(row["experiment"], row["arm"]): row["clicked_impressions"] for row in rows} == CLICKED
    assert {row["impressions"] for row in rows} == {10_000}
    assert {row["exposed_users"] for row in rows} == {10_000}
    assert {m["users"] for row in rows for m in row["metrics"] if m["metric"] == "ctr"} == {10_000}
    assert "worker restarted 1 times" in (tmp_path / "err").read_text()


def test_sigterm_ends_its_children_too(demo: Popen[bytes], tmp_path: Path) -> None:
    until((tmp_path / "demo" / "worker.pid").exists, demo)
    children = children_of(demo.pid)
    assert len(children) == 2
    demo.terminate()
    assert demo.wait(30) == 128 + signal.SIGTERM
    assert not any(map(is_running, children))
    assert (tmp_path / "out").read_text() == ""


def test_a_worker_that_cannot_start_is_given_up_with_its_reason(tmp_path: Path) -> None:
    with SupervisedWorker(tmp_path, {"LIFTSTREAM_BROKR": "kafka://a:1"}) as worker:
        with pytest.raises(Unavailable, match="There is no setting LIFTSTREAM_BROKR"):
            check_until_it_raises(worker)
        assert worker.restarts == 2


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is not empty"), demo_folder(tmp_path):
        pass


def test_a_temporary_folder_is_removed() -> None:
    with demo_folder(None) as folder:
        (folder / "file").touch()
    assert not folder.exists()


def test_the_demo_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "stream.cli", "demo", "--json", "--dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("liftstream: ")
    assert "Traceback" not in done.stderr
