import pytest

from stream.contracts.definitions import Definitions, Experiment, Metric, Phase, Policy
from stream.durability.compatibility import incompatible


def with_experiment(**rules: object) -> Definitions:
    return Definitions(experiments=(Experiment(name="exp", **rules),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (with_experiment(policy=Policy.FIRST), "policy = exclude.* cannot become first"),
        (with_experiment(surfaces=("home", "cart")), r"surfaces = \(all\).* cannot become home, cart"),
        (with_experiment(revenue_cap_minor=5), "revenue_cap_minor = None.* cannot become 5"),
        (with_experiment(pre_value="clicks"), "pre_value = None.* cannot become clicks"),
        (with_experiment(currency="USD"), "currency = EUR.* cannot become USD"),
        (Definitions(currency="USD"), "currency = EUR.* cannot become USD"),
        (Definitions(slice_dimensions=("country",)), "slice_dimensions became country"),
    ],
)
def test_what_would_mix_two_meanings_in_one_number_is_refused(new: Definitions, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(incompatible(Definitions(), new, ["exp"]))


def phases(*starts: int) -> tuple[Phase, ...]:
    return tuple(Phase(starts_at_ms=start, shares={"a": 0.5, "b": 0.5}) for start in starts)


@pytest.mark.parametrize(
    ("old", "new", "is_fine"),
    [
        ((), phases(0), True),
        ((), phases(0, 3_000), True),
        ((), phases(0, 2_000), False),
        (phases(0), phases(0, 3_000), True),
        (phases(0, 3_000), phases(0), True),
        (phases(0, 1_000), phases(0), False),
        (phases(0, 1_000), phases(0, 1_500), False),
        (phases(0), (), False),
    ],
)
def test_only_phases_to_come_may_change(
    old: tuple[Phase, ...], new: tuple[Phase, ...], is_fine: bool
) -> None:
    refusal = incompatible(with_experiment(phases=old), with_experiment(phases=new), ["exp"], newest_ms=2_000)
    assert (refusal is None) == is_fine


def test_metrics_are_only_added_behind_those_that_are_counted() -> None:
    carts, wishes = {"carts": Metric(kinds=("cart",))}, {"wishes": Metric(kinds=("wish",))}
    both, swapped = with_experiment(metrics=carts | wishes), with_experiment(metrics=wishes | carts)
    assert incompatible(with_experiment(metrics=carts), both, ["exp"]) is None
    assert "in their order" in (incompatible(both, swapped, ["exp"]) or "")
    assert "in their order" in (incompatible(both, with_experiment(metrics=carts), ["exp"]) or "")


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
