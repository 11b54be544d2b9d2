"""The manifest of a snapshot: where the state stands, what its tables look like, and which pieces hold them."""

from dataclasses import asdict, dataclass
from typing import Any

from stream.durability import format_1
from stream.durability.piece import Piece
from stream.durability.seal import sealed
from stream.durability.shape import Shape

FORMAT = 2

Offsets = tuple[int, int, int]  # by Topic: the next one to read


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a state stands: what a snapshot says beside the tables."""

    step: int
    offsets: Offsets
    planned_at_ms: int  # of the step
    clock_ms: int
    definitions: str  # digest of the step's
    engine_version: int
    taken_at_ms: int
    writer: str

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Mark":
        """Read the stored form."""
        first, second, third = fields.pop("offsets")
        return cls(offsets=(first, second, third), **fields)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The manifest. Written last: pieces without a manifest were never published."""

    mark: Mark
    tables: tuple[Shape, ...]
    pieces: tuple[Piece, ...]  # of blocks that are in several, the last one's count

    @property
    def step(self) -> int:
        """The step after which the state was captured."""
        return self.mark.step

    def to_json(self) -> bytes:
        """The stored form."""
        return sealed({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Snapshot":
        """Read the stored form; raises ValueError, KeyError or TypeError for anything else."""
        if fields["format"] == format_1.FORMAT:
            return cls(Mark.from_fields(fields["mark"]), (), (Piece(format_1.data_path(fields), 0, ""),))
        tables = tuple(
            Shape(table["name"], table["dtype"], tuple(table["tail"]), tuple(map(tuple, table["parts"])))
            for table in fields["tables"]
        )
        return cls(
            Mark.from_fields(fields["mark"]), tables, tuple(Piece(**piece) for piece in fields["pieces"])
        )
