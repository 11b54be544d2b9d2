"""The three events as frozen Pydantic models: the contract at the edge.

Field names and order are those of schemas/*.avsc, the limits those of contracts.limits. Unknown fields are errors;
types are strict (text is never a number, a bool never an integer), except that a whole number may be written 3.0.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from stream.contracts.limits import (
    MAX_AT_MS,
    MAX_ID_BYTES,
    MAX_LATENCY_MS,
    MAX_POSITION,
    MAX_PRE_VALUE,
    MAX_VALUE_MINOR,
    MIN_AT_MS,
)
from stream.contracts.topics import Topic

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_UTF8_BYTES = 4  # at most, of one character


def epoch_ms(value: object) -> int:
    """Epoch milliseconds UTC of ISO 8601 text, a datetime (both: naive is UTC) or a whole number of milliseconds.

    Finer parts are cut off. A number is always milliseconds: seconds are not guessed.
    Raises PydanticCustomError of type `at_type` (none of these) or `at_range` (before 1970 or after 9999).
    """
    at_ms = value if type(value) is int else _ms_of_other(value)
    if MIN_AT_MS <= at_ms <= MAX_AT_MS:
        return at_ms
    raise PydanticCustomError("at_range", "must be from 1970-01-01 to 9999-12-31 UTC")


def _ms_of_other(value: object) -> int:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.utcoffset() is None else value
        return (aware - _EPOCH) // _MILLISECOND
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise PydanticCustomError("at_type", "must be ISO 8601 text or a whole number of epoch milliseconds")


def _short(text: str) -> str:
    if len(text) * _UTF8_BYTES <= MAX_ID_BYTES or len(text.encode()) <= MAX_ID_BYTES:
        return text
    raise PydanticCustomError(
        "too_many_bytes", "must be at most {limit} UTF-8 bytes", {"limit": MAX_ID_BYTES}
    )


def _whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


Text = Annotated[str, Field(min_length=1), AfterValidator(_short)]
At = Annotated[int, PlainValidator(epoch_ms)]
Position = Annotated[int, Field(ge=0, le=MAX_POSITION), BeforeValidator(_whole)]
Money = Annotated[int, Field(ge=-MAX_VALUE_MINOR, le=MAX_VALUE_MINOR), BeforeValidator(_whole)]
PreValue = Annotated[int, Field(ge=-MAX_PRE_VALUE, le=MAX_PRE_VALUE), BeforeValidator(_whole)]
Score = Annotated[float, Field(allow_inf_nan=False)]
Latency = Annotated[float, Field(allow_inf_nan=False, ge=0, le=MAX_LATENCY_MS)]
Currency = Annotated[str, Field(pattern=r"\A[A-Z]{3}\z")]


class _Contract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    event_id: Text
    at: At  # epoch milliseconds UTC
    user_id: Text


class Assignment(_Contract):
    """A user enters an arm of an experiment."""

    experiment: Text
    arm: Text
    country: Text | None = None
    device: Text | None = None
    segment: Text | None = None
    pre_value: PreValue | None = None


class Impression(_Contract):
    """One recommended item shown to one user."""

    impression_id: Text
    request_id: Text
    item_id: Text
    surface: Text
    position: Position
    model: Text
    model_version: Text
    score: Score | None = None
    latency_ms: Latency | None = None
    country: Text | None = None
    device: Text | None = None
    category: Text | None = None


class Interaction(_Contract):
    """What a user did: a click, a cart, a purchase or the product's own kind."""

    impression_id: Text | None = None
    item_id: Text | None = None
    kind: Text
    value_minor: Money | None = None
    currency: Currency | None = None


Event = Assignment | Impression | Interaction

MODELS: dict[Topic, type[Event]] = {
    Topic.ASSIGNMENTS: Assignment,
    Topic.IMPRESSIONS: Impression,
    Topic.INTERACTIONS: Interaction,
}
