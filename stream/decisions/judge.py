"""Looks at how experiments stand, decides, and sees to it that each decision is taken once.

A decision is written to the book with put-if-absent before anything is done. Who writes it acts; whoever finds one that
is written but not done completes it. So neither a crash nor a second worker repeats a firing or loses one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from stream.contracts.definitions import Experiment
from stream.contracts.guardrails import Guardrail, Promotion
from stream.decisions.book import Book, Page, Switches, Watches, switches_of
from stream.decisions.decision import PROMOTION, Decision, Kind
from stream.decisions.figures import WindowCounts
from stream.decisions.guard import Finding, findings
from stream.decisions.promotion import proposals
from stream.decisions.watch import Watch, look
from stream.results.rows import Standing

OURSELVES = "liftstream"


class Actions(Protocol):
    """What follows from decisions. Each may be called again for the same page."""

    def begin(self, page: Page) -> None:
        """Tell of a decision, or of its undoing."""
        ...

    def resume(self, page: Page) -> None:
        """Complete what an earlier owner, who may still be at it, has left undone."""
        ...

    def switch(self, switches: Switches) -> None:
        """Switch arms of an experiment off, and all others of it on."""
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    """What guardrails and promotions have in common."""

    name: str
    kind: Kind
    text: str
    hold_ms: int = 0
    cooldown_ms: int = 0
    fallback: str | None = None

    @classmethod
    def of_guardrail(cls, guardrail: Guardrail, control: str | None) -> "Rule":
        """control: of the experiment, the fallback where no other is named."""
        fallback = (guardrail.fallback or control) if guardrail.action == "switch" else None
        return cls(
            name=guardrail.label,
            kind=Kind.GUARDRAIL,
            text=describe(guardrail),
            hold_ms=guardrail.hold_ms,
            cooldown_ms=guardrail.cooldown_ms,
            fallback=fallback,
        )

    @classmethod
    def of_promotion(cls, promotion: Promotion) -> "Rule":
        """An arm is proposed once, and again only after it was no longer worth it."""
        return cls(
            PROMOTION,
            Kind.PROPOSED,
            f"{promotion.metric} better than the control by more than {promotion.margin}",
        )


@dataclass(slots=True)
class _Docket:
    """What is known of one experiment's decisions."""

    pages: list[Page]
    watches: Watches
    kept: Watches = field(default_factory=dict)  # as the book has them

    def page(self, rule: str, arm: str, number: int) -> Page | None:
        for page in self.pages:
            decision = page.decision
            if (decision.guardrail, decision.arm, decision.number) == (rule, arm, number):
                return page
        return None

    def watch(self, rule: Rule, arm: str) -> Watch:
        """As it was kept; that may have been before the last firing, so the pages know better."""
        watch = self.watches.get((rule.name, arm), Watch())
        for page in self.pages:
            decision = page.decision
            if (decision.guardrail, decision.arm) == (rule.name, arm) and decision.number > watch.fired:
                watch = _after(watch, decision, rule)
        return watch


class Judge:
    """Decides for the experiments it is shown. Not thread-safe. All methods raise what the store raises."""

    def __init__(self, book: Book, actions: Actions, *, is_armed: bool, now_ms: Callable[[], int]) -> None:
        """is_armed: whether decisions act, or only say what would have been done. now_ms: the machine's clock."""
        self._book = book
        self._actions = actions
        self._is_armed = is_armed
        self._now_ms = now_ms
        self._dockets: dict[str, _Docket] = {}

    def look(
        self,
        experiment: Experiment,
        standing: Standing,
        windows: Sequence[WindowCounts] = (),
        *,
        runtime_ms: int = 0,
    ) -> None:
        """Take the decisions that are due. runtime_ms: since the experiment's first user."""
        if standing.as_of_ms is not None:
            with self._opened(standing.experiment) as docket:
                self._look(docket, experiment, standing, windows, standing.as_of_ms, runtime_ms)

    def _look(
        self,
        docket: _Docket,
        experiment: Experiment,
        standing: Standing,
        windows: Sequence[WindowCounts],
        as_of_ms: int,
        runtime_ms: int,
    ) -> None:
        for rule, finding in self._findings(experiment, standing, windows, docket, runtime_ms):
            key = rule.name, finding.arm
            watch = docket.watch(rule, finding.arm)
            last = docket.page(rule.name, finding.arm, watch.fired)
            if last is not None and last.undone is not None:
                watch = watch.undone(as_of_ms, rule.cooldown_ms)
            watch, fires = look(
                watch, finding.is_true, as_of_ms, hold_ms=rule.hold_ms, is_armed=self._is_armed
            )
            docket.watches[key] = watch
            if fires:
                page = self._fire(docket, rule, finding, standing, watch.fired + 1)
                docket.watches[key] = _after(watch, page.decision, rule)
        if docket.watches != docket.kept:
            self._book.keep_watches(standing.experiment, docket.watches)
            docket.kept = dict(docket.watches)

    def review(self, experiment: str) -> None:
        """Somebody wrote to the decisions of this experiment: act on what is new."""
        with self._opened(experiment) as docket:
            known = {page.decision.id: page for page in docket.pages}
            docket.pages = self._book.pages(experiment)
            changed = [page for page in docket.pages if _is_news(page, known.get(page.decision.id))]
            if changed:
                self._actions.switch(switches_of(experiment, docket.pages))
            for page in changed:
                self._actions.begin(page)

    def keep_only(self, owns: Callable[[str], bool]) -> None:
        """Forget the experiments that others look at now."""
        self._dockets = {name: docket for name, docket in self._dockets.items() if owns(name)}

    @contextmanager
    def _opened(self, experiment: str) -> Iterator[_Docket]:
        """Its docket; after a failure in the middle it is opened anew, which completes what was begun."""
        try:
            yield self._dockets.get(experiment) or self._open(experiment)
        except BaseException:
            self._dockets.pop(experiment, None)
            raise

    def _open(self, experiment: str) -> _Docket:
        """What earlier owners have decided; what they left undone is completed."""
        watches = self._book.watches(experiment)
        docket = _Docket(self._book.pages(experiment), watches, dict(watches))
        if docket.pages:
            self._actions.switch(switches_of(experiment, docket.pages))
        for page in docket.pages:
            self._actions.resume(page)
        self._dockets[experiment] = docket
        return docket

    def _findings(
        self,
        experiment: Experiment,
        standing: Standing,
        windows: Sequence[WindowCounts],
        docket: _Docket,
        runtime_ms: int,
    ) -> Iterator[tuple[Rule, Finding]]:
        control = experiment.control_among({row.arm for row in standing.results})
        guilty = {
            page.decision.arm
            for page in docket.pages
            if page.decision.kind is Kind.GUARDRAIL and page.undone is None
        }
        for guardrail in experiment.guardrails:
            rule = Rule.of_guardrail(guardrail, control)
            for finding in findings(experiment, guardrail, standing.results, windows):
                if finding.is_true:
                    guilty.add(finding.arm)
                yield replace(rule, fallback=None) if finding.arm == rule.fallback else rule, finding
        if experiment.promotion is not None:
            rule = Rule.of_promotion(experiment.promotion)
            for finding in proposals(
                experiment, standing.results, standing.health, runtime_ms=runtime_ms, guilty=guilty
            ):
                yield rule, finding

    def _fire(self, docket: _Docket, rule: Rule, finding: Finding, standing: Standing, number: int) -> Page:
        decision = Decision(
            experiment=standing.experiment,
            guardrail=rule.name,
            arm=finding.arm,
            number=number,
            kind=rule.kind,
            generation=standing.generation,
            as_of_ms=standing.as_of_ms or 0,
            decided_at_ms=self._now_ms(),
            is_armed=self._is_armed,
            fallback=rule.fallback,
            rule=rule.text,
            reason=finding.reason,
            by=OURSELVES,
            why="",
            figures=finding.figures,
        )
        if self._book.write(decision):
            page = Page(decision)
            docket.pages.append(page)
            if decision.is_armed and decision.fallback is not None:
                self._actions.switch(switches_of(standing.experiment, docket.pages))
            self._actions.begin(page)
            return page
        # Another worker was first: it acts, and should it die we complete what it leaves undone.
        written = self._book.page(decision.id)
        assert written is not None
        docket.pages.append(written)
        self._actions.resume(written)
        return written


def describe(guardrail: Guardrail) -> str:
    """The rule in words: `ctr worse than the control by more than 5 %`."""
    metric = (
        guardrail.metric if guardrail.window is None else f"{guardrail.metric} of the last {guardrail.window}"
    )
    if guardrail.worse_than_control is not None:
        return f"{metric} worse than the control by more than {guardrail.worse_than_control}"
    if guardrail.change is not None:
        return f"{metric} {guardrail.change * 100:+g} % against the control"
    limits = [f"below {guardrail.min:g}"] if guardrail.min is not None else []
    limits += [f"above {guardrail.max:g}"] if guardrail.max is not None else []
    return f"{metric} {' or '.join(limits)}"


def _after(watch: Watch, decision: Decision, rule: Rule) -> Watch:
    return watch.has_fired(decision.number, decision.as_of_ms, rule.cooldown_ms, is_dry=not decision.is_armed)


def _is_news(page: Page, known: Page | None) -> bool:
    return known is None or (page.undone is not None and known.undone is None)
