"""Events from files: JSONL (also gzipped), Avro object containers and Parquet; one bad record never stops the rest."""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from stream.contracts.models import MODELS, Event
from stream.contracts.reasons import Reason
from stream.contracts.topics import Topic
from stream.contracts.violations import violations
from stream.errors import ConfigurationError

MAX_LINE_BYTES = 1 << 20
ROWS_AT_ONCE = 8_192
GZIP_MAGIC = b"\x1f\x8b"
UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that is not an event of its topic; further rules it breaks are not listed.

    line: 1-based; the row in Avro and Parquet files. field: '' when the record as a whole is broken.
    raw: the line's bytes, or the row as JSON.
    """

    path: Path
    line: int
    field: str
    rule: str
    reason: Reason
    raw: bytes

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.field} {self.rule}".replace(":  ", ": ")


Numbered = tuple[int, Event | BadRecord]  # with its line, 1-based


def read_events(path: Path | str, topic: Topic) -> Iterator[Event | BadRecord]:
    """The events of a file in their order, a BadRecord in place of each that breaks the contract.

    The kind of file is known by its name: .jsonl, .ndjson or .json (each also with .gz), .avro, .parquet. Blank lines
    are skipped. Memory does not grow with the file. Raises ConfigurationError, at the call, when the file is missing,
    unreadable or of another kind. Where damage makes the rest unreadable, one BadRecord says so and is the last.
    """
    return (record for _, record in read_numbered(path, topic))


def read_numbered(path: Path | str, topic: Topic) -> Iterator[Numbered]:
    """The same with the line of each, as in BadRecord."""
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    read = _READERS.get("".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:]))
    if read is None:
        raise ConfigurationError(
            f"{path} is of an unknown kind; name it .jsonl, .jsonl.gz, .avro or .parquet after what it holds."
        )
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return _until_end(file, read(file, _Check(path, topic)))
    except BaseException:
        file.close()
        raise


def _until_end(file: BinaryIO, records: Iterator[Numbered]) -> Iterator[Numbered]:
    with file:
        yield from records


class _Check:
    """Turns raw records into events or bad records."""

    def __init__(self, path: Path, topic: Topic) -> None:
        self.path = path
        self.model = MODELS[topic]

    def line(self, number: int, text: bytes) -> Event | BadRecord:
        try:
            return self.model.model_validate_json(text)
        except ValidationError as error:
            return self._bad(number, error, text.rstrip(b"\r\n"))

    def row(self, number: int, fields: dict[str, Any]) -> Event | BadRecord:
        try:
            return self.model.model_validate(fields)
        except ValidationError as error:
            return self._bad(number, error, _as_json(fields))

    def damaged(self, number: int, why: object) -> BadRecord:
        rule = f"the file is damaged from here on and cannot be read further: {why}"
        return BadRecord(self.path, number, "", rule, Reason.MALFORMED, b"")

    def too_long(self, number: int, start: bytes) -> BadRecord:
        rule = f"the line is longer than {MAX_LINE_BYTES:,} bytes"
        return BadRecord(self.path, number, "", rule, Reason.TOO_LONG, start)

    def _bad(self, number: int, error: ValidationError, raw: bytes) -> BadRecord:
        first = violations(error, self.model.model_fields)[0]
        rule = f"{first.rule} (got {first.value})" if first.value else first.rule
        return BadRecord(self.path, number, first.field, rule, first.reason, raw)


def _read_lines(file: BinaryIO, check: _Check) -> Iterator[Numbered]:
    number = 0
    try:
        for number, line in enumerate(_lines(file), 1):
            if len(line) > MAX_LINE_BYTES:
                yield number, check.too_long(number, line[:MAX_LINE_BYTES])
            elif not line.isspace():
                yield number, check.line(number, line)
    except (OSError, EOFError, zlib.error) as error:
        yield number + 1, check.damaged(number + 1, error)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines without a byte order mark; of one longer than MAX_LINE_BYTES its beginning."""
    limit = MAX_LINE_BYTES + 1
    line = file.readline(limit).removeprefix(UTF8_BOM)
    while line:
        yield line
        while len(line) == limit and not line.endswith(b"\n"):
            line = file.readline(limit)
        line = file.readline(limit)


def _read_gzip(file: BinaryIO, check: _Check) -> Iterator[Numbered]:
    if file.read(len(GZIP_MAGIC)) != GZIP_MAGIC:
        raise ConfigurationError(f"{check.path} is not a gzip file; name it without .gz if it is plain text.")
    file.seek(0)
    return _read_lines(io.BufferedReader(gzip.GzipFile(fileobj=file)), check)


def _read_avro(file: BinaryIO, check: _Check) -> Iterator[Numbered]:
    try:
        rows: Iterable[Any] = fastavro.reader(file)
    except _AVRO_DAMAGE as error:
        raise ConfigurationError(
            f"{check.path} is not an Avro object container that can be read: {error}"
        ) from error
    return _check_rows(rows, check)


def _read_parquet(file: BinaryIO, check: _Check) -> Iterator[Numbered]:
    try:
        table = pq.ParquetFile(file)
    except _PARQUET_DAMAGE as error:
        raise ConfigurationError(f"{check.path} is not a Parquet file that can be read: {error}") from error
    batches = table.iter_batches(batch_size=ROWS_AT_ONCE)
    return _check_rows((row for batch in batches for row in _rows(batch)), check)


def _check_rows(rows: Iterable[Any], check: _Check) -> Iterator[Numbered]:
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            yield number, check.row(number, row)
    except (*_AVRO_DAMAGE, *_PARQUET_DAMAGE) as error:
        yield number + 1, check.damaged(number + 1, repr(error))


def _rows(batch: Any) -> Iterator[dict[str, Any]]:
    names = batch.schema.names
    columns = [_in_milliseconds(column).to_pylist() for column in batch.columns]
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _in_milliseconds(column: Any) -> Any:
    """Timestamps as epoch milliseconds, whatever their unit and zone (without one: UTC); other columns as they are."""
    if not pa.types.is_timestamp(column.type):
        return column
    return column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())


def _as_json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, default=str, ensure_ascii=False).encode(errors="backslashreplace")


# What the readers raise on bytes that are not what they should be.
_AVRO_DAMAGE = (ValueError, EOFError, LookupError, TypeError, OSError, zlib.error)
_PARQUET_DAMAGE = (pa.ArrowException, OSError)

_READERS: dict[str, Callable[[BinaryIO, _Check], Iterator[Numbered]]] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), _read_lines),
    **dict.fromkeys((".jsonl.gz", ".ndjson.gz", ".json.gz"), _read_gzip),
    ".avro": _read_avro,
    ".parquet": _read_parquet,
}
