"""Lets only questions through. The server's `readonly` setting forbids changes; this forbids the rest in plain words:
several statements at once, writing to files, and functions that read from outside the database."""

import re

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from stream.errors import ConfigurationError
from stream.sink.connect import brief

READONLY = 164  # ClickHouse's error code
_QUESTIONS = ("SELECT", "WITH", "SHOW", "DESCRIBE", "EXPLAIN", "EXISTS")
# Table functions that only compute or read tables of the same database.
_INNER = {
    "format", "generate_series", "generaterandom", "generateseries", "merge", "null", "numbers", "numbers_mt", "primes",
    "values", "view", "zeros", "zeros_mt",
}  # fmt: skip
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'", re.DOTALL)


def question_of(client: Client, text: str) -> str:
    """The one read-only statement in `text`, as ClickHouse itself would write it.

    Raises ConfigurationError when it is not exactly one, or not a question.
    """
    try:
        rows = client.query(
            "SELECT formatQuerySingleLine({text:String})", parameters={"text": text}
        ).result_rows
    except DatabaseError as error:
        raise ConfigurationError(f"ClickHouse does not understand this SQL: {brief(error)}") from error
    statement: str = rows[0][0]
    bare = _STRING.sub("''", statement)
    if not bare.startswith(_QUESTIONS):
        raise ConfigurationError(
            f"Only questions are allowed here ({', '.join(_QUESTIONS)}), not {bare.split(maxsplit=1)[0]}."
        )
    if re.search(r"\bINTO OUTFILE\b", bare):
        raise ConfigurationError(
            "INTO OUTFILE is not allowed here: redirect the output of the command instead."
        )
    names = client.query("SELECT name FROM system.table_functions").result_rows
    outer = {name.lower() for (name,) in names} - _INNER | {"file"}
    for name in re.findall(r"(\w+)`?\(", bare):
        if name.lower() in outer:
            raise ConfigurationError(
                f"The function {name}() reads from outside the database: not allowed here."
            )
    return statement


def says_format(statement: str) -> bool:
    """Whether a statement of question_of says how to print its answer."""
    return re.search(r" FORMAT \w+$", _STRING.sub("''", statement)) is not None


def refusal(error: DatabaseError) -> ConfigurationError:
    """What the person who wrote a failing query should read."""
    if error.code == READONLY:
        return ConfigurationError(f"This database is open for reading only: {brief(error)}")
    return ConfigurationError(f"ClickHouse refused the query: {brief(error)}")
