"""Simulated shoppers with known true rates: what a test, a trial or a demonstration can be held against."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from stream.contracts.models import Assignment, Impression, Interaction
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


@dataclass
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
    sent: dict[str, Sent] = field(init=False)

    def __post_init__(self) -> None:
        self.sent = {arm: Sent() for arm in self.arms}

    @property
    def impressions(self) -> int:
        """How many impressions there will be."""
        return round(self.seconds * self.rate)

    def events(self, start_ms: int) -> Iterator[DemoEvent]:
        """Events in order of event time from `start_ms` (epoch milliseconds UTC); `sent` grows with them."""
        random = np.random.default_rng(self.seed)
        names = tuple(self.arms)
        arm_of = [names[index] for index in random.integers(len(names), size=self.users)]
        run = f"{self.seed}-{start_ms:x}"
        seen: set[int] = set()
        later: list[tuple[int, str, Interaction]] = []
        for number in range(self.impressions):
            at_ms = start_ms + int(number * 1000 / self.rate)
            yield from self._due(later, at_ms, arm_of)
            user = int(random.integers(self.users))
            arm = arm_of[user]
            if user not in seen:
                seen.add(user)
                yield self._assignment(run, user, arm, at_ms)
            impression = self._impression(random, run, user, arm, number, at_ms)
            self.sent[arm].impressions += 1
            yield DemoEvent(Topic.IMPRESSIONS, impression)
            for answer in self._answers(random, impression, self.arms[arm]):
                heapq.heappush(later, (answer.at, answer.event_id, answer))
        yield from self._due(later, None, arm_of)

    def truth(self) -> dict[str, Any]:
        """The true rates and what was sent so far, per arm; plain values for JSON."""
        arms = {
            arm: {"true": asdict(rates), "sent": asdict(self.sent[arm])} for arm, rates in self.arms.items()
        }
        return {"experiment": self.experiment, "seed": self.seed, "arms": arms}

    def _due(
        self, later: list[tuple[int, str, Interaction]], until_ms: int | None, arm_of: list[str]
    ) -> Iterator[DemoEvent]:
        while later and (until_ms is None or later[0][0] <= until_ms):
            event = heapq.heappop(later)[2]
            sent = self.sent[arm_of[int(event.user_id.rpartition("-")[2])]]
            if event.kind == "click":
                sent.clicks += 1
                sent.clicked_impressions += 1
            else:
                sent.conversions += 1
                sent.converted_impressions += 1
                sent.revenue_minor += event.value_minor or 0
            yield DemoEvent(Topic.INTERACTIONS, event)

    def _assignment(self, run: str, user: int, arm: str, at_ms: int) -> DemoEvent:
        self.sent[arm].assigned_users += 1
        event = Assignment(
            event_id=f"assigned-{run}-{user}",
            at=at_ms,
            user_id=self._user_id(user),
            experiment=self.experiment,
            arm=arm,
            country=COUNTRIES[user % len(COUNTRIES)],
            device=DEVICES[user % len(DEVICES)],
        )
        return DemoEvent(Topic.ASSIGNMENTS, event)

    def _impression(
        self, random: np.random.Generator, run: str, user: int, arm: str, number: int, at_ms: int
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
            model=arm,
            model_version="1",
            score=round(float(random.random()), 4),
            latency_ms=round(float(random.gamma(4.0, 5.0)), 1),
            country=COUNTRIES[user % len(COUNTRIES)],
            device=DEVICES[user % len(DEVICES)],
            category=CATEGORIES[item % len(CATEGORIES)],
        )

    def _answers(
        self, random: np.random.Generator, impression: Impression, rates: Rates
    ) -> Iterator[Interaction]:
        """A click, and perhaps a purchase after it."""
        if random.random() >= rates.ctr:
            return
        click_at = impression.at + int(random.integers(*CLICK_DELAY_MS))
        yield _answer(impression, "click", click_at, None)
        if random.random() < rates.conversion / rates.ctr:
            price = int(random.integers(*PRICE_MINOR))
            yield _answer(impression, "purchase", click_at + int(random.integers(*PURCHASE_DELAY_MS)), price)

    def _user_id(self, user: int) -> str:
        return f"user-{self.seed}-{user}"


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
