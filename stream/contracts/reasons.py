"""Why an event was rejected and what became of every other one: the words of the ledger, enumerated once.

A record's decoding status is 0 (fine) or `reason + 256 * (field + 1)`, field being its index in
contracts.topics.FIELDS (no field: the upper part is 0).
"""

from enum import IntEnum

from stream.contracts.topics import FIELDS, Topic


class Reason(IntEnum):
    """Why a record can never be processed."""

    NULL_VALUE = 1
    BAD_HEADER = 2
    UNKNOWN_SCHEMA = 3
    MALFORMED = 4
    TRAILING_BYTES = 5
    INVALID_UTF8 = 6
    EMPTY = 7
    TOO_LONG = 8
    OUT_OF_RANGE = 9
    NOT_FINITE = 10
    BAD_CURRENCY = 11
    FUTURE_TIMESTAMP = 12
    UNKNOWN_ARM = 13
    TOO_MANY_ARMS = 14
    TOO_MANY_EXPERIMENTS = 15
    UNREADABLE = 16

    @property
    def word(self) -> str:
        """The name used in dead letters and metrics: `future_timestamp`."""
        return self.name.lower()


# Of records that were not read to their end: their fields are undefined.
UNREAD = frozenset(
    {
        Reason.NULL_VALUE,
        Reason.BAD_HEADER,
        Reason.UNKNOWN_SCHEMA,
        Reason.MALFORMED,
        Reason.TRAILING_BYTES,
        Reason.UNREADABLE,
    }
)

# What an operator reads beside the code.
RULES: dict[Reason, str] = {
    Reason.NULL_VALUE: "the record has no value",
    Reason.BAD_HEADER: "the value does not start with byte 0 and a 4-byte schema id",
    Reason.UNKNOWN_SCHEMA: "the schema id is neither in schemas/ nor in the registry",
    Reason.MALFORMED: "the bytes are not a record of that schema",
    Reason.TRAILING_BYTES: "bytes remain after the record",
    Reason.INVALID_UTF8: "the text is not UTF-8",
    Reason.EMPTY: "must not be empty",
    Reason.TOO_LONG: "is longer than allowed",
    Reason.OUT_OF_RANGE: "is outside the allowed range",
    Reason.NOT_FINITE: "must be a finite number",
    Reason.BAD_CURRENCY: "must be three upper-case letters (ISO 4217)",
    Reason.FUTURE_TIMESTAMP: "is more than 5 minutes ahead of the time Kafka received the record",
    Reason.UNKNOWN_ARM: "is not an arm of this experiment's file",
    Reason.TOO_MANY_ARMS: "would be the experiment's 21st arm",
    Reason.TOO_MANY_EXPERIMENTS: "would be the 1,001st experiment",
    Reason.UNREADABLE: "its batch cannot be unpacked, or is larger than 64 MiB when unpacked",
}


class Outcome(IntEnum):
    """What became of a consumed record; exactly one each."""

    COUNTED = 0
    DUPLICATE = 1
    LATE = 2
    OUTSIDE = 3
    REJECTED = 4


class Credit(IntEnum):
    """What a counted interaction is further."""

    ATTRIBUTED = 0
    WAITING = 1
    NO_REFERENCE = 2
    UNKNOWN_IMPRESSION = 3
    OTHER_USER = 4
    OUTSIDE_WINDOW = 5


def status_of(reason: Reason, field: int = -1) -> int:
    """Pack a reason and the index of the guilty field into one status."""
    return reason + 256 * (field + 1)


def explain(topic: Topic, status: int) -> tuple[str, str, str]:
    """Unpack a status into (reason word, field name or '', rule)."""
    reason = Reason(status & 255)
    field = (status >> 8) - 1
    return reason.word, FIELDS[topic][field] if field >= 0 else "", RULES[reason]
