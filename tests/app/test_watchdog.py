import subprocess
import sys
import threading

import pytest

from stream.app.watchdog import Watchdog

HANGING = """
import logging, sys, threading
from stream.app.watchdog import Watchdog
logging.basicConfig(stream=sys.stderr)
Watchdog(lambda: ["the event loop has stood still for 301 s"], every_seconds=0.01)
threading.Event().wait()
"""


def test_it_ends_a_process_that_stands_still_with_a_sentence_and_where_every_thread_was() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "ends itself so that others take over: the event loop has stood still for 301 s." in ended.stderr
    assert "most recent call first" in ended.stderr


def test_it_leaves_alone_what_gets_on(caplog: pytest.LogCaptureFixture) -> None:
    asked, ended = threading.Semaphore(0), []

    def stalls() -> list[str]:
        asked.release()
        return []

    watchdog = Watchdog(stalls, end=lambda: ended.append(True), every_seconds=0.01)
    for _ in range(3):
        assert asked.acquire(timeout=10)
    watchdog.close()
    assert not ended
    assert not caplog.records
