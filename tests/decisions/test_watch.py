"""Hold, cooldown and firing once, in the time of the events."""

from stream.decisions.watch import Watch, look

HOLD, COOLDOWN = 10, 100
NEW = Watch()


def firings(
    story: list[tuple[int, bool | None]], *, armed: bool = True, watch: Watch = NEW, hold: int = HOLD
) -> list[int]:
    """The times at which a rule fires that is true or not at these times."""
    found = []
    for as_of, is_true in story:
        watch, fires = look(watch, is_true, as_of, hold_ms=hold, is_armed=armed)
        if fires:
            found.append(as_of)
            watch = watch.has_fired(watch.fired + 1, as_of, COOLDOWN, is_dry=not armed)
    return found


def test_a_rule_fires_once_it_has_held_and_then_not_again_while_it_stays_true() -> None:
    assert firings([(t, True) for t in range(0, 1_000, 5)]) == [10]


def test_without_hold_it_fires_at_once() -> None:
    assert firings([(3, True), (4, True)], hold=0) == [3]


def test_an_interruption_begins_the_hold_anew() -> None:
    assert firings([(0, True), (8, False), (9, True), (18, True), (19, True)]) == [19]
    assert firings([(0, True), (8, None), (9, True), (18, True), (19, True)]) == [19]


def test_it_fires_again_after_it_was_false_and_the_cooldown_is_over() -> None:
    story = [
        (0, True),
        (10, True),
        (20, False),
        (30, True),
        (60, True),
        (109, True),
        (110, True),
        (200, True),
    ]
    assert firings(story) == [10, 110]


def test_not_knowing_is_not_being_false() -> None:
    assert firings([(0, True), (10, True), (500, None), (600, True), (700, True)]) == [10]


def test_an_undone_firing_has_one_cooldown_of_grace() -> None:
    watch = Watch(since_ms=0, fired=1, is_spent=True, quiet_until_ms=110)
    released = watch.undone(300, COOLDOWN)
    assert firings([(t, True) for t in range(301, 600)], watch=released) == [400]
    assert released.undone(500, COOLDOWN) == released


def test_a_dry_firing_does_not_keep_an_armed_one_from_happening() -> None:
    dry = Watch(since_ms=0, fired=1, is_spent=True, quiet_until_ms=9_999, is_dry=True)
    assert firings([(20, True), (21, True)], watch=dry) == [20]
    assert firings([(20, True), (21, True)], watch=dry, armed=False) == []
