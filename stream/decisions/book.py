"""What was decided, as it stands in the checkpoint store: the one place that says whether something was decided.

    decisions/<id>/decision          written with put-if-absent before anything is done
    decisions/<id>/undone            who took it back, put-if-absent
    decisions/<id>/done/<action>     the action needs no repeating
    watches/<experiment>             what is remembered of its rules from look to look
    switches/<experiment>            its arms that are switched off now; absent where none is
    notes/<id>/<word>                a command wrote to this decision: the owner of the experiment should look

Not below a generation: a decision and a switched-off arm outlive a start over.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from stream.decisions.decision import Decision, Kind, Undone, plain
from stream.decisions.watch import Watch
from stream.errors import DamagedStore

_DECISIONS, _WATCHES, _SWITCHES, _NOTES = "decisions", "watches", "switches", "notes"

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){2}/[0-9]+")

Watches = dict[tuple[str, str], Watch]  # by name of the rule and arm


class Store(Protocol):
    """What we need of durability.store.Store."""

    def create(self, path: str, data: bytes) -> bool:
        """Write unless the path exists; of many callers exactly one gets True."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write or replace."""
        ...

    def get(self, path: str) -> bytes | None:
        """The bytes, or None."""
        ...

    def names(self, folder: str, after: str = "") -> list[str]:
        """Sorted paths below a folder."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """A decision and what became of it. done: names of the actions that need no repeating."""

    decision: Decision
    undone: Undone | None = None
    done: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Switch:
    """An arm that is switched off: what is served instead, and by which decision."""

    fallback: str
    decision: str


@dataclass(frozen=True, slots=True)
class Switches:
    """The arms of one experiment that are switched off now."""

    experiment: str
    arms: Mapping[str, Switch]


@dataclass(frozen=True, slots=True)
class Note:
    """What a command left for the owner of an experiment."""

    path: str
    experiment: str

    @property
    def decision_id(self) -> str:
        """Of the decision that it is about."""
        return self.path.removeprefix(f"{_NOTES}/").rpartition("/")[0]


class Book:
    """Reads and writes the pages. All methods raise what the store raises, DamagedStore for what cannot be read."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # Decisions

    def write(self, decision: Decision) -> bool:
        """Take the decision; False when there is one of that id already."""
        return self._store.create(f"{_DECISIONS}/{decision.id}/decision", decision.to_json())

    def page(self, decision_id: str) -> Page | None:
        """One decision; None when there is none of that id, whatever that is."""
        if not _ID.fullmatch(decision_id):
            return None
        pages = self._pages(f"{_DECISIONS}/{decision_id}")
        return pages[0] if pages else None

    def pages(self, experiment: str) -> list[Page]:
        """All decisions of an experiment, by number."""
        return self._pages(f"{_DECISIONS}/{plain(experiment)}")

    def undo(self, decision_id: str, undone: Undone) -> bool:
        """Take a decision back; False when somebody has done so before."""
        return self._store.create(f"{_DECISIONS}/{decision_id}/undone", undone.to_json())

    def mark_done(self, decision_id: str, action: str, how: str) -> None:
        """Note that an action needs no repeating, and how it ended."""
        self._store.put(f"{_DECISIONS}/{decision_id}/done/{action}", how.encode())

    def _pages(self, folder: str) -> list[Page]:
        parts: dict[str, set[str]] = {}
        for path in self._store.names(folder):
            *place, rest = path.removeprefix(f"{_DECISIONS}/").split("/", 4)
            parts.setdefault("/".join(place), set()).add(rest)
        pages = [
            self._page(decision_id, names) for decision_id, names in parts.items() if "decision" in names
        ]
        return sorted(pages, key=lambda page: (page.decision.number, page.decision.id))

    def _page(self, decision_id: str, names: set[str]) -> Page:
        place = f"{_DECISIONS}/{decision_id}"
        try:
            decision = Decision.from_json(self._store.get(f"{place}/decision") or b"")
            undone = (
                Undone.from_json(self._store.get(f"{place}/undone") or b"") if "undone" in names else None
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedStore(
                f"The decision {place} cannot be read: restore it, or remove its folder."
            ) from error
        done = frozenset(name.removeprefix("done/") for name in names if name.startswith("done/"))
        return Page(decision, undone, done)

    # What is remembered from look to look

    def watches(self, experiment: str) -> Watches:
        """The watches as they were kept last; one that cannot be read is begun anew."""
        try:
            rows = json.loads(self._store.get(f"{_WATCHES}/{plain(experiment)}") or b"[]")
            return {(row.pop("rule"), row.pop("arm")): Watch(**row) for row in rows}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    def keep_watches(self, experiment: str, watches: Watches) -> None:
        """Replace the watches."""
        rows = [{"rule": rule, "arm": arm, **asdict(watch)} for (rule, arm), watch in watches.items()]
        self._store.put(f"{_WATCHES}/{plain(experiment)}", json.dumps(rows).encode())

    # What is switched off

    def switches(self) -> list[Switches]:
        """Of all experiments that have any."""
        found = []
        for path in self._store.names(_SWITCHES):
            data = self._store.get(path)
            if data is not None:  # else it was taken back just now
                found.append(_switches(path, data))
        return found

    def keep_switches(self, switches: Switches) -> None:
        """Replace an experiment's switches."""
        path = f"{_SWITCHES}/{plain(switches.experiment)}"
        if switches.arms:
            self._store.put(path, json.dumps(asdict(switches), indent=1).encode())
        else:
            self._store.delete([path])

    # Notes of commands to workers

    def leave_note(self, page: Page) -> None:
        """Ask the owner of the experiment to look at this decision, or at its undoing."""
        word = "decided" if page.undone is None else "undone"
        self._store.put(f"{_NOTES}/{page.decision.id}/{word}", page.decision.experiment.encode())

    def notes(self) -> list[Note]:
        """Those that nobody has removed."""
        found = [(path, self._store.get(path)) for path in self._store.names(_NOTES)]
        return [Note(path, data.decode()) for path, data in found if data is not None]

    def remove_note(self, note: Note) -> None:
        """It has been seen to."""
        self._store.delete([note.path])


def switches_of(experiment: str, pages: Iterable[Page]) -> Switches:
    """What the decisions together switch off: a guardrail's arm, while one armed firing of it is not undone."""
    arms: dict[str, Switch] = {}
    for page in pages:
        decision = page.decision
        if decision.kind is not Kind.GUARDRAIL or decision.fallback is None:
            continue
        if decision.is_armed and page.undone is None and decision.arm != decision.fallback:
            arms[decision.arm] = Switch(decision.fallback, decision.id)
    return Switches(experiment, {arm: _followed(arms, arm) for arm in arms})


def _followed(arms: Mapping[str, Switch], arm: str) -> Switch:
    """A fallback may be switched off itself: then its own fallback is served."""
    switch, passed = arms[arm], {arm}
    while switch.fallback in arms and switch.fallback not in passed:
        passed.add(switch.fallback)
        switch = Switch(arms[switch.fallback].fallback, switch.decision)
    return switch


def _switches(path: str, data: bytes) -> Switches:
    try:
        fields: dict[str, Any] = json.loads(data)
        return Switches(
            fields["experiment"], {arm: Switch(**switch) for arm, switch in fields["arms"].items()}
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedStore(f"The switches {path} cannot be read: remove the file, and undo again.") from error
