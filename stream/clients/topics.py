"""The topics as they have to be: the table, their creation, and the check of those that exist."""

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
EVENTS, REQUESTS = "events come in", "lists asked for"
FORWARDED = (EVENTS, REQUESTS)  # purposes of the topics whose added partitions workers can do with


@dataclass(frozen=True)
class TopicSpec:
    """One topic: what it is for, and how the broker has to hold it."""

    name: str
    purpose: str
    partitions: int
    replication: int
    configs: dict[str, str]


@dataclass(frozen=True)
class Difference:
    """One way in which a topic is not as it has to be; `hrnn topics create --alter` mends alterable ones."""

    topic: str
    what: str
    remedy: str
    alterable: bool = False

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.topic}: {self.what} ({self.remedy})"


def topic_table(topics: Topics, *, partitions: int = 8, replication: int = 1) -> list[TopicSpec]:
    """List every topic. All but `models` have `partitions`: a user's records must meet in one worker."""
    # With three copies a write counts when two have it: one broker may then fail without loss or a stop.
    common = {"min.insync.replicas": "2" if replication >= 3 else "1"}
    deleted = {**common, "cleanup.policy": "delete"}
    # Small segments, as the newest one is never compacted.
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
                # Which events are late or from the future, and how long a list took, must not hang on the
                # clocks of the producers.
                "message.timestamp.type": "LogAppendTime",
                # Far above a valid event's size, so that oversized junk reaches the dead letters, where it is
                # seen, instead of an error at some producer.
                "max.message.bytes": str(4 * MIB),
            },
        ),
        topic(topics.items, "item metadata", compacted),
        topic(topics.users, "user metadata; null erases", compacted),
        topic(
            topics.requests,
            REQUESTS,
            # A list is for the time that the broker took the request at, unless the request names another.
            {**deleted, "retention.ms": str(DAY_MS), "message.timestamp.type": "LogAppendTime"},
        ),
        topic(
            topics.recommendations,
            "lists go out",
            # Each list can be read for a day; after that the newest of each user remains.
            {**compacted, "min.compaction.lag.ms": str(DAY_MS)},
        ),
        topic(topics.transitions, "user stage to item stage", {**deleted, "retention.ms": str(7 * DAY_MS)}),
        topic(topics.signals, "live item signals", {**compacted, "min.cleanable.dirty.ratio": "0.2"}),
        topic(
            topics.sessions,
            "sessions, for training",
            # A session is written again with each of its events: half of the log is soon old versions.
            # A worker that was cut off may write a shorter version after the new owner's. Readers keep the longer,
            # and compaction the later: it loses the longer one only if no reader came within the lag, and only of a
            # session that is over, as a user's next event writes an open one again. Trainers read every 10 s.
            {**compacted, "min.compaction.lag.ms": str(HOUR_MS), "min.cleanable.dirty.ratio": "0.2"},
        ),
        topic(
            topics.models,
            "weights, then pointer",
            {
                **compacted,
                # The order of chunks, manifest and pointer makes a torn publish invisible: one partition.
                # A worker that starts reads all of it, so old versions must go soon.
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
            # What was refused, and the headers that say why; what is larger than a broker's default is cut.
            {**deleted, "retention.ms": str(30 * DAY_MS)},
        ),
        topic(
            topics.user_states,
            "users' states",
            # A worker that finds another's writes among its own puts back what they hid: compaction must not
            # have removed it by then.
            {**compacted, "min.compaction.lag.ms": str(HOUR_MS), "min.cleanable.dirty.ratio": "0.3"},
        ),
        topic(
            topics.item_states,
            "items' signals, as counted",
            # For the same reason.
            {**compacted, "min.compaction.lag.ms": str(HOUR_MS), "min.cleanable.dirty.ratio": "0.3"},
        ),
    ]


def wanted(admin: KafkaAdminClient, settings: CommandSettings) -> list[TopicSpec]:
    """Build the table for a deployment: with the partitions that were asked for, else those that it has."""
    partitions, topics = settings.partitions, settings.topics
    if "partitions" not in settings.model_fields_set:
        existing_topics = set(admin.list_topics())
        # the changelog first: users are at home in its partitions, however many the others were given since
        for name in (topics.user_states, topics.interactions):
            if name in existing_topics:
                (topic,) = admin.describe_topics([name])
                partitions = len(topic["partitions"])
                break
    return topic_table(settings.topics, partitions=partitions, replication=settings.replication)


def existing(admin: KafkaAdminClient, specs: Sequence[TopicSpec]) -> dict[str, TopicSpec]:
    """Read those of the topics that exist: partitions, replication and the configs that the spec names."""
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
    """Compare what has to be with what is."""
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
    """Return what to do about a topic of another number of partitions."""
    anew = "else begin with new topics under another HRNN_TOPIC_PREFIX: partitions can't be changed, users would move"
    if purpose in FORWARDED and found > wanted:
        return f"workers forward what comes on the {found - wanted} added ones, which may stay so; {anew}"
    if found < wanted:
        return f"make it again with {wanted}, or set HRNN_PARTITIONS={found} if all have as many; {anew}"
    return f"set HRNN_PARTITIONS={found} if all have as many; {anew}"


def create(admin: KafkaAdminClient, specs: Sequence[TopicSpec], *, alter: bool = False) -> list[str]:
    """Create those that don't exist and return their names; with `alter`, also set the others' configs right.

    Others that create at the same time are no trouble. Raises Failure if the broker refuses one.
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
                    "HRNN_REPLICATION must not exceed the number of brokers; the rest is said by the broker",
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
