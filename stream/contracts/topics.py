"""The three input topics, their order and the order of their decoded fields."""

from enum import IntEnum


class Topic(IntEnum):
    """Input topics in processing order within a step."""

    ASSIGNMENTS = 0
    IMPRESSIONS = 1
    INTERACTIONS = 2

    @property
    def word(self) -> str:
        """Lower-case plural, as in topic names and on the command line: `impressions`."""
        return self.name.lower()


DEFAULT_PREFIX = "rec."  # what topic names start with where no setting says otherwise

# Field order of decoded columns (engine.batch.Batch.fields) and of the schemas' first version.
FIELDS: dict[Topic, tuple[str, ...]] = {
    Topic.ASSIGNMENTS: (
        "event_id", "at", "user_id", "experiment", "arm", "country", "device", "segment", "pre_value",
    ),
    Topic.IMPRESSIONS: (
        "event_id", "at", "user_id", "impression_id", "request_id", "item_id", "surface", "position",
        "model", "model_version", "score", "latency_ms", "country", "device", "category",
    ),
    Topic.INTERACTIONS: (
        "event_id", "at", "user_id", "impression_id", "item_id", "kind", "value_minor", "currency",
    ),
}  # fmt: skip
