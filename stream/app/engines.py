"""The engines of a deployment, made for the step loop."""

from collections.abc import Collection

from stream.contracts.definitions import Definitions
from stream.durability.machine import Export
from stream.engine.engine import Engine


class LiveEngine(Engine):
    """The engine as durability.machine.Machine."""

    def experiments_with_data(self) -> Collection[str]:
        """Names of the experiments that have ever had an assignment."""
        known = self.experiments
        return [name for name, arms in zip(known.names, known.arms, strict=True) if arms]


class Engines:
    """See durability.machine.Machines. key: the deployment's. partitions: of the input topics."""

    def __init__(self, *, key: bytes, partitions: int) -> None:
        self._key = key
        self._partitions = partitions

    def create(self, partition: int, definitions: Definitions) -> LiveEngine:
        """One that has seen nothing."""
        return LiveEngine(
            key=self._key, partition=partition, partitions=self._partitions, definitions=definitions
        )

    def load(self, partition: int, definitions: Definitions, export: Export) -> LiveEngine:
        """One from an export."""
        return LiveEngine.load(
            export, key=self._key, partition=partition, partitions=self._partitions, definitions=definitions
        )
