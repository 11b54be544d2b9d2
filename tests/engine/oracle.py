"""The meaning of the numbers in interpreted Python, as plain as possible: what the engine is held against.

It keeps every event as a dict, walks all of them for everything, and computes totals from scratch. Events leave by the
same rule as in the engine (the horizon passes the newest event of their step); what a leaving event contributed stays.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from stream.contracts.definitions import Definitions, Policy
from stream.contracts.topics import Topic

MINUTE = 60_000
HOUR = 3_600_000
USER_DIMENSIONS = ("country", "device", "segment")
UNKNOWN = "__unknown__"
SUMS = ("impressions", "clicked", "converted", "clicks", "conversions", "revenue")
Event = dict[str, Any]


@dataclass
class Held:
    """An event in the state."""

    event: Event
    hour: int
    segment: int
    outside: bool = False
    credit: str = ""  # interactions: attributed, waiting, or why orphaned
    source: "Held | None" = None  # the impression it is credited to
    marks: list["Held"] = field(default_factory=list)  # impressions: interactions credited to it


class Oracle:
    """Takes the same steps as an engine; `totals`, `panes` and `ledger` say what must come out."""

    def __init__(self, definitions: Definitions) -> None:
        self.d = definitions
        self.clock = self.horizon = -1
        self.newest = [-1, -1, -1]
        self.segment_ms = -1
        self.segments: list[int] = []  # newest event by step
        self.ids: dict[tuple[int, str], int] = {}
        self.impressions: dict[str, Held] = {}
        self.interactions: list[Held] = []
        self.assignments: dict[tuple[str, str], list[Event]] = defaultdict(list)
        self.left_users: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        self.left_flags: Counter[tuple[str, str, str, str]] = Counter()
        self.left_panes: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
        self.frozen: dict[str, Any] = {}
        self.ledger: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
        self.arms: dict[str, list[str]] = defaultdict(list)

    # ---- steps

    def step(
        self, events: dict[Topic, list[tuple[Event, int]]], planned_at: int, caught_up: tuple[bool, ...]
    ) -> None:
        """events: by topic (event or None when undecodable, Kafka record time)."""
        self._leave()
        self._freeze()
        this = len(self.segments)
        for topic in Topic:
            for event, record_at in events.get(topic, []):
                hour = self.ledger[topic.word, record_at // HOUR]
                hour["consumed"] += 1
                outcome = self._take(topic, event, record_at, planned_at, this)
                hour[outcome] += 1
                if event is not None and outcome in ("counted", "outside", "duplicate"):
                    self.newest[topic] = max(self.newest[topic], event["at"])
        self.segment_ms = max(self.segment_ms, self.clock, *self.newest)
        self.segments.append(self.segment_ms)
        behind = [newest for newest, done in zip(self.newest, caught_up, strict=True) if not done]
        self.clock = max(self.clock, min(behind) if behind else max(self.newest))
        if self.clock >= 0:
            self.horizon = max(self.horizon, self.clock - self.d.allowed_lateness_ms)

    def _take(self, topic: Topic, event: Event | None, record_at: int, planned_at: int, this: int) -> str:
        if event is None:
            return "rejected"
        if event["at"] > min(record_at, planned_at + HOUR) + 5 * MINUTE:
            return "rejected"
        if topic == Topic.ASSIGNMENTS:
            declared = self.d.experiment(event["experiment"]).arms
            if declared and event["arm"] not in declared:
                return "rejected"
            arms = self.arms[event["experiment"]]
            if event["arm"] not in arms:
                if len(arms) >= 20:
                    return "rejected"
                arms.append(event["arm"])
        elif event["at"] < self.horizon:
            return "late"
        if (topic, event["event_id"]) in self.ids:
            return "duplicate"
        self.ids[topic, event["event_id"]] = this
        if topic == Topic.ASSIGNMENTS:
            return self._assign(event)
        outside = not any(self.assignments[event["user_id"], e] for e in self._experiments())
        held = Held(event, record_at // HOUR, this, outside)
        if topic == Topic.IMPRESSIONS:
            if event["impression_id"] in self.impressions:
                return "duplicate"
            self.impressions[event["impression_id"]] = held
            self._answer(held)
        else:
            self._attribute(held)
            self.interactions.append(held)
        return "outside" if outside else "counted"

    def _experiments(self) -> set[str]:
        return {e for _, e in self.assignments}

    def _assign(self, event: Event) -> str:
        user, e = event["user_id"], event["experiment"]
        ends_at = self.d.experiment(e).ends_at_ms
        if e in self.frozen or (ends_at is not None and event["at"] >= ends_at):
            return "counted"
        self.assignments[user, e].append(event)
        for held in [*self.impressions.values(), *self.interactions]:
            if held.event["user_id"] == user and held.outside:
                held.outside = False
                topic = "interactions" if "kind" in held.event else "impressions"
                self.ledger[topic, held.hour]["outside"] -= 1
                self.ledger[topic, held.hour]["counted"] += 1
        return "counted"

    # ---- attribution

    def _attribute(self, held: Held) -> None:
        event = held.event
        held.credit = "no_reference"
        if event["impression_id"] is not None:
            named = self.impressions.get(event["impression_id"])
            if named is None:
                held.credit = "waiting"
            else:
                self._settle(held, named)
        elif event["item_id"] is not None:
            held.credit = "waiting"
            for shown in self.impressions.values():
                self._improve(held, shown)

    def _answer(self, shown: Held) -> None:
        for held in self.interactions:
            if held.event["impression_id"] is not None:
                if held.credit == "waiting" and held.event["impression_id"] == shown.event["impression_id"]:
                    self._settle(held, shown)
            elif held.event["item_id"] is not None:
                self._improve(held, shown)

    def _settle(self, held: Held, shown: Held) -> None:
        delta = held.event["at"] - shown.event["at"]
        if shown.event["user_id"] != held.event["user_id"]:
            held.credit = "other_user"
        elif -5 * MINUTE <= delta <= self.d.attribution_window_ms:
            self._credit(held, shown)
        else:
            held.credit = "outside_window"

    def _improve(self, held: Held, shown: Held) -> None:
        """Credit by item to a later impression; tests have no two impressions of one user and item at the same time."""
        a, b = held.event, shown.event
        if a["user_id"] != b["user_id"] or a["item_id"] != b["item_id"]:
            return
        if 0 <= a["at"] - b["at"] <= self.d.attribution_window_ms and (
            held.source is None or b["at"] > held.source.event["at"]
        ):
            self._credit(held, shown)

    def _credit(self, held: Held, shown: Held) -> None:
        if held.source is not None and held.source.segment >= 0:
            held.source.marks.remove(held)
        held.source, held.credit = shown, "attributed"
        shown.marks.append(held)

    # ---- leaving

    def _leave(self) -> None:
        for key, step in list(self.ids.items()):
            if self.segments[step] < self.horizon:
                del self.ids[key]
        for name, held in list(self.impressions.items()):
            if self.segments[held.segment] + self.d.attribution_window_ms < self.horizon:
                self._settle_for_good(self._impression_parts(held))
                held.segment = -1
                del self.impressions[name]
        for held in list(self.interactions):
            if self.segments[held.segment] < self.horizon:
                if held.credit == "waiting":
                    held.credit = "unknown_impression"
                self._settle_for_good(self._interaction_parts(held))
                if not held.outside:
                    self.ledger["interactions", held.hour][held.credit] += 1
                self.interactions.remove(held)

    def _settle_for_good(self, parts: list[Any]) -> None:
        for kind, key, counts in parts:
            if kind == "flag":
                self.left_flags[key] += counts
            else:
                (self.left_users if kind == "user" else self.left_panes)[key].update(counts)

    def _freeze(self) -> None:
        for experiment in self.d.experiments:
            ends_at = experiment.ends_at_ms
            if ends_at is None or experiment.name in self.frozen:
                continue
            if ends_at < self.horizon - self.d.attribution_window_ms:
                totals = self.totals()
                for kind, pane, counts in self._parts():
                    if kind == "pane" and pane[0] == experiment.name:
                        self.left_panes[pane].update(counts)
                self.frozen[experiment.name] = {k: v for k, v in totals.items() if k[0] == experiment.name}
                for key in [k for k in self.assignments if k[1] == experiment.name]:
                    del self.assignments[key]

    # ---- contributions, from scratch

    def _ordered(self, user: str, e: str) -> list[Event]:
        """Assignments in force one after the other; of equal times the larger event_id."""
        return sorted(self.assignments[user, e], key=lambda a: (a["at"], a["event_id"]))

    def _earliest(self, user: str, e: str) -> Event:
        ordered = self._ordered(user, e)
        return [a for a in ordered if a["at"] == ordered[0]["at"]][-1]

    def _mixed(self, user: str, e: str) -> bool:
        return len({a["arm"] for a in self.assignments[user, e]}) > 1

    def _where(self, event: Event, surface: str, shown_at: int | None) -> list[tuple[str, str | None]]:
        """(experiment, arm or None) for each experiment of the user that is open to the event."""
        places: list[tuple[str, str | None]] = []
        for e in sorted(self._experiments()):
            if not self.assignments[event["user_id"], e] or e in self.frozen:
                continue
            rules = self.d.experiment(e)
            if rules.surfaces and surface not in rules.surfaces:
                continue
            ends_at = rules.ends_at_ms
            if ends_at is not None and event["at"] >= ends_at and (shown_at is None or shown_at >= ends_at):
                continue
            places.append((e, self._arm(event["user_id"], e, event["at"])))
        return places

    def _arm(self, user: str, e: str, at: int) -> str | None:
        """The arm an event of this time counts in, after the policy."""
        policy = self.d.experiment(e).policy
        in_force = [a for a in self._ordered(user, e) if a["at"] <= at]
        if not in_force or (policy == Policy.EXCLUDE and self._mixed(user, e)):
            return None
        return in_force[-1]["arm"] if policy == Policy.AS_OF else self._earliest(user, e)["arm"]

    def _flags(self, event: Event, e: str) -> list[Any]:
        first = self._earliest(event["user_id"], e)
        key = (e, first["arm"], self._slices_of(first))
        flags: list[Any] = []
        if event["at"] < first["at"]:
            flags.append(("flag", (*key, "before_assignment"), 1))
        if self._mixed(event["user_id"], e):
            flags.append(("flag", (*key, "mixed_events"), 1))
        return flags

    def _slices_of(self, assignment: Event) -> tuple[str, ...]:
        return tuple(assignment[d] or UNKNOWN for d in USER_DIMENSIONS)

    def _pane_slices(self, shown: Held | None) -> tuple[str, ...]:
        return tuple((shown.event[d] if shown else None) or UNKNOWN for d in self.d.slice_dimensions)

    def _impression_parts(self, held: Held) -> list[Any]:
        event = held.event
        counts = Counter(
            impressions=1,
            clicked=int(any(m.event["kind"] == "click" for m in held.marks)),
            converted=int(any(self._is_conversion(m.event) for m in held.marks)),
        )
        parts = []
        ended = lambda e: (end := self.d.experiment(e).ends_at_ms) is not None and event["at"] >= end  # noqa: E731
        for e, arm in self._where(event, event["surface"], None):
            if ended(e):
                continue
            parts += self._flags(event, e)
            if arm is not None:
                parts.append(("user", (event["user_id"], e, arm), counts))
                parts.append(("pane", (e, arm, self._pane_slices(held), event["at"] // 10_000), counts))
        return parts

    def _is_conversion(self, event: Event) -> bool:
        return event["kind"] in self.d.conversion_kinds and (event["value_minor"] or 0) >= 0

    def _interaction_parts(self, held: Held) -> list[Any]:
        event, shown = held.event, held.source
        parts = []
        surface = shown.event["surface"] if shown else UNKNOWN
        for e, arm in self._where(event, surface, shown.event["at"] if shown else None):
            parts += self._flags(event, e)
            if arm is None:
                continue
            first = self._earliest(event["user_id"], e)
            counts = Counter(
                clicks=int(event["kind"] == "click"), conversions=int(self._is_conversion(event))
            )
            if event["kind"] in self.d.conversion_kinds:
                if event["currency"] in (None, self.d.experiment(e).currency or self.d.currency):
                    counts["revenue"] += event["value_minor"] or 0
                else:
                    parts.append(("flag", (e, arm, self._slices_of(first), "foreign_currency"), 1))
            if any(counts.values()):
                parts.append(("user", (event["user_id"], e, arm), counts))
                parts.append(("pane", (e, arm, self._pane_slices(shown), event["at"] // 10_000), counts))
        return parts

    # ---- what must come out

    def _parts(self) -> list[Any]:
        held: list[Any] = []
        for impression in self.impressions.values():
            held += self._impression_parts(impression)
        for interaction in self.interactions:
            held += self._interaction_parts(interaction)
        return held

    def totals(self) -> dict[tuple[str, str, str, str], Counter[str]]:
        """By (experiment, arm, dimension, value)."""
        users: dict[Any, Counter[str]] = defaultdict(Counter)
        out: dict[Any, Counter[str]] = defaultdict(Counter)
        for key, counts in self.left_users.items():
            users[key].update(counts)
        flags = Counter(self.left_flags)
        for kind, key, counts in self._parts():
            if kind == "user":
                users[key].update(counts)
            elif kind == "flag":
                flags[key] += counts
        for (e, arm, slices, name), n in flags.items():
            self._spread(out, e, arm, slices, Counter({name: n}))
        for (user, e), assignments in self.assignments.items():
            if assignments:
                self._add_user(out, users, user, e)
        for frozen in self.frozen.values():
            out.update(frozen)
        return {k: v for k, v in out.items() if any(v.values())}

    def _add_user(
        self, out: dict[Any, Counter[str]], users: dict[Any, Counter[str]], user: str, e: str
    ) -> None:
        policy, mixed, first = self.d.experiment(e).policy, self._mixed(user, e), self._earliest(user, e)
        slices = self._slices_of(first)
        if mixed:
            self._spread(out, e, first["arm"], slices, Counter(mixed_users=1))
        if mixed and policy == Policy.EXCLUDE:
            return
        all_arms = sorted({a["arm"] for a in self.assignments[user, e]})
        for arm in all_arms if policy == Policy.AS_OF else [first["arm"]]:
            of_arm = [arm] if policy == Policy.AS_OF else self.arms[e]
            s: Counter[str] = Counter()
            for each in of_arm:
                s.update(users.get((user, e, each), Counter()))
            counts = Counter(
                assigned_users=1,
                exposed_users=int(s["impressions"] > 0),
                impressions=s["impressions"],
                clicked_impressions=s["clicked"],
                converted_impressions=s["converted"],
                clicks=s["clicks"],
                conversions=s["conversions"],
                revenue_minor=s["revenue"],
                impressions_sq=s["impressions"] ** 2,
                clicked_sq=s["clicked"] ** 2,
                clicked_x_impressions=s["clicked"] * s["impressions"],
                converted_sq=s["converted"] ** 2,
                converted_x_impressions=s["converted"] * s["impressions"],
                clicks_sq=s["clicks"] ** 2,
                conversions_sq=s["conversions"] ** 2,
                revenue_sq=s["revenue"] ** 2,
                revenue_x_conversions=s["revenue"] * s["conversions"],
            )
            self._spread(out, e, arm, slices, counts)

    def _spread(
        self, out: dict[Any, Counter[str]], e: str, arm: str, slices: tuple[str, ...], c: Counter[str]
    ) -> None:
        out[e, arm, "all", ""].update(c)
        for dimension, value in zip(USER_DIMENSIONS, slices, strict=True):
            out[e, arm, dimension, value].update(c)

    def panes(self) -> dict[tuple[Any, ...], Counter[str]]:
        """By (experiment, arm, dimension, value, pane start in ms)."""
        out: dict[Any, Counter[str]] = defaultdict(Counter)
        fine: dict[Any, Counter[str]] = defaultdict(Counter)
        for key, counts in self.left_panes.items():
            fine[key].update(counts)
        for kind, key, counts in self._parts():
            if kind == "pane":
                fine[key].update(counts)
        for (e, arm, slices, pane), counts in fine.items():
            out[e, arm, "all", "", pane * 10_000].update(counts)
            for dimension, value in zip(self.d.slice_dimensions, slices, strict=True):
                out[e, arm, dimension, value, pane * 10_000 // MINUTE * MINUTE].update(counts)
        return {k: v for k, v in out.items() if any(v.values())}

    def outcomes(self) -> dict[tuple[str, int], Counter[str]]:
        """The ledger by (topic, hour number), held interactions with their present credit."""
        out = {key: Counter(counts) for key, counts in self.ledger.items()}
        for held in self.interactions:
            if not held.outside:
                out["interactions", held.hour][held.credit] += 1
        return {key: +counts for key, counts in out.items()}
