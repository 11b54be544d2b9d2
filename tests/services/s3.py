"""A real S3 server, S3Proxy: signed requests, conditional writes, objects as files in a folder."""

import urllib.request
import uuid
from pathlib import Path
from urllib.error import HTTPError, URLError

from tests.services.downloads import s3proxy_jars
from tests.services.process import ServerProcess, free_port
from tests.services.tools import command_for

BUCKET = "checkpoints"
KEY, SECRET = "liftstream", "the secret of the tests"
JVM = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")  # quick to start

PROPERTIES = """\
s3proxy.endpoint={endpoint}
s3proxy.authorization=aws-v4
s3proxy.identity={key}
s3proxy.credential={secret}
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir={data}
"""
LOGGING = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %p %m%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
"""


class S3Server:
    """Runs on a free port with one bucket, whose objects live in `folder` across restarts.

    `environment` is what a worker needs to reach it. Raises ServiceMissing where it cannot run.
    """

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        data = folder / "data"
        (data / BUCKET).mkdir(parents=True, exist_ok=True)
        properties, logging = folder / "s3proxy.properties", folder / "logback.xml"
        properties.write_text(PROPERTIES.format(endpoint=self.endpoint, key=KEY, secret=SECRET, data=data))
        logging.write_text(LOGGING)
        jars = s3proxy_jars()
        container = f"s3-{uuid.uuid4().hex[:12]}"
        java = command_for("java", writable=folder, readable=jars, container=container)
        self.process = ServerProcess(
            [*java, *JVM, f"-Dlogback.configurationFile={logging}", "-cp", f"{jars}/*",
             "org.gaul.s3proxy.Main", "--properties", str(properties)],
            answers=self._answers, log=folder / "s3.log", container=container,
        )  # fmt: skip

    def __enter__(self) -> "S3Server":
        self.start()
        return self

    def __exit__(self, *why: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start and wait until it answers, on the same port and with the same objects as before."""
        self.process.start()

    def kill(self) -> None:
        """A crash; what it has acknowledged stays."""
        self.process.kill()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=5).close()
        except HTTPError:
            return True  # it refuses who does not sign
        except (URLError, OSError):
            return False
        return True
