"""A webhook receiver as docs/decisions.md tells one to write it: it checks the signature and answers as it is told."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "a secret that both know"


def is_authentic(headers: Mapping[str, str], body: bytes, secret: str = SECRET) -> bool:
    """What a receiver checks: the signature over timestamp and body, and that it is not an old one played again."""
    timestamp = headers.get("Liftstream-Timestamp", "")
    signed = timestamp.encode() + b"." + body
    expected = "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    is_fresh = timestamp.isdigit() and abs(time.time() - int(timestamp)) < 300
    return is_fresh and hmac.compare_digest(expected, headers.get("Liftstream-Signature", ""))


@dataclass
class Received:
    """One request. at: monotonic seconds."""

    key: str
    authentic: bool
    body: dict[str, Any]
    at: float = field(default_factory=time.monotonic)


class ReceiverServer:
    """Answers 204, but first with what `answers` holds. Use it in a `with`."""

    def __init__(self, *answers: int) -> None:
        self.received: list[Received] = []
        self.answers = list(answers)
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = dict(self.headers.items())
                key = headers.get("Idempotency-Key", "")
                owner.received.append(Received(key, is_authentic(headers, body), json.loads(body)))
                self.send_response(owner.answers.pop(0) if owner.answers else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "ReceiverServer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
