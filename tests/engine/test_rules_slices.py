"""Slices: of panes by the impression, of totals by the user's earliest assignment; unknown and other values."""

from stream.contracts.definitions import Definitions, Experiment, Policy
from tests.engine.makers import HOUR, MINUTE, T0, Run, an_assignment, an_impression, an_interaction

SHOWN = T0 + MINUTE


def values(run: Run, dimension: str, column: str) -> dict[str, int]:
    """A column of the panes by value of a dimension, over all panes."""
    out: dict[str, int] = {}
    for (_, _, name, value, _), counts in run.panes().items():
        if name == dimension and counts[column]:
            out[value] = out.get(value, 0) + counts[column]
    return out


def test_pane_slices_take_the_impressions_values() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(country="US", device="tv")],
        impressions=[
            an_impression(country="DE", device="web", category="shoes", surface="cart", model_version="v7")
        ],
    )
    dimensions = ("country", "device", "category", "surface", "model_version")
    assert [values(run, d, "impressions") for d in dimensions] == [
        {"DE": 1}, {"web": 1}, {"shoes": 1}, {"cart": 1}, {"v7": 1},
    ]  # fmt: skip


def test_a_null_value_is_the_slice_unknown() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()],
        impressions=[an_impression(country=None), an_impression("i2", country="DE")],
    )
    assert values(run, "country", "impressions") == {"__unknown__": 1, "DE": 1}


def test_own_time_counts_take_the_credited_impressions_values_else_unknown() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()], impressions=[an_impression(at=SHOWN, country="DE")],
        interactions=[
            an_interaction("n1", SHOWN), an_interaction("n2", SHOWN, impression_id=None),
            an_interaction("n3", SHOWN, impression_id="imp-none", kind="purchase", value_minor=4),
        ],
    )  # fmt: skip
    assert values(run, "country", "clicks") == {"DE": 1, "__unknown__": 1}
    assert values(run, "country", "revenue_minor") == {"__unknown__": 4}
    assert values(run, "country", "clicked_impressions") == {"DE": 1}


def test_the_slices_of_a_dimension_add_up_to_all() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()],
        impressions=[an_impression(f"i{k}", SHOWN + k, country=[None, "DE", "IN"][k % 3]) for k in range(30)],
    )
    assert sum(values(run, "country", "impressions").values()) == values(run, "all", "impressions")[""] == 30


def test_slice_dimensions_are_a_setting() -> None:
    run = Run(Definitions(slice_dimensions=("item_id", "model")))
    run.step(assignments=[an_assignment()], impressions=[an_impression(item_id="x7")])
    assert {key[2:4] for key in run.panes()} == {("all", ""), ("item_id", "x7"), ("model", "m")}


def test_without_dimensions_there_is_only_all() -> None:
    run = Run(Definitions(slice_dimensions=()))
    run.step(assignments=[an_assignment()], impressions=[an_impression()])
    assert {key[2:4] for key in run.panes()} == {("all", "")}


def test_the_1001st_value_of_a_dimension_is_other() -> None:
    run = Run(Definitions(slice_dimensions=("category",)))
    run.step(
        assignments=[an_assignment()],
        impressions=[an_impression(f"i{k}", SHOWN, category=f"c{k}") for k in range(1_003)],
    )
    by_category = values(run, "category", "impressions")
    assert len(by_category) == 1_001
    assert by_category["c999"] == 1
    assert by_category["__other__"] == 3
    run.step(
        impressions=[
            an_impression("again", SHOWN, category="c0"),
            an_impression("new", SHOWN, category="c2000"),
        ]
    )
    assert [values(run, "category", "impressions")[c] for c in ("c0", "__other__")] == [2, 4]


def test_the_1001st_value_of_a_user_slice_is_other() -> None:
    run = Run()
    run.step(assignments=[an_assignment(f"a{k}", user_id=f"u{k}", segment=f"s{k}") for k in range(1_004)])
    assert run.total(slice="segment=s999")["assigned_users"] == 1
    assert run.total(slice="segment=__other__")["assigned_users"] == 4
    assert run.total(slice="all")["assigned_users"] == 1_004


def test_user_slices_take_the_assignments_values() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(country="US", device=None, segment="new")],
        impressions=[an_impression(country="DE", device="web")], interactions=[an_interaction()],
    )  # fmt: skip
    for slice in ("all", "country=US", "device=__unknown__", "segment=new"):
        total = run.total(slice=slice)
        assert (total["assigned_users"], total["impressions"], total["clicked_impressions"]) == (1, 1, 1), (
            slice
        )
    assert run.total(slice="country=DE")["impressions"] == 0


def test_user_slices_take_the_earliest_assignments_values_whatever_the_order_of_arrival() -> None:
    for policy in Policy:
        for order in ((0, 1), (1, 0)):
            both = [an_assignment("1", T0, country="US"), an_assignment("2", T0 + HOUR, country="DE")]
            run = Run(Definitions(experiments=(Experiment(name="e1", policy=policy),)))
            run.step(assignments=[both[order[0]]], impressions=[an_impression(at=T0 + 2 * HOUR)])
            run.step(assignments=[both[order[1]]])
            assert run.total(slice="country=US")["impressions"] == 1, (policy, order)
            assert run.total(slice="country=US")["assigned_users"] == 1
            assert run.total(slice="country=DE") == {}


def test_under_as_of_every_arm_has_the_slice_of_the_earliest_assignment() -> None:
    run = Run(Definitions(experiments=(Experiment(name="e1", policy=Policy.AS_OF),)))
    run.step(
        assignments=[an_assignment("2", T0 + HOUR, arm="b", country="DE")],
        impressions=[an_impression(at=T0 + 2 * HOUR)],
    )  # fmt: skip
    assert run.total(arm="b", slice="country=DE")["impressions"] == 1
    run.step(assignments=[an_assignment("1", T0, arm="a", country="US")])
    assert run.total(arm="b", slice="country=US")["impressions"] == 1
    assert run.total(arm="b", slice="country=DE") == {}
    assert run.total(arm="a", slice="country=US")["assigned_users"] == 1


def test_a_declared_kind_or_surface_is_not_crowded_out_by_a_thousand_others() -> None:
    first, then = Definitions(), Definitions(conversion_kinds=("order",))
    run = Run(first)
    run.step(
        assignments=[an_assignment()],
        interactions=[an_interaction(f"n{i}", kind=f"junk{i}", impression_id=None) for i in range(1_100)],
    )
    run.definitions = then
    run.step(
        interactions=[
            an_interaction("wish", kind="wish", impression_id=None),
            an_interaction("order", kind="order", impression_id=None),
        ]
    )
    assert run.total()["conversions"] == 1
