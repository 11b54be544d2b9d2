"""Records that break the contract: shown, counted and, if asked, kept."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Self

from stream.cli.printing import note
from stream.contracts.files import BadRecord
from stream.contracts.models import Event
from stream.errors import ConfigurationError

MAX_SHOWN = 20


class BadRecords:
    """Prints the first MAX_SHOWN as `FILE:LINE: FIELD: RULE` and counts the rest. Use it in a `with`.

    rejects: a file that gets each bad record as it was, one line each.
    """

    def __init__(self, rejects: Path | None = None) -> None:
        self.count = 0
        self._path = rejects
        self._file: BinaryIO | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._file = self._stack.enter_context(self._path.open("wb"))
            except OSError as error:
                raise ConfigurationError(
                    f"The file for rejects {self._path} cannot be written: {error.strerror}."
                ) from None
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        if self.count > MAX_SHOWN:
            note(f"... and {self.count - MAX_SHOWN:,} more.")

    def add(self, record: BadRecord) -> None:
        """Show, count and keep one."""
        self.count += 1
        if self.count <= MAX_SHOWN:
            note(line_of(record))
        if self._file is not None:
            self._file.write(record.raw + b"\n")

    def good(self, records: Iterable[Event | BadRecord]) -> Iterator[Event]:
        """The events among `records`; the others are added."""
        for record in records:
            if isinstance(record, BadRecord):
                self.add(record)
            else:
                yield record


def line_of(record: BadRecord) -> str:
    """`FILE:LINE: FIELD: RULE`; no field where the record as a whole is broken."""
    field = f"{record.field}: " if record.field else ""
    return f"{record.path}:{record.line}: {field}{record.rule}"
