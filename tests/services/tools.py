"""Where a tool comes from: this machine, else a container image when a Docker engine answers."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

IMAGES = {
    "java": "docker.io/library/eclipse-temurin:21-jre",
    "mvn": "docker.io/library/maven:3-eclipse-temurin-21",
    "npm": "docker.io/library/node:22-slim",
}


class ServiceMissing(Exception):
    """A real service cannot be run here; the message says what is missing."""


def command_for(
    tool: str, *, writable: Path, readable: Path | None = None, container: str | None = None
) -> list[str]:
    """The words that start `tool`. A container keeps both folders' paths and uses the network of the host."""
    if shutil.which(tool) and (tool != "mvn" or shutil.which("java")):
        return [tool]
    if not docker_answers():
        raise ServiceMissing(f"neither `{tool}` nor a Docker engine was found")
    words = ["docker", "run", "--rm", "--init", "--network=host", f"--user={os.getuid()}:{os.getgid()}"]
    words += [
        "--env=HOME=/tmp",
        "--env=MAVEN_CONFIG=/tmp/.m2",
        f"--volume={writable}:{writable}",
        f"--workdir={writable}",
    ]
    if readable is not None:
        words.append(f"--volume={readable}:{readable}:ro")
    if container is not None:
        words.append(f"--name={container}")
    return [*words, IMAGES[tool], tool]


@cache
def docker_answers() -> bool:
    """Whether a Docker engine is there."""
    if not shutil.which("docker"):
        return False
    try:
        info = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return False
    return info.returncode == 0
