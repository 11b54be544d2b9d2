"""What an experiment's file says of its plan and its own metrics."""

from pathlib import Path

import pytest

from stream.contracts.definitions import Definitions, Experiment, Metric, Per, Policy, load_experiment
from stream.errors import ConfigurationError

SHELF = """
revenue_cap_minor = 50_000
pre_value = "carts"

[[phases]]
starts_at = 2026-11-01T00:00:00Z
shares = { control = 0.9, new = 0.1 }

[[phases]]
starts_at = 2026-11-08T00:00:00Z
shares = { control = 0.5, new = 0.5 }

[metrics.carts]
kinds = ["add_to_cart"]

[metrics.list_value]
kinds = ["add_to_list", "wish"]
of = "value"
per = "impression"
"""


def loaded(tmp_path: Path, content: str) -> Experiment:
    path = tmp_path / "shelf.toml"
    path.write_text(content)
    return load_experiment(path)


def test_a_file_declares_phases_and_metrics(tmp_path: Path) -> None:
    shelf = loaded(tmp_path, SHELF)
    assert shelf.shares_at(0) == {"control": 0.9, "new": 0.1}
    assert shelf.shares_at(1) == {"control": 0.5, "new": 0.5}
    assert shelf.metrics["carts"] == Metric(kinds=("add_to_cart",))
    assert [(q.name, q.adds_value) for q in shelf.quantities] == [("carts", False), ("list_value", True)]
    assert shelf.metrics["list_value"].per is Per.IMPRESSION
    assert Definitions.from_json(Definitions(experiments=(shelf,)).to_json()).experiments == (shelf,)


def test_metrics_stay_in_the_order_of_the_file(tmp_path: Path) -> None:
    shelf = loaded(tmp_path, SHELF.replace("metrics.carts", "metrics.zeal").replace('"carts"', '"zeal"'))
    stored = Definitions(experiments=(shelf,)).to_json()
    assert list(Definitions.from_json(stored).experiments[0].metrics) == ["zeal", "list_value"]
    turned = shelf.model_copy(update={"metrics": dict(reversed(shelf.metrics.items()))})
    assert Definitions(experiments=(turned,)).to_json() != stored


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (SHELF.replace("0.9", "0.8"), "add up to 1, not 0.9"),
        (SHELF.replace("11-08", "10-08"), "phases must be in the order"),
        (SHELF.replace('"carts"', '"wishes"'), "pre_value must be one of clicks, conversions, revenue, carts"),
        (SHELF.replace("starts_at = 2026-11-01T00:00:00Z", "starts_at = 5"), "starts_at must be a date with a time"),
        (SHELF.replace('of = "value"', 'of = "weight"'), "metrics"),
        (SHELF + "[arms.control]\nshare = 0.5\n[arms.new]\nshare = 0.5\n", "either by arm or by phase"),
        (SHELF + "[arms.control]\n[arms.old]\n", "a share for each of the arms: control, old"),
        (SHELF.replace("50_000", "0"), "revenue_cap_minor"),
        ('control = "old"\n' + SHELF, "a share for the control 'old', not only for control, new"),
        (SHELF.replace('"carts"', '"list_value"'), "list_value is per impression"),
        (SHELF.replace("metrics.list_value", "metrics.ctr"), "every experiment has a metric ctr"),
        (SHELF.replace('["add_to_cart"]', "[]"), "metrics.carts.kinds must have at least 1 entry"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_rule(tmp_path: Path, content: str, rule: str) -> None:
    with pytest.raises(ConfigurationError, match=rule):
        loaded(tmp_path, content)


def test_definitions_of_before_there_were_metrics_are_still_read() -> None:
    stored = b'{"experiments": [{"name": "e1", "policy": "first"}]}'
    assert Definitions.from_json(stored).experiments == (Experiment(name="e1", policy=Policy.FIRST),)


@pytest.mark.parametrize(
    "stored", [b"", b"[]", b'{"experiments": 1}', b'{"experiments": [{"name": "e1", "metrics": [1]}]}']
)
def test_stored_definitions_that_are_damaged_are_a_value_error(stored: bytes) -> None:
    with pytest.raises(ValueError, match=r"no definitions|Expecting value"):
        Definitions.from_json(stored)


def test_kinds_that_are_counted_are_few() -> None:
    many = {f"m{k}": Metric(kinds=tuple(f"kind{k}-{j}" for j in range(6))) for k in range(4)}
    with pytest.raises(ValueError, match="at most 20 different kinds"):
        Definitions(experiments=(Experiment(name="e", metrics=many),))
