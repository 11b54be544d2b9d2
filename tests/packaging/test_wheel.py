"""The wheel carries what the code reads at run time."""

import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(
            f"the wheel cannot be built here (no build backend): {done.stderr.strip().splitlines()[-1]}"
        )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        yield archive


def files_under(folder: str, pattern: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob(pattern) if path.is_file()}


def test_schemas_are_inside_the_package(wheel: zipfile.ZipFile) -> None:
    wanted = {f"stream/contracts/{name}" for name in files_under("schemas", "*.avsc")}
    assert wanted
    assert wanted <= set(wheel.namelist())


@pytest.mark.parametrize("pattern", ["*.py", "*.sql", "*.toml", "*.parquet", "py.typed"])
def test_the_package_is_complete(wheel: zipfile.ZipFile, pattern: str) -> None:
    wanted = files_under("stream", pattern)
    assert wanted
    assert wanted <= set(wheel.namelist())


def test_licence_and_notice_are_inside(wheel: zipfile.ZipFile) -> None:
    names = {Path(name).name for name in wheel.namelist()}
    assert {"LICENSE", "NOTICE"} <= names


def test_nothing_else_is_installed(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0].split("-")[0] for name in wheel.namelist()} == {"stream", "liftstream"}


def test_faust_finds_the_transport() -> None:
    (found,) = [point for point in entry_points(group="faust.transports") if point.name == "liftstream"]
    assert found.load().__name__ == "Transport"
