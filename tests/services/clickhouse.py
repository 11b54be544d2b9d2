"""A real ClickHouse server. By hand: `python -m tests.services.clickhouse [--folder DIR] [--port N]`."""

import argparse
import shutil
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.services import clickhouse_child
from tests.services.downloads import clickhouse_library
from tests.services.process import ServerProcess, free_port

USER, PASSWORD = "liftstream", "correct-horse"

CONFIG = """\
<clickhouse>
  <users_config>{folder}/users.xml</users_config>
  <mlock_executable>false</mlock_executable>
</clickhouse>
"""
# `default` is the server's own session; only liftstream may do anything from outside with a password.
USERS = """\
<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default><password></password><networks><ip>127.0.0.1</ip></networks></default>
    <{user}>
      <password>{password}</password><networks><ip>127.0.0.1</ip></networks><access_management>1</access_management>
    </{user}>
  </users>
</clickhouse>
"""


class ClickHouseServer:
    """One server on free ports of the loopback (HTTP and native), with a user and a password.

    Its data lives in `folder` (default: a temporary one) across restarts. `options` are further words of its
    command. Raises ServiceMissing where it cannot run.
    """

    user, password = USER, PASSWORD

    def __init__(
        self, folder: Path | None = None, *, port: int | None = None, options: Sequence[str] = ()
    ) -> None:
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="clickhouse-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.http_port, self.native_port = port or free_port(), free_port()
        config = self.folder / "config.xml"
        config.write_text(CONFIG.format(folder=self.folder))
        (self.folder / "users.xml").write_text(USERS.format(user=USER, password=PASSWORD))
        arguments = [
            f"--config-file={config}",
            f"--path={self.folder}/data",
            f"--http_port={self.http_port}",
            f"--tcp_port={self.native_port}",
            "--listen_host=127.0.0.1",
            *options,
        ]
        child = [sys.executable, clickhouse_child.__file__, str(clickhouse_library()), *arguments]
        self.process = ServerProcess(child, answers=self._answers, log=self.folder / "clickhouse.log")

    def __enter__(self) -> "ClickHouseServer":
        self.start()
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL with user, password and the database `liftstream`."""
        return self.url_of("liftstream")

    def url_of(self, database: str, *, password: str = PASSWORD) -> str:
        """The URL of a database, perhaps with a wrong password."""
        return f"http://{USER}:{password}@127.0.0.1:{self.http_port}/{database}"

    def start(self) -> None:
        """Start and wait until it answers."""
        self.process.start()

    def stop(self) -> None:
        """End it; the data stays."""
        self.process.stop()

    def kill(self) -> None:
        """A crash; the data stays."""
        self.process.kill()

    def restart(self) -> None:
        """Stop (if it runs) and start on the same ports with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it for good; a temporary folder is deleted."""
        self.kill()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/ping", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def main() -> None:
    """Run a server until Ctrl-C and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the data here")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ClickHouseServer(options.folder, port=options.port) as server:
        print(server.url, flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
