"""A Confluent-compatible schema registry: the two calls that liftstream needs."""

import json
from typing import Any

import urllib3

from stream.errors import ConfigurationError, Unavailable

_ANSWER = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
_CONTENT = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
_BUSY = (429, 500, 502, 503, 504)


class Registry:
    """Looks schemas up and registers them.

    url: `http(s)://[user:password@]host:port[/path]`. Every call is tried four times within a few seconds, then
    raises Unavailable; a registry that refuses (credentials, an incompatible schema) raises ConfigurationError.
    """

    def __init__(self, url: str) -> None:
        parts = urllib3.util.parse_url(url)
        if parts.scheme not in ("http", "https") or not parts.host:
            raise ConfigurationError(f"The registry's URL {url!r} must look like http://host:8081.")
        self._url = parts._replace(auth=None).url.rstrip("/")
        auth = urllib3.make_headers(basic_auth=parts.auth) if parts.auth else {}
        retries = urllib3.Retry(
            total=3, backoff_factor=0.2, status_forcelist=_BUSY, allowed_methods=None, raise_on_status=False
        )
        timeout = urllib3.Timeout(connect=2, read=5)
        self._http = urllib3.PoolManager(headers=_ANSWER | dict(auth), retries=retries, timeout=timeout)

    def schema(self, schema_id: int) -> dict[str, Any] | None:
        """The Avro schema with this id, or None when the registry does not know it."""
        answer = self._call("GET", f"/schemas/ids/{schema_id}")
        if answer.status == 404:
            return None
        content = self._content(answer)
        if content.get("schemaType", "AVRO") != "AVRO":
            return None
        schema = json.loads(content["schema"])
        return schema if isinstance(schema, dict) else None

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """The id of `schema` under `subject` (`rec.impressions-value`); registering it again gives the same id."""
        body = json.dumps({"schema": json.dumps(schema)})
        return int(self._content(self._call("POST", f"/subjects/{subject}/versions", body))["id"])

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()

    def _call(self, method: str, path: str, body: str | None = None) -> urllib3.BaseHTTPResponse:
        try:
            headers = {**self._http.headers, **_CONTENT} if body else None
            return self._http.request(method, self._url + path, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"The schema registry at {self._url} does not answer: {error}") from error

    def _content(self, answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
        if answer.status in _BUSY:
            raise Unavailable(f"The schema registry at {self._url} answers {answer.status}.")
        try:
            content = answer.json()
        except ValueError:
            content = None
        if answer.status >= 400 or not isinstance(content, dict):
            why = content.get("message") if isinstance(content, dict) else answer.reason
            raise ConfigurationError(f"The schema registry at {self._url} answers {answer.status}: {why}")
        return content
