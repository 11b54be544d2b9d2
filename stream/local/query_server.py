"""Answers questions about an embedded database that this process owns, for commands run beside it.

It speaks ClickHouse's HTTP interface on the loopback, read-only, so that clickhouse-connect, curl and BI tools can
ask too. Address and token stand in DIR/query.json, readable by the owner only.
"""

import base64
import hmac
import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from stream.errors import ConfigurationError
from stream.sink.connect import Connection
from stream.sink.readonly import READONLY, question_of, says_format

ADDRESS_FILE = "query.json"
USER = "liftstream"
_AUTHENTICATION_FAILED = 516
_MAX_QUESTION_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Address:
    """Where an owner of a directory answers questions. token: the password of USER."""

    host: str
    port: int
    token: str
    pid: int

    @classmethod
    def of(cls, directory: Path) -> "Address | None":
        """What the owner of the directory wrote; None without a file."""
        try:
            return cls(**json.loads((directory / ADDRESS_FILE).read_text("utf-8")))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        """Replace the file at once, with mode 0600 from the start."""
        draft = directory / f".{ADDRESS_FILE}.{self.pid}"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(self), file)
        draft.replace(directory / ADDRESS_FILE)


class QueryServer:
    """Answers from construction to close(), in threads of its own with a read-only client of its own."""

    def __init__(self, connection: Connection, directory: Path) -> None:
        client = connection.read_only_client()
        token = secrets.token_urlsafe(24)
        handler = type("Handler", (_Handler,), {"client": client, "token": token})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._directory = directory
        self.address = Address("127.0.0.1", self._server.server_address[1], token, os.getpid())
        self._thread = Thread(target=self._server.serve_forever, name="query-server", daemon=True)
        self._thread.start()
        self.address.write(directory)

    def close(self) -> None:
        """Stop answering and remove the address."""
        (self._directory / ADDRESS_FILE).unlink(missing_ok=True)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """ClickHouse's HTTP interface as far as questions need it: ?query=, the body, param_*, default_format."""

    client: ClassVar[Client]
    token: ClassVar[str]
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: questions are nobody's business."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MAX_QUESTION_BYTES:
            self.close_connection = True
            return self._refuse(READONLY, "The question is too long.")
        body = self.rfile.read(length).decode("utf-8", "replace")
        options = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        if not self._is_authorised(options):
            return self._refuse(_AUTHENTICATION_FAILED, "The token is wrong.", status=403)
        try:
            statement = question_of(self.client, "\n".join(filter(None, (options.get("query"), body))))
            reply = self.client.raw_query(
                statement,
                parameters={k[6:]: _unescape(v) for k, v in options.items() if k.startswith("param_")},
                fmt=None if says_format(statement) else options.get("default_format", "TabSeparated"),
            )
        except ConfigurationError as error:
            return self._refuse(READONLY, str(error))
        except DatabaseError as error:
            return self._refuse(error.code or 0, str(error))
        return self._send(200, reply)

    def _is_authorised(self, options: dict[str, str]) -> bool:
        """The token as password of basic authentication, as bearer token, as X-ClickHouse-Key or as ?password=."""
        given = self.headers.get("X-ClickHouse-Key") or options.get("password") or ""
        kind, _, credentials = (self.headers.get("Authorization") or "").partition(" ")
        if kind == "Bearer":
            given = credentials
        if kind == "Basic":
            with suppress(ValueError):
                given = base64.b64decode(credentials).decode().partition(":")[2]
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _refuse(self, code: int, message: str, status: int = 500) -> None:
        text = message if message.startswith("Code: ") else f"Code: {code}. DB::Exception: {message}"
        self._send(status, text.encode(), {"X-ClickHouse-Exception-Code": str(code)})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        with suppress(ConnectionError):  # whoever asked has gone
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


def _unescape(value: str) -> str:
    """Undo the escaping of a string parameter; the client escapes it again for the engine."""
    return re.sub(
        r"\\(.)", lambda match: {"t": "\t", "n": "\n"}.get(match[1], match[1]), value, flags=re.DOTALL
    )
