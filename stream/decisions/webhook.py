"""Sends signed webhooks, a few times each; whoever calls tries again later."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from stream.decisions.book import Page
from stream.decisions.telling import content_of, headers_of

_NOT_NOW = (408, 425, 429, 500, 502, 503, 504)
_TIMEOUT = Timeout(connect=3, read=10)
_RETRIES = Retry(
    total=3,
    redirect=False,  # a signature is for one receiver
    allowed_methods=None,  # POST too: the idempotency key makes a repetition harmless
    status_forcelist=_NOT_NOW,
    backoff_factor=0.3,
    backoff_jitter=0.2,
    retry_after_max=10,
    raise_on_status=False,
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a webhook. is_final: trying again changes nothing. how: `200`, `410`, or why nothing was said."""

    is_taken: bool
    is_final: bool
    how: str


class Webhook:
    """One receiver."""

    def __init__(self, url: str, secret: str, *, now: Callable[[], float] = time.time) -> None:
        """now: epoch seconds."""
        self._url = url
        self._secret = secret
        self._now = now
        self._pool = urllib3.PoolManager(timeout=_TIMEOUT, retries=_RETRIES)

    def send(self, page: Page) -> Delivery:
        """Tell the receiver; takes up to a minute when it does not answer."""
        content = content_of(page)
        headers = headers_of(page, content, secret=self._secret, timestamp=int(self._now()))
        try:
            answer = self._pool.request("POST", self._url, body=content, headers=headers, redirect=False)
        except HTTPError as error:
            return Delivery(is_taken=False, is_final=False, how=type(error.__cause__ or error).__name__)
        is_taken = 200 <= answer.status < 300
        return Delivery(is_taken, is_final=is_taken or answer.status not in _NOT_NOW, how=str(answer.status))

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()
