"""Users and assignments that are gone cost nothing in the long run, and those that stay keep their numbers."""

from stream.contracts.definitions import Definitions, Experiment
from tests.engine.makers import DAY, HOUR, MINUTE, T0, Run, an_assignment, an_impression, an_interaction


def test_users_without_assignment_and_held_events_are_forgotten() -> None:
    run = Run()
    for day in range(40):
        at = T0 + day * DAY
        run.step(impressions=[an_impression(f"{day}-{i}", at, f"{day}-u{i}") for i in range(200)])
    assert len(run.engine._store.a["users"]) == 1024


def test_users_who_stay_keep_their_sums_and_events_when_others_are_forgotten() -> None:
    run = Run()
    run.step(
        impressions=[an_impression(f"gone{i}", T0, f"gone{i}") for i in range(900)],
        assignments=[an_assignment("a", T0, "stays")],
    )
    later = T0 + 5 * DAY
    run.step(impressions=[an_impression("i", later, "stays"), an_impression("j", later, "new")])
    run.step(impressions=[an_impression(f"fresh{i}", later + MINUTE, f"fresh{i}") for i in range(900)])
    assert len(run.engine._store.a["users"]) == 1024
    run.step(
        interactions=[
            an_interaction("n", later + HOUR, "stays", impression_id="imp-i"),
            an_interaction("m", later + HOUR, "new", impression_id="imp-j"),
        ],
        assignments=[an_assignment("b", T0, "new", arm="control")],
    )
    stays, new = run.total(arm="treatment"), run.total(arm="control")
    assert (stays["impressions"], stays["clicks"], stays["clicked_impressions"]) == (1, 1, 1)
    assert (new["impressions"], new["clicks"], new["clicked_impressions"]) == (1, 1, 1)


def test_event_ids_of_ended_experiments_are_dropped_and_those_of_others_still_compare() -> None:
    ending = [Experiment(name=f"e{k}", ends_at_ms=T0 + k * 3 * DAY + DAY) for k in range(8)]
    run = Run(Definitions(experiments=tuple(ending)))
    run.step(assignments=[an_assignment("m" * 40, T0, "stays", experiment="goes on", arm="m")])
    for k in range(8):
        at = T0 + k * 3 * DAY
        run.step(
            assignments=[
                an_assignment(f"{k}-{u}" + 30 * "x", at, f"{u}", experiment=f"e{k}") for u in range(200)
            ]
        )
        run.step(impressions=[an_impression(f"{k}", at + 3 * DAY, "stays")])
    assert len(run.engine._store.a["arena"]) == 16_384  # of two experiments; eight have brought 56,000 bytes
    run.step(assignments=[an_assignment("l" * 40, T0, "stays", experiment="goes on", arm="l")])
    assert run.total("goes on", "m")["mixed_users"] == 1
    run.step(assignments=[an_assignment("n" * 40, T0, "stays", experiment="goes on", arm="n")])
    assert run.total("goes on", "n")["mixed_users"] == 1
