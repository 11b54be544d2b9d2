"""The checkpoint store: named byte strings with one atomic promise, put-if-absent."""

import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions
from obstore.store import LocalStore, from_url

from stream.errors import ConfigurationError, Unavailable

_STAGING = "staging"
_PROBE = "probe"
_ABANDONED = timedelta(days=1)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (
    exceptions.PermissionDeniedError,
    exceptions.UnauthenticatedError,
    exceptions.UnknownConfigurationKeyError,
    exceptions.NotSupportedError,
    exceptions.InvalidPathError,
    PermissionError,
)


class Store(Protocol):
    """What journal, snapshots and identity need. All methods raise Unavailable when it does not answer.

    Paths are relative, separated by `/`. A returned write is durable and seen by every process.
    """

    def create(self, path: str, data: bytes) -> bool:
        """Write `data` unless the path exists; False when it does. Of many callers exactly one gets True."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write or replace, as a whole."""
        ...

    def get(self, path: str) -> bytes | None:
        """The bytes, or None when there is nothing."""
        ...

    def names(self, folder: str, after: str = "") -> list[str]:
        """Sorted paths below a folder, only those greater than the path `after`."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove; a path that is not there is no error."""
        ...


class ObjectStore:
    """A Store in a directory or an object store.

    A directory gets what object stores give by themselves: a write is staged, synced, and only then linked
    under its name, so that a power cut leaves either nothing or the whole.
    """

    def __init__(self, objects: obstore.store.ObjectStore, *, root: Path | None = None) -> None:
        """`root` is the directory behind `objects`, None for a remote store."""
        self._objects = objects
        self._root = root
        self._synced_folders: set[Path] = set()

    def create(self, path: str, data: bytes) -> bool:
        """See Store."""
        try:
            with _errors_named(self._root):
                self._write(path, data, replace=False)
        except exceptions.AlreadyExistsError:
            return False
        return True

    def put(self, path: str, data: bytes) -> None:
        """See Store."""
        with _errors_named(self._root):
            self._write(path, data, replace=True)

    def get(self, path: str) -> bytes | None:
        """See Store."""
        try:
            with _errors_named(self._root):
                return bytes(obstore.get(self._objects, path).bytes())
        except (FileNotFoundError, exceptions.NotFoundError):
            return None

    def names(self, folder: str, after: str = "") -> list[str]:
        """See Store."""
        with _errors_named(self._root):
            chunks = obstore.list(self._objects, folder, offset=after or None)
            return sorted(entry["path"] for chunk in chunks for entry in chunk)

    def delete(self, paths: Iterable[str]) -> None:
        """See Store."""
        for path in paths:
            try:
                with _errors_named(self._root):
                    obstore.delete(self._objects, path)
            except (FileNotFoundError, exceptions.NotFoundError):
                continue

    def refuse_without_put_if_absent(self) -> None:
        """Create an object twice. Raises ConfigurationError if both are taken: all rests on its refusal."""
        path = f"{_PROBE}/{uuid.uuid4().hex}"
        try:
            kept = self.create(path, b"1") and not self.create(path, b"2") and self.get(path) == b"1"
        finally:
            self.delete([path])
        if not kept:
            raise ConfigurationError(
                "The checkpoint store takes an object that is there a second time, so two workers could count the same "
                "records: use one that honours put-if-absent (S3: If-None-Match), or a file:// directory."
            )

    def discard_abandoned_writes(self) -> None:
        """Remove what writers that died in the middle left behind a day ago or earlier."""
        if self._root is None:
            return
        before = datetime.now(UTC) - _ABANDONED
        with _errors_named(self._root):
            staged = [entry for chunk in obstore.list(self._objects, _STAGING) for entry in chunk]
        self.delete(entry["path"] for entry in staged if entry["last_modified"] < before)

    def _write(self, path: str, data: bytes, *, replace: bool) -> None:
        if self._root is None:
            obstore.put(self._objects, path, data, mode="overwrite" if replace else "create")
            return
        staged = f"{_STAGING}/{uuid.uuid4().hex}"
        obstore.put(self._objects, staged, data, mode="overwrite")
        _sync(self._root / staged)
        try:
            obstore.rename(self._objects, staged, path, overwrite=replace)
        except exceptions.AlreadyExistsError:
            self.delete([staged])
            raise
        self._sync_folder((self._root / path).parent)

    def _sync_folder(self, folder: Path) -> None:
        _sync(folder)
        if folder in self._synced_folders:
            return
        # The first write into a folder may have made it and its parents.
        assert self._root is not None
        for parent in folder.parents:
            _sync(parent)
            if parent == self._root:
                break
        self._synced_folders.add(folder)


def open_store(url: str) -> ObjectStore:
    """The store behind `file:///path` (or a plain path), `s3://`, `gs://`, `az://` or `memory://`.

    Raises ConfigurationError for a URL that names no store, Unavailable when it does not answer.
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return _open_directory(Path(unquote(parts.path) if parts.scheme else url))
    try:
        return ObjectStore(from_url(url))
    except (exceptions.BaseError, ValueError) as error:
        raise ConfigurationError(
            f"The checkpoint store {url} cannot be used ({_first_line(error)}): set LIFTSTREAM_CHECKPOINTS "
            "to a URL that starts with file://, s3://, gs://, az:// or memory://."
        ) from error


def _open_directory(path: Path) -> ObjectStore:
    root = path.expanduser().resolve()
    try:
        root.mkdir(parents=True, exist_ok=True)
        store = ObjectStore(LocalStore(root), root=root)
        store.discard_abandoned_writes()
    except (OSError, exceptions.BaseError) as error:
        raise ConfigurationError(
            f"The checkpoint directory {root} cannot be used ({_first_line(error)}): "
            "set LIFTSTREAM_CHECKPOINTS to a directory that this user may write."
        ) from error
    return store


@contextmanager
def _errors_named(root: Path | None) -> Iterator[None]:
    """Leave `exists` and `not found` to the caller, name everything else ours."""
    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.NotFoundError, FileNotFoundError):
        raise
    except _REFUSED as error:
        raise ConfigurationError(
            f"The checkpoint store refuses access ({_first_line(error)}): "
            "check LIFTSTREAM_CHECKPOINTS and its credentials."
        ) from error
    except (exceptions.BaseError, OSError) as error:
        if _is_disk_full(error):
            raise Unavailable(
                f"The disk of the checkpoint store {root} is full: make room, and the worker goes on by itself."
            ) from error
        raise Unavailable(f"The checkpoint store does not answer: {_first_line(error)}") from error


def _is_disk_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) in _FULL or any(f"(os error {code})" in str(error) for code in _FULL)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
