"""docker-compose.yml and Dockerfile name only what exists: commands, options, settings, files."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream.cli import SUMMARIES, main
from stream.contracts.definitions import load_experiments
from stream.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "liftstream")
VARIABLES = {PREFIX + name.upper() for name in Settings.model_fields}


def filled_in(value: str) -> str:
    """${NAME:-default} as its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_the_services_are_there() -> None:
    assert {"kafka", "clickhouse", *OURS} == set(SERVICES)
    assert OURS == ["migrate", "traffic", "worker"]


@pytest.mark.parametrize("name", OURS)
def test_commands_and_their_options_exist(name: str) -> None:
    word, *options = SERVICES[name]["command"]
    assert word in SUMMARIES
    command = main.get_command(None, word)  # type: ignore[arg-type]
    command.make_context(word, list(options), resilient_parsing=False)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", OURS)
def test_variables_are_settings_with_valid_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {key: filled_in(value) for key, value in SERVICES[name]["environment"].items()}
    assert set(variables) <= VARIABLES
    for key, value in variables.items():
        if key != "LIFTSTREAM_EXPERIMENTS":  # a folder inside the container
            monkeypatch.setenv(key, value)
    Settings.load()


def test_the_dockerfile_sets_only_settings() -> None:
    named = set(re.findall(rf"{PREFIX}\w+", (ROOT / "Dockerfile").read_text()))
    assert named <= VARIABLES


def test_what_the_dockerfile_copies_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for line in re.findall(r"^COPY (?!--)(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored


def test_the_mounted_experiments_are_valid_and_are_those_of_the_traffic() -> None:
    experiments = load_experiments(ROOT / "deploy" / "experiments")
    arms = {word.split("=")[1] for word in SERVICES["traffic"]["command"] if word.startswith("--ctr=")}
    (simulated,) = [experiment for experiment in experiments if experiment.name == "simulated"]
    assert set(simulated.arms) == arms


def test_mounts_are_declared() -> None:
    named = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())}
    assert {name for name in named if not name.startswith(".")} == set(COMPOSE["volumes"])
    assert all((ROOT / name).exists() for name in named if name.startswith("."))


def test_services_wait_for_services_that_exist_and_can_be_healthy() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES
            assert how["condition"] != "service_healthy" or "healthcheck" in SERVICES[other]


def test_the_health_check_asks_the_workers_port_in_valid_python() -> None:
    *_, program = SERVICES["worker"]["healthcheck"]["test"]
    compile(program, "healthcheck", "exec")
    assert f":{Settings.model_fields['web_port'].default}/readyz" in program


def test_the_commands_in_its_comments_exist() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for line in re.findall(r"^#\s+docker compose (?:exec \w+ )liftstream (.*)$", text, re.MULTILINE):
        assert shlex.split(line)[0] in SUMMARIES


def test_only_the_loopback_is_published() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
