import pytest

from stream.contracts.definitions import Definitions, Experiment, Policy
from stream.durability.compatibility import incompatible


def with_experiment(**rules: object) -> Definitions:
    return Definitions(experiments=(Experiment(name="exp", **rules),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (with_experiment(policy=Policy.FIRST), "policy = exclude.* cannot become first"),
        (with_experiment(surfaces=("home", "cart")), r"surfaces = \(all\).* cannot become home, cart"),
        (with_experiment(currency="USD"), "currency = EUR.* cannot become USD"),
        (Definitions(currency="USD"), "currency = EUR.* cannot become USD"),
        (Definitions(slice_dimensions=("country",)), "slice_dimensions became country"),
    ],
)
def test_what_would_mix_two_meanings_in_one_number_is_refused(new: Definitions, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(incompatible(Definitions(), new, ["exp"]))


def test_an_experiment_without_data_may_still_change() -> None:
    assert incompatible(Definitions(), with_experiment(policy=Policy.FIRST), ["other"]) is None


def test_a_file_that_says_what_held_without_it_is_fine() -> None:
    assert incompatible(Definitions(), with_experiment(currency="EUR", control="a"), ["exp"]) is None


def test_what_only_holds_from_now_on_may_change() -> None:
    new = Definitions(attribution_window_ms=1, allowed_lateness_ms=2, conversion_kinds=("order",))
    assert incompatible(Definitions(), new, ["exp"]) is None


def test_an_end_may_move_only_while_no_event_has_reached_it() -> None:
    old, new = with_experiment(ends_at_ms=2_000), with_experiment(ends_at_ms=3_000)
    assert incompatible(old, new, ["exp"], newest_ms=1_999) is None
    assert "ends_at" in (incompatible(old, new, ["exp"], newest_ms=2_000) or "")
    assert "ends_at" in (incompatible(old, with_experiment(), ["exp"], newest_ms=2_500) or "")
    assert incompatible(with_experiment(), new, ["exp"], newest_ms=2_500) is None
