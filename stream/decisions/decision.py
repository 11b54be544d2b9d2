"""A decision: what was decided about which arm, when, why, on which figures."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from stream.contracts.guardrails import RESERVED
from stream.decisions.figures import Figures

FORMAT = 1
PROMOTION, PROMOTED = RESERVED
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79}")


class Kind(StrEnum):
    """What was decided."""

    GUARDRAIL = "guardrail"  # a guardrail fired
    PROPOSED = "promotion_proposed"  # an arm may become the champion
    PROMOTED = "promoted"  # somebody made it the champion


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision, as it was taken; nothing of it changes later.

    guardrail: its name, `promotion` or `promoted`. number: 1 for the first firing of guardrail and arm. as_of_ms: event
    time; decided_at_ms: the machine's clock. is_armed: whether anything is done, or only told. fallback: the arm that
    is switched to, None where nothing is. by: a person, or `liftstream`.
    """

    experiment: str
    guardrail: str
    arm: str
    number: int
    kind: Kind
    generation: int
    as_of_ms: int
    decided_at_ms: int
    is_armed: bool
    fallback: str | None
    rule: str
    reason: str
    by: str
    why: str
    figures: Figures

    @property
    def id(self) -> str:
        """Unique for ever: `home-ranker/ctr-worse/two-tower/1`; ASCII, also where the names are not."""
        return "/".join((*map(plain, (self.experiment, self.guardrail, self.arm)), str(self.number)))

    def to_json(self) -> bytes:
        """The stored form."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Decision":
        """Read the stored form; raises ValueError, KeyError or TypeError for anything else."""
        fields: dict[str, Any] = json.loads(data)
        if fields.pop("format") != FORMAT:
            raise ValueError("unknown format")
        return cls(kind=Kind(fields.pop("kind")), figures=Figures(**fields.pop("figures")), **fields)


@dataclass(frozen=True, slots=True)
class Undone:
    """Who took a decision back, when and why."""

    by: str
    why: str
    at_ms: int

    def to_json(self) -> bytes:
        """The stored form."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Undone":
        """Read the stored form; raises ValueError or TypeError for anything else."""
        return cls(**json.loads(data))


def plain(name: str) -> str:
    """A name as part of an id and a path; one with other characters than letters, digits and `_-.` gets a digest."""
    if _PLAIN.fullmatch(name):
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:40]
    return f"{readable}-{digest}"
