"""The topics' specification, their creation, and the check of existing topics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError, for_code

from models.records import Topics
from stream.commands.environment import CommandSettings
from stream.commands.failures import Failure

MIB = 2**20
HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS
KEPT_MS = 100 * 365 * DAY_MS
EVENTS, REQUESTS = "events come in", "lists asked for"
FORWARDED = (EVENTS, REQUESTS)  # purposes of the topics that may get more partitions


@dataclass(frozen=True)
class TopicSpec:
    """One topic: its purpose, partitions, copies and configs."""

    name: str
    purpose: str
    partitions: int
    replication: int
    configs: dict[str, str]


@dataclass(frozen=True)
class Difference:
    """One difference between a topic and its specification. `hrnn topics create --alter` fixes alterable ones."""

    topic: str
    what: str
    remedy: str
    alterable: bool = False

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.topic}: {self.what} ({self.remedy})"


def topic_table(topics: Topics, *, partitions: int = 8, replication: int = 1) -> list[TopicSpec]:
    """Return every topic. All but `models` have `partitions`: a user's records must meet in one worker."""
    # of three copies two must have a write: then one broker may fail without loss or a stop
    common = {"min.insync.replicas": "2" if replication >= 3 else "1"}
    deleted = {**common, "cleanup.policy": "delete"}
    # small segments: the newest one is never compacted
    compacted = {**common, "cleanup.policy": "compact", "segment.bytes": str(64 * MIB)}

    def topic(name: str, purpose: str, configs: dict[str, str], count: int = partitions) -> TopicSpec:
        return TopicSpec(name, purpose, count, replication, configs)

    return [
        topic(
            topics.interactions,
            EVENTS,
            {
                **deleted,
                "retention.ms": str(30 * DAY_MS),
                # late and future events and the latency of lists must not depend on producers' clocks
                "message.timestamp.type": "LogAppendTime",
                # far above a valid event's size, so that oversized records become dead letters, which are seen,
                # and not errors of some producer
                "max.message.bytes": str(4 * MIB),
            },
        ),
        topic(
            topics.items,
            "items' facts; null withdraws",
            {
                **compacted,
                # A null is kept, or a worker that starts years later would list what was withdrawn.
                "delete.retention.ms": str(KEPT_MS),
                # The audit compares when a list was made with when an item was withdrawn: not by producers' clocks.
                "message.timestamp.type": "LogAppendTime",
            },
        ),
        topic(topics.users, "users' facts; null erases", compacted),
        topic(
            topics.requests,
            REQUESTS,
            # a list is for the broker's time of the request, unless the request names another
            {**deleted, "retention.ms": str(DAY_MS), "message.timestamp.type": "LogAppendTime"},
        ),
        topic(
            topics.recommendations,
            "lists go out",
            # each list is kept for a day, then the newest of each user
            {**compacted, "min.compaction.lag.ms": str(DAY_MS)},
        ),
        topic(topics.transitions, "user stage to item stage", {**deleted, "retention.ms": str(7 * DAY_MS)}),
        topic(topics.signals, "live item signals", {**compacted, "min.cleanable.dirty.ratio": "0.2"}),
        topic(
            topics.sessions,
            "sessions, for training",
            # A session is written again with each event, so half of the log is soon outdated. A worker that lost a
            # partition may write a shorter version after the new owner's. Readers keep the longer one, compaction the
            # later one. So the longer one is lost only if no trainer reads it within the lag (they read every 10 s),
            # and only for a closed session: the user's next event writes an open one again.
            {**compacted, "min.compaction.lag.ms": str(HOUR_MS), "min.cleanable.dirty.ratio": "0.2"},
        ),
        topic(
            topics.models,
            "weights, then pointer",
            {
                **compacted,
                # one partition: the order of chunks, manifest and pointer hides an incomplete publication.
                # A starting worker reads all of the topic, so old versions must be removed soon.
                "segment.bytes": str(16 * MIB),
                "segment.ms": str(HOUR_MS),
                "min.cleanable.dirty.ratio": "0.01",
                "max.message.bytes": str(MIB),
            },
            count=1,
        ),
        topic(
            topics.dead_letters,
            "records not applied",
            # refused records, with the reason in headers; truncated to a broker's default limit
            {**deleted, "retention.ms": str(30 * DAY_MS)},
        ),
        topic(
            topics.user_states,
            "users' states",
            # a worker republishes values that another worker's records hide: compaction must not remove them before
            {**compacted, "min.compaction.lag.ms": str(HOUR_MS), "min.cleanable.dirty.ratio": "0.3"},
        ),
        topic(
            topics.item_states,
            "items' signals, as counted",
            # for the same reason
            {**compacted, "min.compaction.lag.ms": str(HOUR_MS), "min.cleanable.dirty.ratio": "0.3"},
        ),
    ]


def wanted(admin: KafkaAdminClient, settings: CommandSettings) -> list[TopicSpec]:
    """Return a deployment's topics, with HRNN_PARTITIONS if it is set, otherwise with the existing number."""
    partitions, topics = settings.partitions, settings.topics
    if "partitions" not in settings.model_fields_set:
        existing_topics = set(admin.list_topics())
        # the changelog first: it has the users' own partitions, and other topics may have got more
        for name in (topics.user_states, topics.interactions):
            if name in existing_topics:
                (topic,) = admin.describe_topics([name])
                partitions = len(topic["partitions"])
                break
    return topic_table(settings.topics, partitions=partitions, replication=settings.replication)


def existing(admin: KafkaAdminClient, specs: Sequence[TopicSpec]) -> dict[str, TopicSpec]:
    """Return the existing topics: partitions, replication and the configs in the specification."""
    names = set(admin.list_topics())
    present = [spec for spec in specs if spec.name in names]
    if not present:
        return {}
    described = {topic["name"]: topic for topic in admin.describe_topics([spec.name for spec in present])}
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, spec.name, dict.fromkeys(spec.configs, "")) for spec in present
    ]
    configs = admin.describe_configs(resources, config_filter="all")["topic"]
    found = {}
    for spec in present:
        topic_partitions = described[spec.name]["partitions"]
        values = {name: str(entry["value"]) for name, entry in configs[spec.name].items()}
        copies = min((len(partition["replica_nodes"]) for partition in topic_partitions), default=0)
        found[spec.name] = TopicSpec(spec.name, spec.purpose, len(topic_partitions), copies, values)
    return found


def differences(specs: Sequence[TopicSpec], found: dict[str, TopicSpec]) -> list[Difference]:
    """Compare existing topics with their specification."""
    all_of_them = []
    for spec in specs:
        topic = found.get(spec.name)
        if topic is None:
            all_of_them.append(Difference(spec.name, "does not exist", "run `hrnn topics create`"))
            continue
        if topic.partitions != spec.partitions:
            what = f"has {topic.partitions} partitions instead of {spec.partitions}"
            all_of_them.append(Difference(spec.name, what, _remedy(spec.purpose, topic.partitions, spec.partitions)))
        if topic.replication < spec.replication:
            all_of_them.append(
                Difference(
                    spec.name,
                    f"has {topic.replication} replicas instead of {spec.replication}",
                    "add some with kafka-reassign-partitions.sh, or lower HRNN_REPLICATION",
                )
            )
        for name, value in spec.configs.items():
            held = topic.configs.get(name)
            if held != value:
                remedy = "run `hrnn topics create --alter`"
                all_of_them.append(Difference(spec.name, f"has {name}={held} instead of {value}", remedy, True))
    return all_of_them


def _remedy(purpose: str, found: int, wanted: int) -> str:
    """Return the remedy for a wrong number of partitions."""
    new = "or create new topics under another HRNN_TOPIC_PREFIX: a user's partition can't be changed"
    if purpose in FORWARDED and found > wanted:
        return f"nothing to do: workers forward events of the {found - wanted} added ones; {new}"
    if found < wanted:
        return f"re-create it with {wanted}, or set HRNN_PARTITIONS={found} if all have as many; {new}"
    return f"set HRNN_PARTITIONS={found} if all have as many; {new}"


def create(admin: KafkaAdminClient, specs: Sequence[TopicSpec], *, alter: bool = False) -> list[str]:
    """Create the missing topics and return their names; with `alter`, also fix the configs of existing ones.

    Several processes may do this at the same time. Raises Failure if the broker refuses one.
    """
    found = existing(admin, specs)
    missing = {
        spec.name: {
            "num_partitions": spec.partitions,
            "replication_factor": spec.replication,
            "configs": spec.configs,
        }
        for spec in specs
        if spec.name not in found
    }
    if missing:
        answer = admin.create_topics(missing, raise_errors=False)
        for topic in answer["topics"]:
            refused = for_code(topic["error_code"])
            if topic["error_code"] and refused is not TopicAlreadyExistsError:
                raise Failure(
                    f"can't create {topic['name']}: {topic.get('error_message') or refused.__name__}",
                    "HRNN_REPLICATION must not exceed the number of brokers; see the broker's own message",
                )
        admin.wait_for_topics(list(missing))
    if alter:
        wrong = {difference.topic for difference in differences(specs, found) if difference.alterable}
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, spec.name, spec.configs) for spec in specs if spec.name in wrong
        ]
        if resources:
            admin.alter_configs(resources)
    return list(missing)
