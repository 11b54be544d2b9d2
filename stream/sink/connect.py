"""Connects to ClickHouse: a server by http(s)://user:password@host:port/database, or chDB in a directory by chdb:///path."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from stream.errors import ConfigurationError, Unavailable
from stream.sink.directory import DirectoryLock

DEFAULT_DATABASE = "liftstream"
_AUTHENTICATION_FAILED = {192, 193, 194, 516}  # unknown user, wrong and required password
_ACCESS_DENIED = 497
_RETRY_SECONDS = 0.5
_HOW_TO_WRITE = "write http(s)://user:password@host:port/database or chdb:///path"

Open = Callable[[], Client]
T = TypeVar("T")


@dataclass(slots=True)
class Connection:
    """An open database. `where` names it in messages, without the password.

    Each thread takes a client of its own: a client runs one query at a time, and a read-only one stays so.
    An embedded database is owned by this process until close(); never fork while one is open.
    """

    where: str
    _open: Open
    _lock: DirectoryLock | None = None
    _clients: list[Client] = field(default_factory=list)

    @property
    def is_embedded(self) -> bool:
        """Whether this process owns the database (chDB)."""
        return self._lock is not None

    def client(self) -> Client:
        """A new client of the database; usable as the writer's client_factory."""
        client = self._open()
        if self.is_embedded:  # a forgotten handle would keep the engine, and so the directory, open
            self._clients.append(client)
        return client

    def ask(self, what: Callable[[Client], T]) -> T:
        """Do something with a client of its own.

        Raises Unavailable when ClickHouse stops answering meanwhile, ConfigurationError when it refuses.
        """
        with self._words(), closing(self.client()) as client:
            return what(client)

    def read_only_client(self) -> Client:
        """A new client that cannot change anything. Raises as `ask` does."""
        with self._words():
            client = self.client()
            if client.query("SELECT getSetting('readonly')").result_rows[0][0] == 0:
                client.set_client_setting("readonly", "1")
            return client

    @contextmanager
    def _words(self) -> Iterator[None]:
        """The driver's errors as ours."""
        try:
            yield
        except OperationalError as error:
            raise Unavailable(
                f"ClickHouse at {self.where} stopped answering: check that it runs and try again."
            ) from error
        except DatabaseError as error:
            raise ConfigurationError(f"ClickHouse at {self.where} refuses: {brief(error)}") from error

    def close(self) -> None:
        """Close an embedded database and let go of its directory; a server's clients are closed by their users."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def connect(url: str, *, create: bool = True, timeout_seconds: float = 20.0) -> Connection:
    """Open the database of a URL; a missing one is created unless `create` is false.

    Raises ConfigurationError (malformed URL, wrong password, missing rights, chDB not installed), Unavailable (no
    answer within the time) and DirectoryInUse (another process owns the directory).
    """
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # its errors are raised as well
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # a port that is no number (or part of an unquoted password), half an IPv6 address
        raise ConfigurationError(f"The ClickHouse URL is malformed: {_HOW_TO_WRITE}.") from None
    if parts.scheme == "chdb" and parts.netloc + parts.path:
        return _connect_embedded(embedded_path(url), create)
    if parts.scheme in ("http", "https") and parts.hostname:
        return _connect_server(parts, create, timeout_seconds)
    raise ConfigurationError(
        f"The ClickHouse URL {_without_password(parts)!r} is not understood: {_HOW_TO_WRITE}."
    )


def embedded_path(url: str) -> Path:
    """The directory of a chdb:// URL, absolute; chdb://name/x is relative to the working directory."""
    parts = urlsplit(url)
    return Path(unquote(parts.netloc + parts.path)).expanduser().resolve()


def _connect_embedded(path: Path, create: bool) -> Connection:
    if not create and not path.is_dir():
        raise ConfigurationError(f"There is no database in {path}.")
    lock = DirectoryLock(path)

    def open_client(database: str | None = DEFAULT_DATABASE) -> Client:
        client = clickhouse_connect.get_client(
            interface="chdb", path=str(path), database=database, settings={"async_insert": 0}
        )
        # A misspelt keyword would silently give a database in memory.
        assert getattr(client, "path", None) == str(path)
        return client

    try:
        client = open_client(None)
        ensure_database(client, DEFAULT_DATABASE, create, str(path))
        client.close()
    except BaseException as error:
        lock.release()
        if isinstance(error, ImportError):
            raise ConfigurationError(
                "The embedded database needs chDB: pip install 'liftstream[local]'."
            ) from error
        if isinstance(error, ClickHouseError):
            raise ConfigurationError(f"The database in {path} cannot be opened: {brief(error)}") from error
        raise
    return Connection(f"chdb://{path}", open_client, lock)


def _connect_server(parts: SplitResult, create: bool, timeout_seconds: float) -> Connection:
    database = unquote(parts.path.strip("/")) or DEFAULT_DATABASE
    where = _without_password(parts)

    def open_client(name: str | None = database) -> Client:
        return clickhouse_connect.get_client(
            host=parts.hostname,
            port=parts.port or (8443 if parts.scheme == "https" else 8123),
            interface=parts.scheme,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password or ""),
            database=name or "__default__",
            autogenerate_session_id=False,
            connect_timeout=5,
            send_receive_timeout=60,
        )

    try:
        client = _until(time.monotonic() + timeout_seconds, lambda: open_client(None))
        ensure_database(client, database, create, where)
        client.close()
    except OperationalError as error:
        raise Unavailable(
            f"ClickHouse at {where} did not answer within {timeout_seconds:g} s: check the URL and that it runs."
        ) from error
    except DatabaseError as error:
        if error.code in _AUTHENTICATION_FAILED:
            raise ConfigurationError(
                f"ClickHouse at {where} refused the user or password: correct the URL's user:password."
            ) from error
        raise ConfigurationError(f"ClickHouse at {where} refused the connection: {brief(error)}") from error
    return Connection(where, open_client)


def _until(deadline: float, attempt: Open) -> Client:
    while True:
        try:
            return attempt()
        except OperationalError:
            if time.monotonic() + _RETRY_SECONDS > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def ensure_database(client: Client, database: str, create: bool, where: str) -> None:
    """Look before creating: a user without the right to create is fine where the database exists."""
    known: Any = client.query(
        "SELECT count() FROM system.databases WHERE name = {name:String}", parameters={"name": database}
    ).result_rows
    if known[0][0]:
        return
    if not create:
        raise ConfigurationError(f"There is no liftstream database in {where}.")
    try:
        client.command(f"CREATE DATABASE IF NOT EXISTS {quote_identifier(database)}")
    except DatabaseError as error:
        if error.code == _ACCESS_DENIED:
            raise ConfigurationError(
                f"The database {database!r} does not exist at {where} and this user may not create it: create it "
                "or grant CREATE DATABASE."
            ) from error
        raise


def brief(error: Exception) -> str:
    """The first line of what ClickHouse said, without the driver's preamble and the version."""
    said = str(error).strip() or type(error).__name__
    text = said.rsplit("DB::Exception: ", 1)[-1].splitlines()[0]
    return re.split(r"[:.]? [Ii]n scope |\. \([A-Z_]+\)| \(version | \(for url ", text)[0].strip()


def _without_password(parts: SplitResult) -> str:
    host = parts.netloc.rsplit("@", 1)[-1]
    return f"{parts.scheme}://{host}{parts.path}"
