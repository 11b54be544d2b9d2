"""The group: its list of commands, its speed, and how errors are said."""

import importlib
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from stream.cli import SUMMARIES
from tests.cli.conftest import Run

COMMANDS_DOC = Path(__file__).parents[2] / "docs" / "commands.md"


def command_of(name: str) -> click.Command:
    command: click.Command = importlib.import_module(f"stream.cli.{name}").command
    return command


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_command_exists_under_its_name_and_summary(name: str) -> None:
    command = command_of(name)
    assert command.name == name
    assert command.short_help == SUMMARIES[name]


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_command_and_option_is_in_the_docs(name: str) -> None:
    text = COMMANDS_DOC.read_text()
    section = re.search(rf"^## `liftstream {name}.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"docs/commands.md has no section on {name}"
    missing = [
        option
        for parameter in command_of(name).params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if f"`{option}" not in section[0]
    ]
    assert missing == []


def test_the_docs_describe_no_other_command() -> None:
    described = re.findall(r"^## `liftstream (\w+)", COMMANDS_DOC.read_text(), re.MULTILINE)
    assert described == list(SUMMARIES)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from stream.cli import main; main(['--help'], standalone_mode=False);"
        "print([name for name in ('numpy', 'numba', 'pydantic', 'kafka', 'faust', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert "Commands:" in done.stdout


def test_the_first_process_of_a_container_ends_when_it_is_told_to_while_it_imports() -> None:
    container = ["unshare", "--map-root-user", "--pid", "--fork"]
    if not shutil.which("unshare") or subprocess.run([*container, "true"], check=False).returncode:
        pytest.skip("a process namespace cannot be made here")
    program = (
        "import importlib, os, signal; from stream.cli import main;"
        "importlib.import_module = lambda name: os.kill(os.getpid(), signal.SIGTERM);"
        "main(['worker'])"
    )
    done = subprocess.run([*container, sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM


def test_an_unknown_command_names_the_nearest(run: Run) -> None:
    result = run("wroker")
    assert result.exit_code == 2
    assert "There is no command wroker. Did you mean worker?" in result.stderr


def test_a_wrong_setting_is_one_line_and_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFTSTREAM_BROKR", "kafka://a:1")
    result = run("migrate")
    assert result.exit_code == 1
    assert (
        result.stderr == "liftstream: There is no setting LIFTSTREAM_BROKR: did you mean LIFTSTREAM_BROKER?\n"
    )


def test_a_broken_experiment_file_names_file_and_key(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ranker.toml").write_text("kontrol = 'a'")
    result = run("experiments", "check", tmp_path)
    assert result.exit_code == 1
    assert "ranker.toml: kontrol" in result.stderr


def test_experiment_files_are_checked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ranker.toml").write_text("control = 'a'\n[arms.a]\n[arms.b]")
    result = run("experiments", "check", tmp_path)
    assert result.exit_code == 0
    assert "ranker" in result.stdout


@pytest.mark.parametrize(
    "line",
    [
        "stats --alpha nan", "simulate --seconds nan", "simulate --rate inf", "experiments plan --users-per-day inf",
        "experiments plan --mean nan",
    ],
)  # fmt: skip
def test_what_is_not_a_number_is_in_no_range(run: Run, line: str) -> None:
    result = run(*line.split())
    assert result.exit_code == 2
    assert "is not a finite number" in result.stderr
