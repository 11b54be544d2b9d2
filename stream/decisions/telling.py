"""What is told about a decision: to Kafka, to a webhook."""

import hashlib
import hmac
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from stream.decisions.book import Page

TIMESTAMP = "Liftstream-Timestamp"
SIGNATURE = "Liftstream-Signature"
IDEMPOTENCY = "Idempotency-Key"


def content_of(page: Page) -> bytes:
    """A decision, or its undoing, as JSON."""
    decision = page.decision
    told: dict[str, Any] = {
        "id": decision.id,
        "event": "decided" if page.undone is None else "undone",
        "kind": decision.kind,
        "experiment": decision.experiment,
        "guardrail": decision.guardrail,
        "arm": decision.arm,
        "number": decision.number,
        "fallback": decision.fallback,
        "as_of": iso(decision.as_of_ms),
        "decided_at": iso(decision.decided_at_ms),
        "rule": decision.rule,
        "reason": decision.reason,
        "by": decision.by,
        "why": decision.why,
        "figures": asdict(decision.figures),
    }
    if page.undone is not None:
        told["undone"] = {"by": page.undone.by, "why": page.undone.why, "at": iso(page.undone.at_ms)}
    return json.dumps(told, ensure_ascii=False).encode()


def key_of(page: Page) -> str:
    """What makes a repeated telling recognisable: the decision's id, and `/undo` for its undoing."""
    return page.decision.id if page.undone is None else f"{page.decision.id}/undo"


def headers_of(page: Page, content: bytes, *, secret: str, timestamp: int) -> dict[str, str]:
    """A webhook's headers. timestamp: epoch seconds."""
    return {
        "Content-Type": "application/json",
        IDEMPOTENCY: key_of(page),
        TIMESTAMP: str(timestamp),
        SIGNATURE: f"sha256={signature(secret, timestamp, content)}",
    }


def signature(secret: str, timestamp: int, content: bytes) -> str:
    """HMAC-SHA256 over `<timestamp>.<content>`, in hexadecimal digits."""
    return hmac.new(secret.encode(), b"%d." % timestamp + content, hashlib.sha256).hexdigest()


def iso(at_ms: int) -> str:
    """2026-11-22T06:31:39.250Z."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
