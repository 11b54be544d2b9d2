"""`liftstream stats` from files of sums."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from stream.stats.comparison import compare
from stream.stats.confidence import Confidence
from stream.stats.estimates import proportion
from stream.stats.moments import Moments
from tests.cli.conftest import Run

KEYS = [
    *("experiment", "metric", "arm", "control", "difference", "se", "fixed_low", "fixed_high", "p_fixed"),
    *("always_low", "always_high", "p_always", "lift", "lift_low", "lift_high", "reason"),
]


def a_line(arm: str = "random", **fields: Any) -> dict[str, Any]:
    line = {
        "experiment": "obd",
        "metric": "ctr",
        "kind": "proportion",
        "arm": arm,
        "control": arm == "random",
    }
    return {**line, "n": 10_000, "sx": 46, "sxx": 46, **fields}


def the_file(*lines: dict[str, Any] | str) -> Path:
    path = Path("sums.jsonl")
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_json_has_every_key_and_the_figures_of_the_library(run: Run) -> None:
    path = the_file(a_line(share=0.5), a_line("bts", sx=69, share=0.5))
    result = run("stats", "--from-aggregates", path, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    (row,) = found["comparisons"]
    assert list(row) == KEYS
    assert (row["experiment"], row["metric"], row["arm"], row["control"]) == ("obd", "ctr", "bts", "random")
    expected = compare(proportion(Moments(10_000, 46)), proportion(Moments(10_000, 69)))
    assert {name: row[name] for name in KEYS[4:]} == {name: getattr(expected, name) for name in KEYS[4:]}
    assert found["srm"] == [{"experiment": "obd", "p_fixed": 1, "p_sequential": 1, "reason": None}]


def test_alpha_and_tuning_are_passed_on(run: Run) -> None:
    path = the_file(a_line(), a_line("bts", sx=69))
    result = run("stats", "--from-aggregates", path, "--json", "--alpha", "0.1", "--tuning", "900")
    expected = compare(proportion(Moments(10_000, 46)), proportion(Moments(10_000, 69)), Confidence(0.1, 900))
    assert json.loads(result.stdout)["comparisons"][0]["always_low"] == expected.always_low


def test_the_table_shows_intervals_and_reasons(run: Run) -> None:
    path = the_file(a_line(), a_line("bts", sx=69), a_line("new", n=1, sx=0))
    result = run("stats", "--from-aggregates", path)
    assert result.exit_code == 0
    assert "[-0.001043, 0.005643]" in result.stdout
    assert "too_few_users" in result.stdout
    assert "shares_not_declared" in result.stdout


def test_all_kinds_and_several_experiments_keep_the_order_of_the_file(run: Run) -> None:
    ratio = {"kind": "ratio", "n": 3280, "sx": 4079, "sxx": 11005, "sy": 34114, "syy": 815456, "sxy": 77435}
    cuped = {"kind": "cuped_mean", "n": 4, "sx": 10, "sxx": 30, "sp": 8, "spp": 18, "sxp": 22}
    lines = [
        a_line(arm, experiment=experiment, metric=metric, **fields)
        for experiment in ("second", "first")
        for metric, fields in (("m", {"kind": "mean"}), ("r", ratio), ("c", cuped))
        for arm in ("b", "random", "a")
    ]
    found = json.loads(run("stats", "--from-aggregates", the_file(*lines), "--json").stdout)
    order = [(row["experiment"], row["metric"], row["arm"]) for row in found["comparisons"]]
    assert order == [(e, m, a) for e in ("second", "first") for m in ("m", "r", "c") for a in ("b", "a")]
    assert all(row["reason"] is None for row in found["comparisons"])


def test_the_sample_ratio_counts_the_most_users_of_each_arm(run: Run) -> None:
    path = the_file(
        a_line(n=345_543, share=0.5),
        a_line("bts", n=344_660, share=0.5),
        a_line(metric="retained", n=90),
        a_line("bts", metric="retained", n=50),
    )
    (ratio,) = json.loads(run("stats", "--from-aggregates", path, "--json").stdout)["srm"]
    assert ratio["p_fixed"] == pytest.approx(0.288, abs=5e-4)


def test_no_output_is_0_infinite_or_nan_where_there_is_no_interval(run: Run) -> None:
    path = the_file(
        a_line(kind="ratio", sy=0, syy=0, sxy=0, sx=0, sxx=0),
        a_line("b", kind="ratio", sy=0, syy=0, sxy=0, sx=0, sxx=0),
    )
    result = run("stats", "--from-aggregates", path, "--json")
    (row,) = json.loads(result.stdout, parse_constant=pytest.fail)["comparisons"]
    assert [row[name] for name in KEYS[4:-1]] == [None] * 11
    assert row["reason"] == "no_denominator"


def test_decimals_are_taken_as_they_are_written(run: Run) -> None:
    mean = {"kind": "mean", "n": 3}
    path = the_file(a_line(**mean, sx=0.3, sxx=0.05), a_line("b", **mean, sx="SX", sxx="SXX"))
    path.write_text(path.read_text().replace('"SXX"', "300000000000000.05").replace('"SX"', "3.0e7"))
    (row,) = json.loads(run("stats", "--from-aggregates", path, "--json").stdout)["comparisons"]
    assert row["difference"] == 9_999_999.9
    # n sxx - sx^2 is .06 and .15; in floating point the latter would be lost.
    assert row["se"] == pytest.approx(math.sqrt((0.06 + 0.15) / 18), rel=1e-14)


def test_blank_lines_and_unknown_fields_are_ignored(run: Run) -> None:
    path = the_file(a_line(note="x"), "", a_line("bts", sx=69))
    assert run("stats", "--from-aggregates", path).exit_code == 0


def test_an_empty_file_has_no_results(run: Run) -> None:
    path = the_file()
    assert json.loads(run("stats", "--from-aggregates", path, "--json").stdout) == {
        "comparisons": [],
        "srm": [],
    }
    assert "has no lines" in run("stats", "--from-aggregates", path).stderr


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2: the line is not valid JSON: "),
        ("[]", "line 2: the record must be an object of fields"),
        ('{"n": NaN}', "line 2: the line is not valid JSON: NaN is not a number."),
        (a_line("b", n=None), "line 2: n must be a number (got None)."),
        (a_line("b", n=1.5), "line 2: n must be a whole number, at least 0 (got 1.5)."),
        (a_line("b", n=-1), "line 2: n must be a whole number, at least 0 (got -1)."),
        (a_line("b", sx="46"), "line 2: sx must be a number (got '46')."),
        (a_line("b", sx=True), "line 2: sx must be a number (got True)."),
        (a_line("b", sx=1e61), "line 2: sx must be at most 1e60 and have at most 60 decimals"),
        (a_line("b", kind="median"), "line 2: kind must be 'proportion', 'mean', 'ratio' or 'cuped_mean'"),
        (a_line("b", control="yes"), "line 2: control "),
        (a_line("b", share=0), "line 2: share must be more than 0 (got 0)."),
        (a_line(""), "line 2: arm must not be empty"),
        ({"experiment": "obd"}, "line 2: metric is required."),
        (a_line("b", sx=None), "line 2: sx is required for the kind proportion."),
        (a_line("b", sx=10_001), "line 2: sx must be from 0 to n for a proportion"),
        (a_line("b", metric="m", kind="ratio"), "line 2: sy is required for the kind ratio."),
        (a_line("b", metric="m", kind="mean", n=2, sx=3, sxx=4), "line 2: sxx is impossible"),
        (a_line("b", kind="mean"), "line 2: kind is proportion for this metric in line 1."),
        (a_line(), "line 2: arm 'random' has a line for this metric already."),
        (a_line("b", control=True), "line 2: control is true for two arms, 'random' and 'b'."),
        (a_line("b", metric="m"), "line 2: control must be true for one arm of the metric 'm'."),
        (a_line(metric="m", share=0.4), "line 2: share of arm 'random' is 0.5 in a line before."),
        (a_line("b"), "line 2: share must be given for every arm of an experiment or none."),
    ],
)
def test_what_is_wrong_is_said_with_line_and_field(
    run: Run, line: dict[str, Any] | str, sentence: str
) -> None:
    result = run("stats", "--from-aggregates", the_file(a_line(share=0.5), line))
    assert result.exit_code == 1
    assert result.stderr.startswith("liftstream: sums.jsonl, ")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_file_is_said(run: Run) -> None:
    result = run("stats", "--from-aggregates", "nowhere.jsonl")
    assert result.exit_code == 1
    assert "nowhere.jsonl cannot be read: No such file or directory." in result.stderr


def test_bytes_that_are_no_text_are_said(run: Run) -> None:
    Path("sums.jsonl").write_bytes(b'{"n": "\xff"}\n')
    result = run("stats", "--from-aggregates", "sums.jsonl")
    assert result.exit_code == 1
    assert "line 1: the line is not valid JSON" in result.stderr


def test_an_alpha_that_means_nothing_is_mistyped(run: Run) -> None:
    assert run("stats", "--from-aggregates", the_file(), "--alpha", "1").exit_code == 2
