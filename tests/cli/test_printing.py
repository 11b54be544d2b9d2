"""How values look to people and to programs."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from stream.cli.printing import print_json, print_table, shown

MOMENT = datetime(2026, 11, 22, 6, 31, 39, 994_000, UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10_000, "10,000"), (0.0046, "0.0046"), (1_340.0, "1,340"), (None, "-"), (True, "yes"), ("DE", "DE"),
        (MOMENT, "2026-11-22 06:31:39"),
    ],
)  # fmt: skip
def test_values_for_people(value: Any, text: str) -> None:
    assert shown(value) == text


def test_times_for_programs_are_iso_8601(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"at": MOMENT}])
    (row,) = json.loads(capsys.readouterr().out)
    assert datetime.fromisoformat(row["at"]) == MOMENT


def test_a_table_without_a_terminal_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{"experiment": "x" * 300, "impressions": 5}], ("experiment", "impressions"))
    assert "x" * 300 in capsys.readouterr().out


def test_what_json_cannot_say_is_null_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": (-float("inf"),)}}])
    assert json.loads(capsys.readouterr().out) == [{"a": None, "b": [None, 1.5], "c": {"d": [None]}}]
