from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stream.contracts.definitions import Arm, Definitions, Experiment, Policy, duration_ms, load_experiments
from stream.errors import ConfigurationError

WHOLE = """
name = "home-ranker"
control = "baseline"
policy = "as_of"
surfaces = ["home", "search"]
ends_at = 2026-12-01T00:00:00Z
currency = "JPY"

[arms.baseline]
share = 0.5
[arms.model-b]
share = 0.5
"""


def a_folder(folder: Path, **files: str) -> Path:
    for stem, content in files.items():
        (folder / f"{stem}.toml").write_text(content)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_experiments(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("90s", 90_000),
        ("15m", 900_000),
        ("24h", 86_400_000),
        ("7d", 604_800_000),
        ("2w", 1_209_600_000),
        ("500ms", 500),
        (" 24 h ", 86_400_000),
        (timedelta(hours=1), 3_600_000),
    ],
)
def test_a_duration_is_a_number_with_a_unit(written: Any, ms: int) -> None:
    assert duration_ms(written) == ms


@pytest.mark.parametrize(
    "written", ["", "h", "24", "1.5h", "-1h", "24 hours", "1h30m", True, None, 24, 0, -5, timedelta(-1)]
)
def test_what_is_no_duration_is_refused_with_an_example(written: Any) -> None:
    with pytest.raises(ValueError, match="such as 90s, 24h or 7d"):
        duration_ms(written)


def test_a_file_says_everything_about_an_experiment(tmp_path: Path) -> None:
    (experiment,) = load_experiments(a_folder(tmp_path, other=WHOLE))
    assert experiment == Experiment(
        name="home-ranker",
        control="baseline",
        arms={"baseline": Arm(share=0.5), "model-b": Arm(share=0.5)},
        policy=Policy.AS_OF,
        surfaces=("home", "search"),
        ends_at_ms=1_796_083_200_000,
        currency="JPY",
    )


def test_an_empty_file_is_an_experiment_named_after_it(tmp_path: Path) -> None:
    assert load_experiments(a_folder(tmp_path, checkout="")) == (Experiment(name="checkout"),)


def test_experiments_are_sorted_by_name(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, a='name = "z"', b="", c='name = "a"')
    assert [experiment.name for experiment in load_experiments(folder)] == ["a", "b", "z"]


def test_a_time_without_offset_is_utc(tmp_path: Path) -> None:
    (experiment,) = load_experiments(a_folder(tmp_path, e="ends_at = 2026-12-01T00:00:00"))
    assert experiment.ends_at_ms == 1_796_083_200_000


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('contorl = "a"', "contorl is not a key of an experiment file (did you mean control?)"),
        ("[arms.a]\nshare = 0.5\n[arms.b]\nshare = 0.4", "the arms' shares must add up to 1, not 0.9"),
        ("[arms.a]\nshare = 1.0\n[arms.b]", "share must be declared for every arm or for none"),
        ("[arms.a]\nshare = 0\n[arms.b]\nshare = 1", "arms.a.share must be more than 0.0 (got 0)"),
        ('[arms.a]\nshare = "0.5"', "arms.a.share must be a number (got '0.5')"),
        ("[arms.a]\nweight = 1", "arms.a.weight is not a"),
        ('control = "c"\n[arms.a]\n[arms.b]', "control = 'c' must be one of the arms: a, b"),
        ('policy = "last"', "policy must be 'exclude', 'first' or 'as_of' (got 'last')"),
        ('ends_at = "2026-12-01T00:00:00Z"', "ends_at must be a date with a time"),
        ("ends_at = 2026-12-01", "ends_at must be a date with a time"),
        ("ends_at = 1796083200000", "ends_at must be a date with a time"),
        ("ends_at_ms = 1796083200000", "ends_at_ms is not a key"),
        ('currency = "euro"', "currency must be three upper-case letters"),
        ('name = ""', "name must not be empty"),
        ('surfaces = "home"', "surfaces must be a list (got 'home')"),
        ("arms = 5", "arms must be a table of keys (got 5)"),
        ("arms.a = 5", "arms.a must be a table of keys (got 5)"),
        ("surfaces = [1]", "surfaces.0 must be text (got 1)"),
        ("\n".join(f"[arms.a{n}]" for n in range(21)), "arms has more than 20 entries"),
        ("control = ", "Invalid value (at end of document)"),
    ],
)
def test_a_wrong_file_is_refused_with_file_key_and_rule(tmp_path: Path, content: str, sentence: str) -> None:
    text = refusal(a_folder(tmp_path, wrong=content))
    assert text.startswith(f"{tmp_path}/wrong.toml: ")
    assert sentence in text
    assert "\n" not in text


def test_two_files_with_the_same_name_are_refused(tmp_path: Path) -> None:
    assert "'b' is already the experiment of a.toml" in refusal(a_folder(tmp_path, a='name = "b"', b=""))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere")


def test_more_experiments_than_can_run_are_refused(tmp_path: Path) -> None:
    text = refusal(a_folder(tmp_path, **{f"e{n}": "" for n in range(1_001)}))
    assert text.endswith("has 1001 experiments; at most 1,000 can run.")


@pytest.mark.parametrize(
    ("experiment", "seen", "control"),
    [
        (Experiment(name="e", control="base"), ["control", "base"], "base"),
        (Experiment(name="e"), ["control", "b"], "control"),
        (Experiment(name="e"), ["a", "b"], None),
        (Experiment(name="e", arms={"control": Arm(), "b": Arm()}), ["b"], "control"),
    ],
)
def test_the_control_is_the_declared_one_else_the_arm_of_that_name(
    experiment: Experiment, seen: list[str], control: str | None
) -> None:
    assert experiment.control_among(seen) == control


def some_definitions(**changes: Any) -> Definitions:
    experiments = (
        Experiment(name="a", arms={"x": Arm(share=0.5), "größer": Arm(share=0.5)}),
        Experiment(name="b"),
    )
    return Definitions(**{"experiments": experiments, "currency": "USD"} | changes)


def test_definitions_survive_json() -> None:
    assert Definitions.from_json(some_definitions().to_json()) == some_definitions()
    assert Definitions.from_json(Definitions().to_json()) == Definitions()


def test_equal_definitions_give_equal_bytes_whatever_the_order_of_their_arms() -> None:
    one = Experiment(name="a", arms={"x": Arm(), "y": Arm()})
    other = Experiment(name="a", arms={"y": Arm(), "x": Arm()})
    assert Definitions(experiments=(one,)).to_json() == Definitions(experiments=(other,)).to_json()
    assert list(other.arms) == ["x", "y"]


def test_the_digest_changes_with_any_definition() -> None:
    digests = {
        some_definitions().digest,
        some_definitions(currency="EUR").digest,
        some_definitions(allowed_lateness_ms=1).digest,
        some_definitions(conversion_kinds=("purchase", "rental")).digest,
        some_definitions(experiments=()).digest,
    }
    assert len(digests) == 5
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in digests)
    assert Definitions().digest == "dfa044df823f9ba9"  # journals hold it: it must not change by accident


def test_unsorted_or_equal_names_are_refused() -> None:
    for names in ("ba", "aa"):
        with pytest.raises(ValidationError, match="sorted by name"):
            Definitions(experiments=tuple(Experiment(name=name) for name in names))


def test_an_experiment_without_a_file_has_the_defaults() -> None:
    assert some_definitions().experiment("b") == Experiment(name="b")
    assert some_definitions().experiment("unknown") == Experiment(name="unknown")
