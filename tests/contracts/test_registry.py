import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stream.contracts.registry import Registry
from stream.contracts.topics import Topic
from stream.contracts.versions import newest
from stream.errors import ConfigurationError, Unavailable

SCHEMA = newest(Topic.IMPRESSIONS).schema


class RegistryServer:
    """The two calls of a Confluent-compatible registry, in memory."""

    def __init__(self) -> None:
        self.schemas: list[str] = []
        self.failures: list[int] = []  # statuses to answer before it works
        self.authorization: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = int(self.path.removeprefix("/schemas/ids/")) - 1
                if number < len(server.schemas):
                    self.answer(200, {"schema": server.schemas[number]})
                else:
                    self.answer(404, {"error_code": 40403, "message": "Schema not found"})

            def do_POST(self) -> None:
                schema = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["schema"]
                if self.path != "/subjects/rec.impressions-value/versions":
                    self.answer(
                        409, {"error_code": 409, "message": "Schema being registered is incompatible"}
                    )
                    return
                if schema not in server.schemas:
                    server.schemas.append(schema)
                self.answer(200, {"id": server.schemas.index(schema) + 1})

            def answer(self, status: int, content: dict[str, Any]) -> None:
                server.authorization.append(self.headers["Authorization"])
                body = json.dumps(content).encode()
                self.send_response(server.failures.pop(0) if server.failures else status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    running = RegistryServer()
    thread = threading.Thread(target=running.http.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()


def test_a_registered_schema_is_found_by_its_id(server: RegistryServer) -> None:
    registry = Registry(f"http://{server.host}/")
    schema_id = registry.register("rec.impressions-value", SCHEMA)
    assert registry.register("rec.impressions-value", SCHEMA) == schema_id
    assert registry.schema(schema_id) == SCHEMA
    assert registry.schema(99) is None
    registry.close()


def test_user_and_password_are_sent_and_not_shown(server: RegistryServer) -> None:
    registry = Registry(f"http://ann:s3cret@{server.host}")
    registry.schema(1)
    assert server.authorization == ["Basic " + base64.b64encode(b"ann:s3cret").decode()]
    server.failures = [401]
    with pytest.raises(ConfigurationError, match="answers 401") as caught:
        registry.schema(1)
    assert "s3cret" not in str(caught.value)
    registry.close()


def test_a_busy_registry_is_asked_again(server: RegistryServer) -> None:
    registry = Registry(f"http://{server.host}")
    server.failures = [503, 500]
    assert registry.register("rec.impressions-value", SCHEMA) == 1
    registry.close()


def test_a_registry_that_stays_busy_is_unavailable(server: RegistryServer) -> None:
    registry = Registry(f"http://{server.host}")
    server.failures = [503] * 9
    with pytest.raises(Unavailable, match="answers 503"):
        registry.schema(1)
    registry.close()


def test_a_registry_that_is_not_there_is_unavailable(server: RegistryServer) -> None:
    server.http.server_close()
    with pytest.raises(Unavailable, match=f"{server.host} does not answer"):
        Registry(f"http://{server.host}").schema(1)


def test_a_refused_schema_says_why(server: RegistryServer) -> None:
    registry = Registry(f"http://{server.host}")
    with pytest.raises(ConfigurationError, match="answers 409: Schema being registered is incompatible"):
        registry.register("other-value", SCHEMA)
    registry.close()


@pytest.mark.parametrize("url", ["localhost:8081", "kafka://host", "", "http://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must look like http://host:8081"):
        Registry(url)
