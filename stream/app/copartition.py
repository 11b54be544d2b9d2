"""Do the three topics' partitions fit together? Asked at every assignment, for topics change while workers run."""

from collections.abc import Mapping, Set

from faust.types import TP

from stream.contracts.topics import Topic


def refusal(
    names: Mapping[Topic, str], assigned: Set[TP], counts: Mapping[Topic, int | None], partitions: int
) -> str | None:
    """Why this assignment cannot be worked on, with what must be done; None when it can.

    counts: partitions of each topic as last heard, None where nothing is known. partitions: of the deployment.
    """
    return _grown(names, counts, partitions) or _torn(names, assigned)


def _grown(names: Mapping[Topic, str], counts: Mapping[Topic, int | None], partitions: int) -> str | None:
    """Kafka can add partitions but not take them away, and then keys go to other ones than before."""
    changed = {names[topic]: count for topic, count in counts.items() if count not in (None, partitions)}
    if not changed:
        return None
    shown = " and ".join(f"{name} has {count}" for name, count in changed.items())
    return (
        f"This deployment counts {partitions} partitions of each input topic, but {shown}: users' events no longer "
        "meet in one partition, and Kafka cannot take partitions away. Create new topics with equal numbers of "
        "partitions (set another topic_prefix, run liftstream migrate), send there, and start with --new-generation."
    )


def _torn(names: Mapping[Topic, str], assigned: Set[TP]) -> str | None:
    """Faust's assignor keeps the topics of a partition number together; another assignor may not."""
    wanted = {TP(name, tp.partition) for tp in assigned for name in names.values()}
    if not (missing := wanted - assigned):
        return None
    if gone := sorted(set(names.values()) - {tp.topic for tp in assigned}):
        return (
            f"Kafka does not have {' and '.join(gone)} any more: whatever was not counted is lost with it. Create it "
            "again with liftstream migrate and start over with --new-generation."
        )
    return (
        f"Kafka assigned {_shown(assigned)} but not {_shown(missing)} to this worker: let all workers of the group run "
        "the same version."
    )


def _shown(tps: Set[TP]) -> str:
    return ", ".join(sorted(f"{tp.topic}-{tp.partition}" for tp in tps))
