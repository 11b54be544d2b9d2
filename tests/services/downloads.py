"""What the real services need on disk, got once into `.services/` of the repository (git-ignored)."""

import fcntl
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.services.tools import ServiceMissing, command_for

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".services"
KAFKA_VERSION = "4.1.0"  # as in kafka.pom.xml
FLINK_VERSION = "2.3.0"  # as in flink.pom.xml
S3PROXY_VERSION = "4.1.0"  # as in s3proxy.pom.xml
CLICKHOUSE_PACKAGE = "@chdb/lib-linux-x64-gnu"
CLICKHOUSE_VERSION = "26.7.3-stable.1"


def kafka_jars() -> Path:
    """The folder with the broker's jars; ServiceMissing when they cannot be had."""
    return _once(FOLDER / f"kafka-{KAFKA_VERSION}", partial(_download_jars, "kafka"))


def flink_jars() -> Path:
    """The folder with the jars of Flink's SQL client; ServiceMissing when they cannot be had."""
    return _once(FOLDER / f"flink-{FLINK_VERSION}", partial(_download_jars, "flink"))


def s3proxy_jars() -> Path:
    """The folder with the S3 server's jars; ServiceMissing when they cannot be had."""
    return _once(FOLDER / f"s3proxy-{S3PROXY_VERSION}", partial(_download_jars, "s3proxy"))


def clickhouse_library() -> Path:
    """The shared library that holds a whole ClickHouse server; ServiceMissing when it cannot be had."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ServiceMissing("the packaged ClickHouse server needs Linux on x86-64")
    return _once(FOLDER / f"clickhouse-{CLICKHOUSE_VERSION}", _download_clickhouse) / "libchdb.so"


def _download_jars(service: str, folder: Path) -> None:
    shutil.copy(HERE / f"{service}.pom.xml", folder / "pom.xml")
    goal = ["-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    _run([*command_for("mvn", writable=folder), *goal], folder)


def _download_clickhouse(folder: Path) -> None:
    package = f"{CLICKHOUSE_PACKAGE}@{CLICKHOUSE_VERSION}"
    _run([*command_for("npm", writable=folder), "pack", "--silent", package], folder)
    archive = next(folder.glob("*.tgz"))
    with tarfile.open(archive) as tar, (folder / "libchdb.so").open("wb") as library:
        member = tar.extractfile("package/libchdb.so")  # not `extract`, whose filter Python 3.11.2 lacks
        assert member is not None
        shutil.copyfileobj(member, library)
    archive.unlink()


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise ServiceMissing(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-500:]}")


def _once(folder: Path, download: Callable[[Path], None]) -> Path:
    """Fill `folder` unless it is there; several processes may ask, a broken-off download leaves nothing."""
    if folder.exists():
        return folder
    FOLDER.mkdir(exist_ok=True)
    with _alone(folder.with_name(folder.name + ".lock")):
        if folder.exists():
            return folder
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        download(part)
        part.rename(folder)
    return folder


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
