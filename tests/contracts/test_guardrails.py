"""Guardrails, promotion and roles in experiment files."""

from pathlib import Path

import pytest

from stream.contracts.definitions import Definitions, Experiment, load_experiment
from stream.contracts.guardrails import Better, Margin, Role
from stream.errors import ConfigurationError

ARMS = '[arms.old]\nrole = "champion"\n[arms.new]\nrole = "challenger"\n'


def load(folder: Path, text: str) -> Experiment:
    (folder / "ranker.toml").write_text(text)
    return load_experiment(folder / "ranker.toml")


def test_a_file_declares_guardrails_promotion_and_roles(tmp_path: Path) -> None:
    experiment = load(
        tmp_path,
        'control = "old"\n' + ARMS + '[metrics.errors]\nkinds = ["error"]\n'
        '[[guardrails]]\nmetric = "ctr"\nworse_than_control = "5%"\nhold = "30s"\ncooldown = "2h"\n'
        '[[guardrails]]\nmetric = "latency_ms"\nmax = 250\n'
        '[[guardrails]]\nmetric = "ctr"\nwindow = "5m"\nchange = "-30%"\n'
        '[[guardrails]]\nmetric = "errors"\nworse_than_control = 0.01\nbetter = "lower"\n'
        '[promotion]\nmetric = "ctr"\nmargin = "2%"\nmin_runtime = "14d"\n',
    )
    worse, latency, window, errors = experiment.guardrails
    assert worse.worse_than_control == Margin(size=0.05, is_relative=True)
    assert (worse.hold_ms, worse.cooldown_ms, worse.direction) == (30_000, 7_200_000, Better.HIGHER)
    assert (latency.max, latency.direction, latency.label) == (250, Better.LOWER, "latency_ms-range")
    assert (window.change, window.label) == (-0.3, "ctr-change-5m")
    assert (errors.worse_than_control, errors.direction) == (Margin(size=0.01), Better.LOWER)
    assert experiment.promotion is not None
    assert experiment.promotion.min_runtime_ms == 14 * 86_400_000
    assert experiment.arms_with(Role.CHAMPION) == ("old",)
    definitions = Definitions(experiments=(experiment,))
    assert Definitions.from_json(definitions.to_json()) == definitions


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[guardrails]]\nmetric = "ctr"', "exactly one rule"),
        ('[[guardrails]]\nmetric = "ctr"\nmin = 0.1\nchange = -0.1', "exactly one rule"),
        ('[[guardrails]]\nmetric = "ctr"\nmin = 0.2\nmax = 0.1', "min must not be above max"),
        ('[[guardrails]]\nmetric = "ctr"\nchange = 0.0', "change must not be 0"),
        ('[[guardrails]]\nmetric = "ctr"\nchange = "20 percent"', "a percentage such as"),
        ('[[guardrails]]\nmetric = "crt"\nmin = 0.1', "'crt' is not among ctr"),
        ('[[guardrails]]\nmetric = "ctr"\nmin = 0.1\narm = "newer"', "the arm 'newer'"),
        ('[[guardrails]]\nmetric = "ctr"\nmin = 0.1\nhold = "soon"', "hold: 'soon' is not a duration"),
        ('[[guardrails]]\nmetric = "ctr"\nmin = 0.1\nhold_ms = 5', 'write hold = "30s"'),
        ('[[guardrails]]\nmetric = "ctr"\nmin = 0.1\nname = "promoted"', "must not be named promoted"),
        ('[[guardrails]]\nmetric = "ctr"\nmin = 0.1\n' * 2, "called 'ctr-range'"),
        ('[[guardrails]]\nmetric = "latency_ms"\nmax = 9\nwindow = "5m"', "a window has only ctr"),
        ('[[guardrails]]\nmetric = "ctr"\nworse_than_control = 0\nwindow = "5m"', "no intervals"),
        ('[metrics.e]\nkinds = ["e"]\n[[guardrails]]\nmetric = "e"\nworse_than_control = 0', "better = "),
        ('[promotion]\nmetric = "ctr"\nmargin = -0.1', "must be at least 0"),
    ],
)
def test_a_mistake_names_the_file_and_the_rule(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path, ARMS + text)
    assert "ranker.toml: " in str(raised.value)
    assert words in str(raised.value)


def test_there_is_one_champion(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="only one arm can be the champion, not new and old"):
        load(tmp_path, ARMS.replace("challenger", "champion"))
