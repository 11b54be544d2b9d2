"""Are the numbers in ClickHouse those of the oracle? Asked through the public views, as a BI user would."""

from collections import Counter
from typing import Any

from clickhouse_connect.driver.client import Client

from benchmarks.oracle import Counts, Expected

RATES = (
    "impressions",
    "clicked_impressions",
    "converted_impressions",
    "clicks",
    "conversions",
    "revenue_minor",
)
TOTALS = ("assigned_users", "exposed_users", *RATES)


def consumed_of(client: Client) -> int:
    """Events in the ledger so far."""
    return int(client.query("SELECT sum(consumed) FROM ledger").result_rows[0][0])


def differences(client: Client, expected: Expected) -> list[str]:
    """What is wrong, one sentence each; empty when every outcome, arm and pane is exact."""
    panes = _counts(
        client,
        f"SELECT experiment, arm, toUnixTimestamp64Milli(pane_start), {', '.join(RATES)} FROM arm_rates "
        "WHERE slice = 'all' AND resolution = '10s'",
        3,
    )
    outcomes = ("consumed", "duplicate", "late", "outside", "rejected", "NOT balanced")
    query = f"SELECT {', '.join(f'sum({outcome})' for outcome in outcomes)} FROM ledger"
    ledger = dict(zip(outcomes, map(int, client.query(query).result_rows[0]), strict=True))
    truth = dict.fromkeys(outcomes, 0) | {"consumed": expected.events, "duplicate": expected.duplicates}
    truth["outside"] = ledger["outside"] if expected.outside is None else expected.outside
    return [
        *_unequal("ledger", {(): Counter(ledger)}, {(): Counter(truth)}),
        *arm_differences(client, expected),
        *_unequal("arm_rates", _sure(panes, expected), _sure(expected.panes, expected)),
    ]


def _sure(panes: dict[Any, Counts], expected: Expected) -> dict[Any, Counts]:
    return {key: counts for key, counts in panes.items() if key[0] not in expected.unsure}


def arm_differences(client: Client, expected: Expected) -> list[str]:
    """What is wrong with the totals of arms, which do not depend on when events happened."""
    query = f"SELECT experiment, arm, {', '.join(TOTALS)} FROM arm_totals WHERE slice = 'all'"
    return _unequal("arm_totals", _counts(client, query, 2), expected.arms)


def _counts(client: Client, query: str, keys: int) -> dict[Any, Counts]:
    result = client.query(query)
    columns = result.column_names[keys:]
    return {
        row[:keys]: Counter(dict(zip(columns, map(int, row[keys:]), strict=True)))
        for row in result.result_rows
    }


def _unequal(view: str, found: dict[Any, Counts], expected: dict[Any, Counts]) -> list[str]:
    empty: Counts = Counter()
    return [
        f"{view} {key}: {column} is {found.get(key, empty)[column]}, expected {expected.get(key, empty)[column]}"
        for key in sorted({*found, *expected})
        for column in sorted({*found.get(key, empty), *expected.get(key, empty)})
        if found.get(key, empty)[column] != expected.get(key, empty)[column]
    ]
