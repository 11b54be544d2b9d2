"""The call of a Confluent schema registry that peers need: the schema of an id."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from stream.contracts.topics import Topic
from stream.contracts.versions import newest


@contextmanager
def schema_registry() -> Iterator[str]:
    """Answer on a free port of the loopback; gives the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        schemas = {
            f"/schemas/ids/{version.schema_id}": version.schema for version in (newest(t) for t in Topic)
        }
        schema = schemas.get(self.path.partition("?")[0])
        content = {"schema": json.dumps(schema)} if schema else {"error_code": 40403, "message": "unknown"}
        body = json.dumps(content).encode()
        self.send_response(200 if schema else 404)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *words: object) -> None:
        """Say nothing."""
