"""The journal: one entry per step, written with put-if-absent before the step runs.

Everything a step depends on except the records themselves is in its entry, so whoever reads the entry can run
the step again with the same outputs.
"""

from dataclasses import asdict, dataclass

from stream.contracts.definitions import Definitions, digest_of
from stream.contracts.topics import Topic
from stream.durability.machine import Reading, Readings
from stream.durability.seal import sealed, unsealed
from stream.durability.store import Store
from stream.errors import DamagedStore

FORMAT = 1
_DIGITS = 12
NEW_GENERATION = "or start over with --new-generation"


@dataclass(frozen=True, slots=True)
class Range:
    """Records lo <= offset < hi of one topic; `rows` of them exist, `digest` as in durability.digest."""

    lo: int
    hi: int
    rows: int
    digest: int


Ranges = tuple[Range, Range, Range]  # by Topic


@dataclass(frozen=True, slots=True)
class Entry:
    """One step of one partition. Tuples are in the order of Topic; `definitions` is their digest.

    readings: digests of what the records were decoded with; empty where a topic has no records in the step.
    """

    number: int
    ranges: Ranges
    caught_up: tuple[bool, bool, bool]
    definitions: str
    engine_version: int
    planned_at_ms: int
    writer: str
    readings: tuple[str, str, str] = ("", "", "")

    def to_json(self) -> bytes:
        """The stored form."""
        return sealed({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, data: bytes) -> "Entry":
        """Read the stored form; raises ValueError, KeyError or TypeError for anything else."""
        fields = unsealed(data)
        if fields.pop("format") != FORMAT:
            raise ValueError("unknown format")
        first, second, third = (Range(**given) for given in fields.pop("ranges"))
        caught_up = tuple(fields.pop("caught_up"))
        if len(caught_up) != len(Topic):
            raise ValueError("caught_up must name every topic")
        one, two, three = fields.pop("readings", ("", "", ""))
        return cls(ranges=(first, second, third), caught_up=caught_up, readings=(one, two, three), **fields)


class Journal:
    """The entries of one partition number in one generation.

    `folder` is the partition's, such as `g000001/p00003`; definitions are shared by the generation's partitions.
    """

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = f"{folder}/step"
        self._definitions_folder = f"{folder.rpartition('/')[0]}/definitions"
        self._readings_folder = f"{folder.rpartition('/')[0]}/readings"
        self._known: dict[str, Definitions] = {}
        self._known_readings: dict[str, Reading] = {}

    def append(self, entry: Entry) -> Entry | None:
        """Write the entry unless its step has one; return the entry that is in force.

        None when an entry was there and is gone again: this writer is far behind and must recover.
        """
        path = self._path(entry.number)
        if self._store.create(path, entry.to_json()):
            return entry
        data = self._store.get(path)
        return None if data is None else self._read(path, data)

    def withdraw(self, number: int) -> None:
        """Remove an entry that must not have been written."""
        self._store.delete([self._path(number)])

    def after(self, number: int) -> list[Entry]:
        """All entries behind step `number`, without a gap; raises DamagedStore when one is missing or unreadable."""
        entries = []
        for path in self._store.names(self._folder, after=self._path(number)):
            data = self._store.get(path)
            if data is None:
                break  # collected while we were reading; what is left starts with a gap
            entries.append(self._read(path, data))
        expected = range(number + 1, number + 1 + len(entries))
        for entry, wanted in zip(entries, expected, strict=True):
            if entry.number != wanted:
                raise DamagedStore(
                    f"The journal {self._folder} has no entry for step {wanted} but one for step {entry.number}: "
                    f"restore it {NEW_GENERATION}."
                )
        return entries

    def collect(self, before: int, *, planned_before_ms: int) -> int:
        """Remove entries of steps < `before` that were planned before a time; returns how many.

        Entries outlive any pause of a process, because a paused one could write a removed entry again.
        """
        paths = [path for path in self._store.names(self._folder) if path < self._path(before)]
        # Times rise with the steps, so the old ones come first: find the border by halving.
        old, young = 0, len(paths)
        while old < young:
            middle = (old + young) // 2
            data = self._store.get(paths[middle])
            if data is None or self._read(paths[middle], data).planned_at_ms < planned_before_ms:
                old = middle + 1
            else:
                young = middle
        self._store.delete(paths[:old])
        return old

    def keep_definitions(self, definitions: Definitions) -> None:
        """Store definitions under their digest, before the first entry that names it."""
        if definitions.digest not in self._known:
            self._store.create(f"{self._definitions_folder}/{definitions.digest}", definitions.to_json())
            self._known[definitions.digest] = definitions

    def definitions(self, digest: str) -> Definitions:
        """The definitions that an entry or a snapshot names."""
        if digest not in self._known:
            path = f"{self._definitions_folder}/{digest}"
            data = self._store.get(path)
            try:
                definitions = Definitions.from_json(data or b"")
            except ValueError as error:
                raise DamagedStore(
                    f"The definitions {path} are missing or damaged: restore them {NEW_GENERATION}."
                ) from error
            # Of the stored bytes: a later version may write the same definitions with more fields.
            if digest_of(data or b"") != digest:
                raise DamagedStore(
                    f"The definitions {path} are not what their name says: restore them {NEW_GENERATION}."
                )
            self._known[digest] = definitions
        return self._known[digest]

    def keep_reading(self, reading: Reading | None) -> str:
        """Store a reading under its digest, before the first entry that names it; the digest."""
        if reading is None:
            return ""
        if reading.digest not in self._known_readings:
            self._store.create(f"{self._readings_folder}/{reading.digest}", reading.to_json())
            self._known_readings[reading.digest] = reading
        return reading.digest

    def reading(self, topic: Topic, digest: str, readings: Readings) -> Reading:
        """The reading that an entry names."""
        if digest not in self._known_readings:
            path = f"{self._readings_folder}/{digest}"
            data = self._store.get(path)
            try:
                found = readings.from_json(topic, data or b"")
            except (ValueError, KeyError, TypeError) as error:
                raise DamagedStore(
                    f"The schemas {path} are missing or damaged: restore them {NEW_GENERATION}."
                ) from error
            if found.digest != digest:
                raise DamagedStore(
                    f"The schemas {path} are not what their name says: restore them {NEW_GENERATION}."
                )
            self._known_readings[digest] = found
        return self._known_readings[digest]

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:0{_DIGITS}d}"

    def _read(self, path: str, data: bytes) -> Entry:
        try:
            return Entry.from_json(data)
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedStore(
                f"The journal entry {path} cannot be read: restore it {NEW_GENERATION}."
            ) from error
