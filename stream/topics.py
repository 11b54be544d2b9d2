"""Our topics on the broker: which there must be, creating them, and whether those that exist agree."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, KafkaTimeoutError, TopicAlreadyExistsError, for_code

from stream.access import PREFIX, Refusals
from stream.contracts.topics import Topic
from stream.errors import ConfigurationError, Unavailable
from stream.settings import Settings

CONNECT_MS = 20_000


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic as `create_topics` makes it; `options` are Kafka's topic settings."""

    name: str
    partitions: int
    replicas: int
    options: Mapping[str, str] = field(default_factory=dict)


def planned_topics(settings: Settings) -> tuple[TopicPlan, ...]:
    """All our topics; the same number of partitions each, so that one user's events meet in one partition."""
    broker_time = {"message.timestamp.type": "LogAppendTime"}
    options = {
        settings.topic(Topic.ASSIGNMENTS): broker_time | {"retention.ms": "-1"},  # they never stop being true
        settings.topic(Topic.IMPRESSIONS): broker_time,
        settings.topic(Topic.INTERACTIONS): broker_time,
        settings.partials_topic: {"cleanup.policy": "compact"},  # the newest of each key is the state
        settings.dead_letters_topic: broker_time,
        settings.decisions_topic: broker_time | {"retention.ms": "-1"},  # few, and an audit trail
    }
    return tuple(
        TopicPlan(name, settings.topic_partitions, settings.topic_replicas, chosen)
        for name, chosen in options.items()
    )


def create_topics(settings: Settings) -> tuple[str, ...]:
    """Create the topics that are missing and return their names.

    Raises Unavailable when the broker does not answer, ConfigurationError when it refuses or when topics disagree.
    """
    with admin_client(settings) as admin:
        counts = _partition_counts(admin)
        missing = [plan for plan in planned_topics(settings) if plan.name not in counts]
        for plan in missing:
            _create(admin, plan)
        if missing:
            admin.wait_for_topics([plan.name for plan in missing], timeout_ms=CONNECT_MS)
    problems = disagreements(settings, counts | {plan.name: plan.partitions for plan in missing})
    if problems:
        raise ConfigurationError(" ".join(problems))
    return tuple(plan.name for plan in missing)


def partition_counts(settings: Settings) -> dict[str, int]:
    """Number of partitions of each of our topics that exists. Raises Unavailable."""
    names = {plan.name for plan in planned_topics(settings)}
    with admin_client(settings) as admin:
        return {name: count for name, count in _partition_counts(admin).items() if name in names}


def disagreements(settings: Settings, counts: Mapping[str, int]) -> list[str]:
    """One sentence for each way in which topics with these partition counts cannot work together."""
    plans = planned_topics(settings)
    missing = [plan.name for plan in plans if plan.name not in counts]
    problems = [f"Topics are missing: {', '.join(missing)}: run liftstream migrate."] if missing else []
    inputs = {name: counts[name] for name in map(settings.topic, Topic) if name in counts}
    if len(set(inputs.values())) > 1:
        shown = ", ".join(f"{name} has {count}" for name, count in inputs.items())
        problems.append(
            f"The input topics must have the same number of partitions, but {shown}: create them anew, "
            "or use another topic_prefix."
        )
    return problems


@contextmanager
def admin_client(settings: Settings) -> Iterator[Any]:
    """A client that may ask and change the broker. Raises Unavailable, from the block too."""
    try:
        with Refusals() as refusals:
            admin = KafkaAdminClient(
                bootstrap_servers=settings.bootstrap_servers,
                **settings.kafka_options,
                bootstrap_timeout_ms=CONNECT_MS,
                request_timeout_ms=CONNECT_MS,
            )
    except (KafkaError, OSError) as error:
        why = refusals.first or _first_line(error)
        waited = (
            f"did not answer for {CONNECT_MS / 1000:g} s"
            if isinstance(error, KafkaTimeoutError)
            else "cannot be used"
        )
        raise Unavailable(
            f"The broker {settings.broker} {waited} ({why}): start it, or correct {PREFIX}BROKER,"
            f" {PREFIX}SECURITY_PROTOCOL and what goes with them."
        ) from None
    try:
        yield admin
    except KafkaError as error:
        raise Unavailable(f"The broker {settings.broker} failed ({_first_line(error)}): try again.") from None
    finally:
        admin.close()


def _partition_counts(admin: Any) -> dict[str, int]:
    return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}


def _create(admin: Any, plan: TopicPlan) -> None:
    wanted = {
        plan.name: {
            "num_partitions": plan.partitions, "replication_factor": plan.replicas, "configs": dict(plan.options),
        }
    }  # fmt: skip
    answer = admin.create_topics(wanted, raise_errors=False)["topics"][0]
    if answer["error_code"] in (0, TopicAlreadyExistsError.errno):  # another process may create it as well
        return
    why = answer.get("error_message") or for_code(answer["error_code"]).description
    raise ConfigurationError(f"The broker refuses to create topic {plan.name}: {why}")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
