"""Simulated shoppers with known true rates: what a test, a trial or a demonstration can be held against."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stream.contracts.models import Assignment, Event, Impression, Interaction
from stream.contracts.topics import Topic
from stream.demo.events import DemoEvent

COUNTRIES = ("DE", "FR", "IT", "ES", "NL")
DEVICES = ("phone", "desktop", "tablet")
CATEGORIES = ("shoes", "shirts", "bags", "coats")
SURFACES = ("home", "product", "cart")
ITEMS = 500
CLICK_DELAY_MS = (200, 5_000)
PURCHASE_DELAY_MS = (1_000, 10_000)  # after the click
PRICE_MINOR = (499, 9_999)


@dataclass(frozen=True, slots=True)
class Rates:
    """One arm's true probabilities per impression. A purchase follows a click, so conversion <= ctr."""

    ctr: float
    conversion: float = 0.0


@dataclass(slots=True)
class Sent:
    """What one arm's events amount to, in the words of the results."""

    assigned_users: int = 0
    impressions: int = 0
    clicked_impressions: int = 0
    clicks: int = 0
    converted_impressions: int = 0
    conversions: int = 0
    revenue_minor: int = 0


@dataclass(frozen=True)
class Traffic:
    """Impressions at a steady rate, each for a random user; the same seed gives the same shoppers and choices.

    rate: impressions a second. seconds: how long. Experiment and arms need no experiment file.
    """

    users: int
    seconds: float
    rate: float
    arms: Mapping[str, Rates]
    experiment: str = "simulated"
    seed: int = 1

    @property
    def impressions(self) -> int:
        """How many impressions there will be."""
        return round(self.seconds * self.rate)

    @cached_property
    def arm_of(self) -> Mapping[str, str]:
        """The arm of each user id."""
        arms = tuple(self.arms)
        choices = np.random.default_rng(self.seed).integers(len(arms), size=self.users)
        return {self._user_id(user): arms[choice] for user, choice in enumerate(choices)}

    def events(self, start_ms: int) -> Iterator[DemoEvent]:
        """Events in order of event time from `start_ms`, epoch milliseconds UTC."""
        random = np.random.default_rng([self.seed, 1])
        run = f"{self.seed}-{start_ms:x}"
        seen: set[int] = set()
        later: list[tuple[int, str, Interaction]] = []
        for number in range(self.impressions):
            at_ms = start_ms + int(number * 1000 / self.rate)
            yield from _due(later, at_ms)
            user = int(random.integers(self.users))
            if user not in seen:
                seen.add(user)
                yield DemoEvent(Topic.ASSIGNMENTS, self._assignment(run, user, at_ms))
            impression = self._impression(random, run, user, number, at_ms)
            yield DemoEvent(Topic.IMPRESSIONS, impression)
            for answer in self._answers(random, impression):
                heapq.heappush(later, (answer.at, answer.event_id, answer))
        yield from _due(later, None)

    def _assignment(self, run: str, user: int, at_ms: int) -> Assignment:
        return Assignment(
            event_id=f"assigned-{run}-{user}",
            at=at_ms,
            user_id=self._user_id(user),
            experiment=self.experiment,
            arm=self.arm_of[self._user_id(user)],
            country=COUNTRIES[user % len(COUNTRIES)],
            device=DEVICES[user % len(DEVICES)],
        )

    def _impression(
        self, random: np.random.Generator, run: str, user: int, number: int, at_ms: int
    ) -> Impression:
        item = int(random.integers(ITEMS))
        return Impression(
            event_id=f"shown-{run}-{number}",
            at=at_ms,
            user_id=self._user_id(user),
            impression_id=f"impression-{run}-{number}",
            request_id=f"request-{run}-{number}",
            item_id=f"item-{item}",
            surface=SURFACES[number % len(SURFACES)],
            position=number % 10,
            model=self.arm_of[self._user_id(user)],
            model_version="1",
            score=round(float(random.random()), 4),
            latency_ms=round(float(random.gamma(4.0, 5.0)), 1),
            country=COUNTRIES[user % len(COUNTRIES)],
            device=DEVICES[user % len(DEVICES)],
            category=CATEGORIES[item % len(CATEGORIES)],
        )

    def _answers(self, random: np.random.Generator, impression: Impression) -> Iterator[Interaction]:
        """A click, and perhaps a purchase after it."""
        rates = self.arms[self.arm_of[impression.user_id]]
        if random.random() >= rates.ctr:
            return
        click_at = impression.at + int(random.integers(*CLICK_DELAY_MS))
        yield _answer(impression, "click", click_at, None)
        if random.random() < rates.conversion / rates.ctr:
            price = int(random.integers(*PRICE_MINOR))
            yield _answer(impression, "purchase", click_at + int(random.integers(*PURCHASE_DELAY_MS)), price)

    def _user_id(self, user: int) -> str:
        return f"user-{self.seed}-{user}"


class Tally:
    """What has really been sent of some traffic."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self.sent = {arm: Sent() for arm in traffic.arms}

    def add(self, event: Event) -> None:
        """Count one event."""
        sent = self.sent[self._traffic.arm_of[event.user_id]]
        match event:
            case Assignment():
                sent.assigned_users += 1
            case Impression():
                sent.impressions += 1
            case Interaction(kind="click"):
                sent.clicks += 1
                sent.clicked_impressions += 1
            case Interaction():
                sent.conversions += 1
                sent.converted_impressions += 1
                sent.revenue_minor += event.value_minor or 0

    def truth(self) -> dict[str, Any]:
        """The true rates and what was sent, per arm; plain values for JSON."""
        arms = {
            arm: {"true": asdict(rates), "sent": asdict(self.sent[arm])}
            for arm, rates in self._traffic.arms.items()
        }
        return {"experiment": self._traffic.experiment, "seed": self._traffic.seed, "arms": arms}


def _due(later: list[tuple[int, str, Interaction]], until_ms: int | None) -> Iterator[DemoEvent]:
    """Take what comes before or at `until_ms` (None: all) off the heap."""
    while later and (until_ms is None or later[0][0] <= until_ms):
        yield DemoEvent(Topic.INTERACTIONS, heapq.heappop(later)[2])


def _answer(impression: Impression, kind: str, at_ms: int, value_minor: int | None) -> Interaction:
    return Interaction(
        event_id=impression.event_id.replace("shown", kind),
        at=at_ms,
        user_id=impression.user_id,
        impression_id=impression.impression_id,
        item_id=impression.item_id,
        kind=kind,
        value_minor=value_minor,
    )
