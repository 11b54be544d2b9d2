"""Pydantic's errors in our words: which field, which value, which rule."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stream.contracts.reasons import RULES, Reason

SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule. `field` is '' when the record as a whole is broken; `value` is cut for people."""

    field: str
    value: str
    rule: str
    reason: Reason

    def __str__(self) -> str:
        where = f"{self.field} " if self.field else ""
        what = f" (got {self.value})" if self.value else ""
        return f"{where}{self.rule}{what}"


# Pydantic's error type -> (rule, reason); rules may name the error's context in braces.
_WORDS: dict[str, tuple[str, Reason]] = {
    "missing": ("is required", Reason.MALFORMED),
    "string_type": ("must be text", Reason.MALFORMED),
    "tuple_type": ("must be a list", Reason.MALFORMED),
    "list_type": ("must be a list", Reason.MALFORMED),
    "dict_type": ("must be a table of keys", Reason.MALFORMED),
    "path_type": ("must be a path", Reason.MALFORMED),
    "int_parsing": ("must be a whole number", Reason.MALFORMED),
    "float_parsing": ("must be a number", Reason.MALFORMED),
    "literal_error": ("must be {expected}", Reason.MALFORMED),
    "byte_size": ("must be a size such as 4GiB", Reason.MALFORMED),
    "byte_size_unit": ("must be a size such as 4GiB", Reason.MALFORMED),
    "string_unicode": ("must be valid Unicode text", Reason.INVALID_UTF8),
    "string_too_short": (RULES[Reason.EMPTY], Reason.EMPTY),
    "string_pattern_mismatch": (RULES[Reason.BAD_CURRENCY], Reason.BAD_CURRENCY),
    "too_many_bytes": ("must be at most {limit} UTF-8 bytes", Reason.TOO_LONG),
    "int_type": ("must be a whole number", Reason.MALFORMED),
    "int_from_float": ("must be a whole number", Reason.MALFORMED),
    "int_parsing_size": ("is too large a number", Reason.OUT_OF_RANGE),
    "float_type": ("must be a number", Reason.MALFORMED),
    "finite_number": (RULES[Reason.NOT_FINITE], Reason.NOT_FINITE),
    "greater_than_equal": ("must be at least {ge}", Reason.OUT_OF_RANGE),
    "greater_than": ("must be more than {gt}", Reason.OUT_OF_RANGE),
    "less_than_equal": ("must be at most {le}", Reason.OUT_OF_RANGE),
    "at_type": ("must be ISO 8601 text or a whole number of epoch milliseconds", Reason.MALFORMED),
    "at_range": ("must be from 1970-01-01 to 9999-12-31 UTC", Reason.OUT_OF_RANGE),
    "enum": ("must be {expected}", Reason.MALFORMED),
    "too_short": ("must have at least {min_length} entry", Reason.MALFORMED),
    "too_long": ("has more than {max_length} entries", Reason.TOO_LONG),
    "value_error": ("{error}", Reason.MALFORMED),
    "json_invalid": ("the record is not valid JSON: {error}", Reason.MALFORMED),
    "model_type": ("the record must be an object of fields", Reason.MALFORMED),
}
_WHOLE_RECORD = ("json_invalid", "model_type")
_TABLE = "must be a table of keys"  # a part that is a record itself


def violations(
    error: ValidationError, fields: Iterable[str] = (), *, what: str = "field of this event"
) -> list[Violation]:
    """The broken rules of one record, in Pydantic's order.

    fields: the record's known fields, for "did you mean" beside an unknown one. what: such a field in words.
    """
    return [_violation(detail, tuple(fields), what) for detail in error.errors(include_url=False)]


def _violation(detail: ErrorDetails, fields: tuple[str, ...], what: str) -> Violation:
    kind = detail["type"]
    field = ".".join(map(str, detail["loc"]))
    if kind == "extra_forbidden":
        return Violation(
            field, _shown(detail["input"]), _unknown_field(field, fields, what), Reason.MALFORMED
        )
    rule, reason = _WORDS.get(kind, (detail["msg"], Reason.MALFORMED))
    if kind == "model_type" and field:
        kind, rule = "dict_type", _TABLE
    value = "" if kind == "missing" or kind in _WHOLE_RECORD else _shown(detail["input"])
    sentence = rule.format(**detail.get("ctx", {})).replace(" at line 1 column ", " at character ")
    return Violation(field, value, sentence, reason)


def _unknown_field(field: str, fields: tuple[str, ...], what: str) -> str:
    near = difflib.get_close_matches(field, fields, n=1)
    return f"is not a {what} (did you mean {near[0]}?)" if near else f"is not a {what}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
