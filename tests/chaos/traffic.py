"""Events in which everything happens that production brings, the same ones for the same seed and start.

Duplicates, disorder, clicks before their impressions, late and repeated assignments, users who change arms or were
never assigned, wrong references, refunds, foreign money, late and future events, garbage.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream.contracts.avro import encode
from stream.contracts.models import MODELS
from stream.contracts.topics import Topic
from tests.engine.makers import DAY, HOUR, MINUTE, SECOND, an_assignment, an_impression, an_interaction

STEADY = "steady"  # nobody changes the arm: its totals never fall
EXPERIMENTS = {
    "excludes": 'policy = "exclude"\n',
    "first": 'policy = "first"\nsurfaces = ["home"]\ncurrency = "USD"\n',
    "known": "[arms.control]\nshare = 0.5\n[arms.b]\nshare = 0.5\n",
    "of": 'policy = "as_of"\n',
}
NAMES = (STEADY, *EXPERIMENTS)
ARMS = ("control", "b")
_ACTIVE_USERS = 150
_EVENTS_OF_A_USER = (8, 60)
_CLOSING_USERS = 64
_REMEMBERED = 3_000

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """What is produced."""

    topic: Topic
    key: bytes
    value: bytes


@dataclass(slots=True)
class _User:
    name: str
    partner: str  # whose impressions are named by mistake now and then
    events_left: int
    shown: deque[Fields] = field(default_factory=lambda: deque(maxlen=12))


def write_experiments(folder: Path) -> None:
    """The experiment files that the traffic is for; `steady` has none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in EXPERIMENTS.items():
        (folder / f"{name}.toml").write_text(text)


class Traffic:
    """An endless sequence of records; event times go from `start_ms` on as `rate` events a second take."""

    def __init__(self, seed: int, *, start_ms: int, rate: float) -> None:
        self._random = random.Random(seed)
        self._start_ms = start_ms
        self._rate = rate
        self._serial = 0
        self._users: list[_User] = []
        self._user_numbers = itertools.count()
        self._partners: dict[str, deque[Fields]] = {}
        self._sent: deque[Record] = deque(maxlen=_REMEMBERED)
        self._later: list[tuple[int, int, Topic, Fields]] = []
        self._shown_at: set[tuple[str, str, int]] = set()

    def __iter__(self) -> Iterator[Record]:
        number = 0
        while True:
            for record in self._records(number):
                self._sent.append(record)
                yield record
                number += 1

    def closing(self, at_ms: int) -> list[Record]:
        """Last events of one moment, of users in every partition and experiment: the clocks end there."""
        records = []
        for i in range(_CLOSING_USERS):
            name = f"closing-{i}"
            for experiment in NAMES:
                fields = an_assignment(
                    self._id("closing-"), at_ms - SECOND, name, experiment=experiment, arm="control"
                )
                records.append(_record(Topic.ASSIGNMENTS, fields))
            records.append(_record(Topic.IMPRESSIONS, an_impression(self._id("closing-"), at_ms, name)))
        return records

    def _records(self, number: int) -> Iterator[Record]:
        now = self._start_ms + int(number * 1000 / self._rate)
        while self._later and self._later[0][0] <= number:
            _, _, topic, fields = heapq.heappop(self._later)
            yield _record(topic, fields)
        dice = self._random.random()
        if dice < 0.04 and self._sent:
            yield self._random.choice(self._sent)
        elif dice < 0.06:
            yield self._garbage(now)
        else:
            yield from self._behaviour(number, now)

    # Users

    def _behaviour(self, number: int, now: int) -> Iterator[Record]:
        r = self._random
        if len(self._users) < _ACTIVE_USERS:
            yield from self._arrival(number, now)
            return
        user = r.choice(self._users)
        user.events_left -= 1
        if user.events_left < 0:
            self._users.remove(user)
            self._partners.pop(user.name, None)
            return
        dice = r.random()
        if dice < 0.03:
            change = r.choice(list(EXPERIMENTS))
            yield _record(
                Topic.ASSIGNMENTS, self._assignment(user.name, change, now - r.choice((0, MINUTE, HOUR)))
            )
        elif dice < 0.62:
            yield from self._impression(user, number, now)
        else:
            yield _record(Topic.INTERACTIONS, self._interaction(user, now))

    def _arrival(self, number: int, now: int) -> Iterator[Record]:
        """A new user: assigned at once, after the first events, or never."""
        r = self._random
        number_of_user = next(self._user_numbers)
        name, partner = f"user-{number_of_user}", f"user-{number_of_user ^ 1}"
        self._users.append(_User(name, partner, r.randint(*_EVENTS_OF_A_USER)))
        for experiment in NAMES:
            dice = r.random()
            fields = self._assignment(name, experiment, now)
            if dice < 0.6:
                yield _record(Topic.ASSIGNMENTS, fields)
            elif dice < 0.8:  # known late
                self._send_later(number + r.randrange(10_000), Topic.ASSIGNMENTS, fields)

    def _assignment(self, user: str, experiment: str, at: int) -> Fields:
        r = self._random
        arms = (*ARMS, "unknown") if r.random() < 0.05 else ARMS
        arm = ARMS[hash_of(user) % 2] if experiment == STEADY else r.choice(arms)
        return an_assignment(
            self._id("a"), at, user, experiment=experiment, arm=arm, country=r.choice(("DE", "IN", None)),
            device=r.choice(("app", None)), segment=r.choice(("new", "old", None)),
        )  # fmt: skip

    # What they see and do

    def _impression(self, user: _User, number: int, now: int) -> Iterator[Record]:
        r = self._random
        at, item = now - self._disorder(), f"item-{r.randrange(6)}"
        while (user.name, item, at) in self._shown_at:
            at -= 1
        self._shown_at.add((user.name, item, at))
        event_id = self._id("i")
        fields = an_impression(
            event_id, at, user.name, item_id=item, surface=r.choice(("home", "home", "cart")),
            country=r.choice(("DE", "IN", None)), device=r.choice(("app", "web")), category=f"c{r.randrange(4)}",
            model_version=f"v{r.randrange(3)}",
        )  # fmt: skip
        user.shown.append(fields)
        self._partners[user.name] = user.shown
        if r.random() < 0.1:  # its clicks overtake it
            self._send_later(number + r.randrange(2_000), Topic.IMPRESSIONS, fields)
        else:
            yield _record(Topic.IMPRESSIONS, fields)

    def _interaction(self, user: _User, now: int) -> Fields:
        r = self._random
        dice = r.random()
        shown = user.shown if dice > 0.03 else self._partners.get(user.partner, ())
        reference: Fields = {"impression_id": None, "item_id": None}
        at = now - self._disorder()
        if shown and dice < 0.7:
            impression = r.choice(shown)
            reference["impression_id"] = impression["impression_id"]
            at = impression["at"] + r.choice((r.randrange(5 * MINUTE), r.randrange(5 * MINUTE), -4 * MINUTE))
        elif dice < 0.88:
            reference["item_id"] = f"item-{r.randrange(6)}"
        elif dice < 0.94:
            reference["impression_id"] = f"nobody-saw-{self._serial}"
        if at > now:  # nobody answers in the future
            at = now
        if r.random() < 0.01:
            at -= 4 * DAY
        kind = r.choice(("click", "click", "click", "purchase", "add_to_cart"))
        money = r.choice((None, 1, 499, 9_999, 10**12, -499)) if kind == "purchase" else None
        return an_interaction(
            self._id("n"), at, user.name, **reference, kind=kind, value_minor=money,
            currency=r.choice((None, "EUR", "USD")) if money is not None else None,
        )  # fmt: skip

    def _disorder(self) -> int:
        r = self._random
        dice = r.random()
        if dice < 0.01:
            return 4 * DAY  # late for sure once anything was counted
        return r.randrange(2 * HOUR) if dice < 0.05 else int(r.expovariate(1 / (5 * SECOND)))

    # Bytes that are no event, and events that break the contract

    def _garbage(self, now: int) -> Record:
        r = self._random
        topic = r.choice(list(Topic))
        key = f"garbage-{r.randrange(1_000)}".encode()
        kind = r.randrange(6)
        if kind == 0:
            return Record(topic, key, r.randbytes(r.randrange(1, 60)))
        fields = an_impression(self._id("g"), now, key.decode())
        if kind == 1:
            fields |= {"surface": ""}
        elif kind == 2:
            fields |= {"at": now + DAY}
        elif kind == 3:
            fields |= {"score": float("nan")}
        whole = _record(Topic.IMPRESSIONS, fields)
        if kind == 4:
            return Record(Topic.IMPRESSIONS, key, whole.value[: r.randrange(5, len(whole.value))])
        if kind == 5:
            return Record(Topic.IMPRESSIONS, key, b"\0" + r.randbytes(4) + whole.value[5:])
        return whole

    def _send_later(self, number: int, topic: Topic, fields: Fields) -> None:
        self._serial += 1
        heapq.heappush(self._later, (number, self._serial, topic, fields))

    def _id(self, letter: str) -> str:
        self._serial += 1
        return f"{letter}{self._serial}"


def hash_of(user: str) -> int:
    """A number that is the same in every process."""
    return sum(user.encode())


def _record(topic: Topic, fields: Fields) -> Record:
    value = encode(topic, MODELS[topic].model_construct(**fields))
    return Record(topic, fields["user_id"].encode(), value)
