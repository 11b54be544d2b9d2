"""Users who are gone cost nothing in the long run, and those who stay keep their numbers."""

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
