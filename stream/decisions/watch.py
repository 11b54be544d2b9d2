"""When a rule that is true fires: after its hold time, once, and again only after it was false or was undone.

All times are as_of, event time: they run with the data, not with the clock of the machine.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Watch:
    """What is remembered of one rule and arm from look to look.

    since_ms: as_of since which the rule has been true at every look. fired: number of the last firing. is_spent: the
    rule has been true ever since it fired. quiet_until_ms: not to fire again before. is_dry: the last firing only said
    what would have been done. released: number of the last firing that was seen to be undone.
    """

    since_ms: int | None = None
    fired: int = 0
    is_spent: bool = False
    quiet_until_ms: int = 0
    is_dry: bool = False
    released: int = 0

    def undone(self, as_of_ms: int, cooldown_ms: int) -> "Watch":
        """After somebody took the last firing back: one cooldown of grace, then it may fire again."""
        if self.released == self.fired:
            return self
        quiet_until_ms = as_of_ms + cooldown_ms
        return replace(
            self, is_spent=False, since_ms=None, quiet_until_ms=quiet_until_ms, released=self.fired
        )

    def has_fired(self, number: int, as_of_ms: int, cooldown_ms: int, *, is_dry: bool) -> "Watch":
        """After firing `number` at as_of."""
        quiet_until_ms = as_of_ms + cooldown_ms
        return replace(self, fired=number, is_spent=True, quiet_until_ms=quiet_until_ms, is_dry=is_dry)


def look(
    watch: Watch, is_true: bool | None, as_of_ms: int, *, hold_ms: int, is_armed: bool
) -> tuple[Watch, bool]:
    """The watch after one look, and whether the rule fires now; the caller says so with `has_fired`.

    A firing that only said what would have been done does not keep one that does it from happening.
    """
    if is_true is None:
        return replace(watch, since_ms=None), False
    if not is_true:
        return replace(watch, since_ms=None, is_spent=False), False
    watch = watch if watch.since_ms is not None else replace(watch, since_ms=as_of_ms)
    assert watch.since_ms is not None
    has_held = as_of_ms - watch.since_ms >= hold_ms
    if watch.is_dry and is_armed:
        return watch, has_held
    return watch, has_held and not watch.is_spent and as_of_ms >= watch.quiet_until_ms
