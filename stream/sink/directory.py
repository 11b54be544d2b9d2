"""One process per embedded database: a lock on its directory."""

import fcntl
import os
from pathlib import Path

from stream.errors import ConfigurationError, DirectoryInUse

LOCK_FILE = "liftstream.lock"


class DirectoryLock:
    """Holds DIR/liftstream.lock from construction to release(), or until the process ends, however it ends.

    Raises DirectoryInUse, naming the owner's process id, and ConfigurationError when the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigurationError(
                f"The directory {directory} cannot be used: {error.strerror}."
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(self._file, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise DirectoryInUse(
                f"The directory {directory} is in use by process {owner}: stop that process or use another directory."
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let another process in."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
