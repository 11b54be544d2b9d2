"""A server that speaks S3 over HTTP, with conditional writes: moto, in memory."""

import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from urllib.error import URLError

from tests.services.process import ServerProcess, free_port

BUCKET = "checkpoints"


class S3Server:
    """Runs on a free port with one empty bucket; `environment` is what a worker needs to reach it."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        port = self.endpoint.rpartition(":")[2]
        self.process = ServerProcess(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port],
            answers=self._answers, log=folder / "s3.log",
        )  # fmt: skip
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }

    def __enter__(self) -> "S3Server":
        self.process.start()
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT")).close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=1).close()
        except (URLError, OSError):
            return False
        return True
