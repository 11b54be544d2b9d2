"""The kinds of takeover, each measured in seconds from what was done to the step that ends the wait."""

import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.takeover.crew import Member
from benchmarks.takeover.steps import Steps

PATIENCE_SECONDS = 240.0  # a cold machine compiles the kernels first
FRESH_MS = 2_500  # a partition whose newest step is younger is being worked on
STEPS_TO_SETTLE = 3_000  # milliseconds of steps after a change before the next


@dataclass(frozen=True, slots=True)
class Scene:
    """Workers under load. `now_ms`: the wall clock."""

    members: list[Member]
    steps: Steps
    now_ms: Callable[[], int]

    @property
    def partitions(self) -> range:
        """Their numbers."""
        return range(self.steps.partitions)

    def settle(self, members: Iterable[Member]) -> None:
        """Wait until each of these works, nobody else does, and every partition has fresh steps for a while."""
        pids = {member.pid for member in members}
        begun_ms = self.now_ms()

        def is_settled(steps: Steps) -> bool:
            fresh_ms = self.now_ms() - FRESH_MS
            return (
                set(steps.owners().values()) == pids
                and all(steps.newest_ms(p) > fresh_ms for p in self.partitions)
                and all(self._has_kept(p, begun_ms) for p in self.partitions)
            )

        self.steps.wait_for(
            is_settled, seconds=PATIENCE_SECONDS, what="That all workers share the partitions"
        )

    def _has_kept(self, partition: int, begun_ms: int) -> bool:
        """Its owner took steps for a few seconds, all of this wait."""
        owner = self.steps.owners()[partition]
        since_ms = max(begun_ms, self.steps.newest_ms(partition) - STEPS_TO_SETTLE)
        others = self.steps.first(partition, since_ms, lambda pid: pid != owner)
        return others is None and self.now_ms() - begun_ms > STEPS_TO_SETTLE

    def owned_by(self, member: Member) -> list[int]:
        """Its partitions."""
        return [p for p, pid in self.steps.owners().items() if pid == member.pid]

    def await_owner(self, partition: int, after_ms: int, by: Callable[[int], bool]) -> float:
        """Seconds from a time to the first step by a process of which `by` is true."""
        self.steps.wait_for(
            lambda steps: steps.first(partition, after_ms, by) is not None,
            seconds=PATIENCE_SECONDS,
            what=f"A step of partition {partition} by its new owner",
        )
        found = self.steps.first(partition, after_ms, by)
        assert found is not None
        return (found.at_ms - after_ms) / 1000


def killed(scene: Scene, victim: Member) -> dict[str, list[float]]:
    """kill -9 of one worker, to the first step of each of its partitions by another."""
    return {"killed": _taken_over(scene, victim, signal.SIGKILL)}


def frozen(scene: Scene, victim: Member) -> dict[str, list[float]]:
    """SIGSTOP of one worker until others have its partitions, then SIGCONT: for a while two believe they own them."""
    waits = _taken_over(scene, victim, signal.SIGSTOP)
    victim.signal(signal.SIGCONT)
    scene.settle(scene.members)
    return {"frozen": waits}


def handed_over(scene: Scene, victim: Member) -> dict[str, list[float]]:
    """SIGTERM to one worker, to the first step of each of its partitions by another; and how long the others stand."""
    owners = scene.steps.owners()
    rest = [member for member in scene.members if member is not victim]
    at_ms = scene.now_ms()
    waits = _taken_over(scene, victim, signal.SIGTERM)
    assert victim.wait() == 0
    scene.settle(rest)
    stayed = [p for p in scene.partitions if scene.steps.owners()[p] == owners[p]]
    return {
        "handed over": waits,
        "removed: stand still, staying": [scene.steps.standstill(p, at_ms) for p in stayed],
    }


def restarted(scene: Scene, victim: Member, how: signal.Signals) -> dict[str, list[float]]:
    """One worker ends and is started again at once: to its first steps; what the others' partitions notice.

    For SIGTERM its process must have been started with stay_in_group, else it hands over.
    """
    mine = scene.owned_by(victim)
    others = [p for p in scene.partitions if p not in mine]
    owners = scene.steps.owners()
    down_ms = victim.signal(how)
    victim.wait()
    victim.start()
    name = f"restarted after {how.name}"
    waits = [scene.await_owner(p, down_ms, victim.pid.__eq__) for p in mine]
    scene.settle(scene.members)
    moved = [p for p in others if scene.steps.first(p, down_ms, lambda pid, p=p: pid != owners[p])]
    return {
        name: waits,
        f"{name}: partitions of others that moved": [float(len(moved))],
        f"{name}: others stand still": [scene.steps.standstill(p, down_ms) for p in others],
    }


def added(scene: Scene, newcomer: Member) -> dict[str, list[float]]:
    """One worker more: how long the partitions that move stand still, and those that stay."""
    owners = scene.steps.owners()
    newcomer.start()
    begun_ms = scene.now_ms()
    scene.settle(scene.members)
    moved = scene.owned_by(newcomer)
    stayed = [p for p in scene.partitions if scene.steps.owners()[p] == owners[p]]
    return {
        "added: stand still, moving": [scene.steps.standstill(p, begun_ms) for p in moved],
        "added: stand still, staying": [scene.steps.standstill(p, begun_ms) for p in stayed],
    }


def _taken_over(scene: Scene, victim: Member, how: signal.Signals) -> list[float]:
    mine, pid = scene.owned_by(victim), victim.pid
    down_ms = victim.signal(how)
    return [scene.await_owner(p, down_ms, pid.__ne__) for p in mine]
