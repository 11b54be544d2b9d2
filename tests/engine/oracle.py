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
DAY = 86_400_000
USER_DIMENSIONS = ("country", "device", "segment")
UNKNOWN = "__unknown__"
SUMS = ("impressions", "clicked", "converted", "clicks", "conversions", "revenue")
Event = dict[str, Any]
# What one event adds for its user: its time, whether an impression, counts, whether before the first impression (None:
# still open; for an interaction that left it is settled).
Part = tuple[int, bool, Counter[str], bool | None]


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
        self.left_users: dict[tuple[str, str, str], list[Part]] = defaultdict(list)
        self.left_flags: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.left_dates: dict[tuple[str, str], set[tuple[int, bool, bool]]] = defaultdict(set)
        self.users_before: dict[Any, list[Part]] | None = None  # of the events that leave in this step
        self.troubles: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.left_panes: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
        self.frozen: dict[str, Any] = {}
        self.frozen_cohorts: dict[Any, Counter[str]] = {}
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
            troubled = []
            for event, record_at in events.get(topic, []):
                hour = self.ledger[topic.word, record_at // HOUR]
                hour["consumed"] += 1
                outcome = self._take(topic, event, record_at, planned_at, this)
                hour[outcome] += 1
                if event is not None and outcome in ("late", "duplicate", "rejected"):
                    troubled.append((event, outcome))
                if event is not None and outcome in ("counted", "outside", "duplicate"):
                    self.newest[topic] = max(self.newest[topic], event["at"])
            for event, outcome in troubled:
                self._trouble(event, outcome)
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

    def _trouble(self, event: Event, kind: str) -> None:
        """At the arms known now: the one in force at the event's time, else the earliest."""
        user, known = event["user_id"], False
        for e in self._experiments():
            if self.assignments[user, e]:
                known = True
                arms = [a["arm"] for a in self._ordered(user, e) if a["at"] <= event["at"]]
                if kind == "orphaned" and not arms:
                    continue
                as_of = self.d.experiment(e).policy == Policy.AS_OF and arms
                self.troubles[e, arms[-1] if as_of else self._earliest(user, e)["arm"]][kind] += 1
        if not known:
            self.troubles["", "unknown"][kind] += 1

    def _orphan(self, held: Held, reason: str) -> None:
        held.credit = reason
        if held.event["kind"] in ("click", *self.d.conversion_kinds):
            self._trouble(held.event, "orphaned")

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
        if event["impression_id"] is None and event["item_id"] is None:
            self._orphan(held, "no_reference")
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
            self._orphan(held, "other_user")
        elif -5 * MINUTE <= delta <= self.d.attribution_window_ms:
            self._credit(held, shown)
        else:
            self._orphan(held, "outside_window")

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
        self.users_before = None
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
                    self._orphan(held, "unknown_impression")
                self._settle_for_good(self._interaction_parts(held))
                for e in self._experiments():
                    if self.assignments[held.event["user_id"], e]:
                        exposed_at = self._exposed_before_leaving(held.event["user_id"], e)
                        self._note_date(self.left_dates, held.event, e, exposed_at)
                if not held.outside:
                    self.ledger["interactions", held.hour][held.credit] += 1
                self.interactions.remove(held)

    def _settle_for_good(self, parts: list[Any]) -> None:
        for kind, key, part in parts:
            if kind == "flag":
                self.left_flags[key][part] += 1
            elif kind == "user":
                at, is_impression, counts, _ = part
                self.left_users[key].append((at, is_impression, counts, self._is_early(part, *key)))
            else:
                self.left_panes[key].update(part)

    def _is_early(self, part: Part, user: str, e: str, _: str) -> bool:
        """Whether an event comes before the first impression that counts."""
        exposed_at = self._exposed_before_leaving(user, e)
        return not part[1] and (exposed_at is None or part[0] < exposed_at)

    def _exposed_before_leaving(self, user: str, e: str) -> int | None:
        """Computed once a step: that events leave changes no exposure."""
        if self.users_before is None:
            self.users_before, _ = self._by_user()
        parts = [p for arm in self.arms[e] for p in self.users_before[user, e, arm]]
        return self._exposed_at(parts, e)

    def _note_date(self, dates: Any, event: Event, e: str, exposed_at: int | None) -> None:
        """The user was active in an experiment; whether since assignment and exposure is settled at leaving."""
        ends_at = self.d.experiment(e).ends_at_ms
        if ends_at is None or event["at"] < ends_at:
            date = event["at"] // DAY
            assigned = date >= self._earliest(event["user_id"], e)["at"] // DAY
            exposed = exposed_at is not None and date >= exposed_at // DAY
            dates[event["user_id"], e].add((date, assigned, exposed))

    def _freeze(self) -> None:
        for experiment in self.d.experiments:
            ends_at = experiment.ends_at_ms
            if ends_at is None or experiment.name in self.frozen:
                continue
            if ends_at < self.horizon - self.d.attribution_window_ms:
                totals, cohorts = self.totals(), self.cohorts()
                for kind, pane, counts in self._parts():
                    if kind == "pane" and pane[0] == experiment.name:
                        self.left_panes[pane].update(counts)
                self.frozen_cohorts |= {k: v for k, v in cohorts.items() if k[0] == experiment.name}
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
        key = event["user_id"], e
        flags: list[Any] = []
        if event["at"] < self._earliest(*key)["at"]:
            flags.append(("flag", key, "before_assignment"))
        if self._mixed(*key):
            flags.append(("flag", key, "mixed_events"))
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
                latency = event["latency_ms"]
                timed = Counter(latency=round(latency), timed=1) if latency is not None else Counter()
                parts.append(("user", (event["user_id"], e, arm), (event["at"], True, counts + timed, False)))
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
            rules = self.d.experiment(e)
            counts = Counter(
                clicks=int(event["kind"] == "click"), conversions=int(self._is_conversion(event))
            )
            own_money = event["currency"] in (None, rules.currency or self.d.currency)
            value = (event["value_minor"] or 0) if own_money else 0
            of_user: Counter[str] = Counter()
            if event["kind"] in self.d.conversion_kinds:
                counts["revenue"] += value
                of_user["foreign"] += int(not own_money)
            for slot, quantity in enumerate(rules.quantities, 1):
                if event["kind"] in quantity.kinds:
                    of_user[f"declared_{slot}"] += value if quantity.adds_value else 1
            of_user.update(counts)
            parts.append(("user", (event["user_id"], e, arm), (event["at"], False, of_user, None)))
            if any(counts.values()):
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

    def _by_user(self) -> tuple[dict[Any, list[Part]], dict[Any, Counter[str]]]:
        users = defaultdict(list, {key: list(parts) for key, parts in self.left_users.items()})
        flags = defaultdict(Counter, {key: Counter(counts) for key, counts in self.left_flags.items()})
        for kind, key, part in self._parts():
            if kind == "user":
                users[key].append(part)
            elif kind == "flag":
                flags[key][part] += 1
        return users, flags

    def totals(self) -> dict[tuple[Any, ...], Counter[str]]:
        """By (experiment, arm, dimension, value, phase)."""
        users, flags = self._by_user()
        out: dict[Any, Counter[str]] = defaultdict(Counter)
        for (user, e), assignments in self.assignments.items():
            if assignments:
                first = self._earliest(user, e)
                counts = Counter(flags[user, e], mixed_users=int(self._mixed(user, e)))
                self._spread(out, e, first["arm"], first, counts)
                for arm, parts in self._arms_of_user(users, user, e):
                    self._spread(out, e, arm, first, self._user_sums(parts, first, e))
        for frozen in self.frozen.values():
            out.update(frozen)
        return {k: v for k, v in out.items() if any(v.values())}

    def _arms_of_user(self, users: dict[Any, list[Part]], user: str, e: str) -> list[tuple[str, list[Part]]]:
        """The arms in which a user takes part, with what counts there."""
        policy = self.d.experiment(e).policy
        if self._mixed(user, e) and policy == Policy.EXCLUDE:
            return []
        if policy == Policy.AS_OF:
            arms = sorted({a["arm"] for a in self.assignments[user, e]})
            return [(arm, users[user, e, arm]) for arm in arms]
        parts = [part for arm in self.arms[e] for part in users[user, e, arm]]
        return [(self._earliest(user, e)["arm"], parts)]

    def _exposed_at(self, parts: list[Part], e: str) -> int | None:
        if self.d.experiment(e).policy == Policy.AS_OF:
            return -1
        return min((at for at, is_impression, *_ in parts if is_impression), default=None)

    def _user_sums(self, parts: list[Part], first: Event, e: str) -> Counter[str]:
        """What one user adds to every sum."""
        rules = self.d.experiment(e)
        exposed_at = self._exposed_at(parts, e)
        s: Counter[str] = Counter()
        x: Counter[str] = Counter()
        for at, is_impression, counts, early in parts:
            s.update(counts)
            if early is None:
                early = not is_impression and (exposed_at is None or at < exposed_at)
            if not early:
                x.update(counts)
        out = Counter(assigned_users=1, foreign_currency=s["foreign"])
        self._per_user(out, "", s, first, rules)
        if s["impressions"] > 0:
            out["exposed_users"] = 1
            y = s["impressions"]
            shown = {"impressions": y, "clicked": s["clicked"], "converted": s["converted"],
                     "latency": s["latency"], "timed_impressions": s["timed"]}  # fmt: skip
            stored = {
                "clicked": "clicked_impressions",
                "converted": "converted_impressions",
                "latency": "latency_ms",
            }
            for name, value in shown.items():
                out[stored.get(name, name)] += value
                out[f"{name}_sq"] += value**2
            for name in ("clicked", "converted"):
                out[f"{name}_x_impressions"] += shown[name] * y
            out["latency_x_timed_impressions"] += s["latency"] * s["timed"]
            self._per_user(out, "exposed_", x, first, rules)
            for slot in range(1, 5):
                out[f"exposed_declared_{slot}_x_impressions"] += x[f"declared_{slot}"] * y
        return out

    def _per_user(self, out: Counter[str], prefix: str, s: Counter[str], first: Event, rules: Any) -> None:
        capped = (
            s["revenue"] if rules.revenue_cap_minor is None else min(s["revenue"], rules.revenue_cap_minor)
        )
        pre = first["pre_value"] or 0
        declared = {f"declared_{slot}": s[f"declared_{slot}"] for slot in range(1, 5)}
        names = {q.name: f"declared_{slot}" for slot, q in enumerate(rules.quantities, 1)}
        z = {"clicks": s["clicks"], "conversions": s["conversions"], "revenue": s["revenue"],
             "capped_revenue": capped, "pre_value": pre, **declared}  # fmt: skip
        for name, value in z.items():
            out[prefix + name + ("_minor" if "revenue" in name else "")] += value
            out[f"{prefix}{name}_sq"] += value**2
        out[f"{prefix}converted_users"] += int(s["conversions"] > 0)
        out[f"{prefix}revenue_x_conversions"] += s["revenue"] * s["conversions"]
        foretold = {None: 0, "clicks": s["clicks"], "conversions": s["conversions"], "revenue": capped}
        what = rules.pre_value
        value = foretold[what] if what in foretold else declared[names[what]]
        out[f"{prefix}pre_value_x_foretold"] += pre * value
        for a in range(1, 5):
            for b in range(a + 1, 5):
                out[f"{prefix}declared_{a}_x_{b}"] += declared[f"declared_{a}"] * declared[f"declared_{b}"]

    def _phase(self, first: Event, e: str) -> int:
        started = [p for p in self.d.experiment(e).phases[1:] if p.starts_at_ms <= first["at"]]
        return len(started)

    def _spread(self, out: dict[Any, Counter[str]], e: str, arm: str, first: Event, c: Counter[str]) -> None:
        phase = self._phase(first, e)
        out[e, arm, "all", "", phase].update(c)
        for dimension, value in zip(USER_DIMENSIONS, self._slices_of(first), strict=True):
            out[e, arm, dimension, value, phase].update(c)

    def cohorts(self) -> dict[tuple[Any, ...], Counter[str]]:
        """By (experiment, arm, dimension, value, phase, since, start date)."""
        users, _ = self._by_user()
        dates = defaultdict(set, {key: set(found) for key, found in self.left_dates.items()})
        for held in self.interactions:
            for e in self._experiments():
                if self.assignments[held.event["user_id"], e]:
                    self._note_date(dates, held.event, e, 0)
        out: dict[Any, Counter[str]] = defaultdict(Counter)
        for (user, e), assignments in self.assignments.items():
            if not assignments or self.d.experiment(e).policy == Policy.AS_OF:
                continue
            first = self._earliest(user, e)
            for arm, parts in self._arms_of_user(users, user, e):
                active = {date for date, counts, _ in dates[user, e] if counts}
                self._add_cohort(out, e, arm, first, "assignment", first["at"] // DAY, active)
                exposed_at = self._exposed_at(parts, e)
                if exposed_at is not None:
                    active = {date for date, _, counts in dates[user, e] if counts}
                    self._add_cohort(out, e, arm, first, "exposure", exposed_at // DAY, active)
        out.update(self.frozen_cohorts)
        return {k: v for k, v in out.items() if any(v.values())}

    def _add_cohort(
        self, out: Any, e: str, arm: str, first: Event, since: str, start: int, active: set[int]
    ) -> None:
        counts = Counter(users=1, **{f"active_d{n}": int(start + n in active) for n in (1, 7, 30)})
        spread: dict[Any, Counter[str]] = defaultdict(Counter)
        self._spread(spread, e, arm, first, counts)
        for key, c in spread.items():
            out[(*key, since, start)].update(c)

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
