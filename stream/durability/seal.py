"""Stored documents that show when a byte of them was changed: JSON whose last field is a checksum of the rest."""

import json
from collections.abc import Mapping
from typing import Any

from stream.durability.piece import checksum

_SEAL = "seal"


def sealed(document: Mapping[str, Any]) -> bytes:
    """The stored form."""
    data = _dump(document)
    return _dump({**document, _SEAL: checksum(data)})


def unsealed(data: bytes) -> dict[str, Any]:
    """The document; raises ValueError when it is none, or not as it was written. Earlier versions wrote no seals."""
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError("no JSON object")
    seal = document.pop(_SEAL, None)
    if seal is not None and seal != checksum(_dump(document)):
        raise ValueError("it was changed since it was written")
    return document


def _dump(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
