"""Which deployment a checkpoint store belongs to, so that state never meets another broker's offsets."""

import logging
import secrets
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass

from stream.contracts.topics import Topic
from stream.durability.journal import NEW_GENERATION
from stream.durability.seal import sealed, unsealed
from stream.durability.store import Store
from stream.errors import DamagedStore

FORMAT = 1
_FOLDER, _COPIES = "deployment", "deployment-copy"  # without the hash key no state is worth anything
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InputTopic:
    """A topic as the broker knows it; `id` is None where the broker gives none."""

    name: str
    id: str | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the broker says about itself; `topics` in the order of Topic, all with equally many partitions."""

    id: str | None
    topics: tuple[InputTopic, InputTopic, InputTopic]
    partitions: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """One generation of one deployment: created once, read ever after."""

    id: str
    generation: int
    hash_key: bytes  # 16 random bytes; ids are hashed with it
    cluster: Cluster

    def folder(self, partition: int) -> str:
        """Where this generation keeps a partition: `g000001/p00003`."""
        return f"{_prefix(self.generation)}/p{partition:05d}"

    def to_json(self) -> bytes:
        """The stored form."""
        return sealed({"format": FORMAT, **asdict(self), "hash_key": self.hash_key.hex()})

    @classmethod
    def from_json(cls, data: bytes) -> "Deployment":
        """Read the stored form; raises ValueError, KeyError or TypeError for anything else."""
        fields = unsealed(data)
        if fields.pop("format") != FORMAT:
            raise ValueError("unknown format")
        cluster = fields.pop("cluster")
        first, second, third = (InputTopic(**topic) for topic in cluster.pop("topics"))
        return cls(
            hash_key=bytes.fromhex(fields.pop("hash_key")),
            cluster=Cluster(topics=(first, second, third), **cluster),
            **fields,
        )


def open_deployment(
    store: Store,
    cluster: Cluster,
    *,
    newest_rows: Callable[[], int],
    new_generation: bool = False,
) -> Deployment:
    """Read the deployment's record, or write the first one.

    newest_rows: the newest generation that has rows in the database, 0 when there are none.
    new_generation: start over beside the old state and rows, whatever they are.
    Raises DamagedStore when store, broker and database do not belong together.
    """
    newest = _newest_generation(store)
    if new_generation:
        return _create(store, cluster, generation=max(newest, newest_rows()) + 1)
    if not newest:
        if rows := newest_rows():
            raise DamagedStore(
                f"The checkpoint store is empty but the database has rows of generation {rows}: "
                f"point LIFTSTREAM_CHECKPOINTS at the store that belongs to them, {NEW_GENERATION}."
            )
        _refuse_leftovers(store)
        return _create(store, cluster, generation=1)
    deployment = _read(store, newest)
    if (rows := newest_rows()) > newest:
        raise DamagedStore(
            f"The database has rows of generation {rows} but the checkpoint store ends at {newest}: "
            f"point LIFTSTREAM_CHECKPOINTS at the newer store, {NEW_GENERATION}."
        )
    if difference := _difference(deployment.cluster, cluster):
        raise DamagedStore(
            f"The checkpoint store belongs to another broker or topic ({difference}): point LIFTSTREAM_BROKER "
            f"or LIFTSTREAM_CHECKPOINTS at the ones that belong together, {NEW_GENERATION}."
        )
    return deployment


def _create(store: Store, cluster: Cluster, *, generation: int) -> Deployment:
    deployment = Deployment(uuid.uuid4().hex, generation, secrets.token_bytes(16), cluster)
    store.create(_path(generation), deployment.to_json())
    return _read(store, generation)  # another worker may have been first


def _read(store: Store, generation: int) -> Deployment:
    """Read the record or its copy, and see that both are there."""
    paths = _path(generation), _path(generation, _COPIES)
    stored = [store.get(path) for path in paths]
    deployment = _first_readable(stored)
    if deployment is None:
        raise DamagedStore(f"The deployment record {paths[0]} cannot be read: restore it {NEW_GENERATION}.")
    for path, data in zip(paths, stored, strict=True):
        if _first_readable([data]) != deployment:
            if path == paths[0] or data is not None:
                log.warning("%s is missing or changed: it is written anew.", path)
            store.put(path, deployment.to_json())
    return deployment


def _first_readable(stored: Iterable[bytes | None]) -> Deployment | None:
    for data in stored:
        with suppress(ValueError, KeyError, TypeError):
            return Deployment.from_json(data or b"")
    return None


def _newest_generation(store: Store) -> int:
    names = [*store.names(_FOLDER), *store.names(_COPIES)]
    return max((int(name.rpartition("/g")[2]) for name in names), default=0)


def _refuse_leftovers(store: Store) -> None:
    if store.names(_prefix(1)):
        raise DamagedStore(
            f"The checkpoint store has state but no deployment record: restore {_FOLDER}/ {NEW_GENERATION}."
        )


def _difference(stored: Cluster, given: Cluster) -> str | None:
    """What differs, in words; ids that one side does not know are not compared."""
    if stored.id and given.id and stored.id != given.id:
        return f"cluster id {stored.id} became {given.id}"
    if stored.partitions != given.partitions:
        return f"{stored.partitions} partitions became {given.partitions}"
    for topic, ours, theirs in zip(Topic, stored.topics, given.topics, strict=True):
        if ours.name != theirs.name:
            return f"the {topic.word} topic {ours.name} became {theirs.name}"
        if ours.id and theirs.id and ours.id != theirs.id:
            return f"topic {ours.name} was deleted and created again"
    return None


def _path(generation: int, folder: str = _FOLDER) -> str:
    return f"{folder}/{_prefix(generation)}"


def _prefix(generation: int) -> str:
    return f"g{generation:06d}"
