"""What ClickHouse's answers mean for a writer: try again for ever, or stop because only a person can help."""

from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

_MIGRATE = "its tables are not those of this version: run `liftstream migrate`, or upgrade this worker"
_GRANT = "let the URL's user INSERT into and SELECT from the database"
_LOG_IN = "correct the URL's user:password"
_FAULT = "liftstream sent something that ClickHouse does not take, which is a fault of liftstream: report it"

# https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
# Whatever is not here (no memory 241, no space 243, too many parts 252, a read-only table 242, a busy Keeper 999, ...)
# may be over by itself, and is tried again.
ADVICE: dict[int, str] = {
    10: _MIGRATE, 16: _MIGRATE, 20: _MIGRATE, 36: _MIGRATE, 44: _MIGRATE, 47: _MIGRATE, 60: _MIGRATE, 81: _MIGRATE,
    164: _GRANT, 497: _GRANT,
    192: _LOG_IN, 193: _LOG_IN, 194: _LOG_IN, 516: _LOG_IN,
    6: _FAULT, 27: _FAULT, 53: _FAULT, 62: _FAULT, 70: _FAULT, 117: _FAULT, 349: _FAULT,
}  # fmt: skip


def advice(error: Exception) -> str | None:
    """What a person must do about an answer to an insert; None when trying again may help.

    No connection, a timeout after which nobody knows whether the rows are there (writing them again changes nothing),
    a server that is busy, full, restarting or read-only, a proxy's answer: all of these may help themselves.
    """
    if isinstance(error, OperationalError | OSError):
        return None
    if type(error) is DatabaseError:
        return None if error.code is None else ADVICE.get(error.code)
    return _FAULT if isinstance(error, ClickHouseError) else None
