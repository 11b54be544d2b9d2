"""A server as a child process: started, awaited, stopped and killed by its process id."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def free_port() -> int:
    """A TCP port on the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """Runs `command`; `answers()` tells when it is up. Its output goes to `log`."""

    def __init__(
        self, command: Sequence[str], *, answers: Callable[[], bool], log: Path, container: str | None = None
    ) -> None:
        self._command = [*die_with_us(), *command]
        self._answers = answers
        self._log = log
        self._container = container if command[0] == "docker" else None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._child is None:
            raise RuntimeError("not running")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there, answering or not."""
        return self._child is not None and self._child.poll() is None

    def launch(self) -> None:
        """Start without waiting. From a thread that lives on: the kernel ends the server with that thread."""
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, seconds: float = 60) -> None:
        """Start and wait until it answers; RuntimeError with the end of its log when it does not."""
        self.launch()
        self.wait_until_up(seconds)

    def wait_until_up(self, seconds: float = 60) -> None:
        """Wait until it answers; RuntimeError with the end of its log when it does not."""
        deadline = time.monotonic() + seconds
        while not self._answers():
            if not self.is_running or time.monotonic() > deadline:
                self.kill()
                name = next(word for word in self._command if word not in die_with_us())
                raise RuntimeError(f"{name} did not come up:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.05)

    def terminate(self) -> None:
        """Ask it to end and do not wait."""
        if self._child is not None:
            self._child.terminate()

    def stop(self, seconds: float = 30) -> None:
        """Ask it to end, kill it when it does not; nothing happens when it is not running."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._child = None

    def kill(self) -> None:
        """SIGKILL: what a crash looks like."""
        if self._child is None:
            return
        if self._container is not None:
            subprocess.run(["docker", "kill", self._container], capture_output=True, check=False)
        self._child.kill()
        self._child.wait()
        self._child = None

    def pause(self) -> None:
        """SIGSTOP: alive, connected and silent."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._container is not None:
            action = "pause" if number == signal.SIGSTOP else "unpause"
            subprocess.run(["docker", action, self._container], capture_output=True, check=True)
        elif self._child is not None:
            self._child.send_signal(number)


def die_with_us() -> list[str]:
    """Words before a command that make the kernel end it when a killed test run cannot."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
