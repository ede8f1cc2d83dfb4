"""Check the packages, the broker, the topics, the consumer group and the published model."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

import aiokafka.codec
import kafka.codec
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import CoordinatorNotAvailableError, GroupIdNotFoundError

from models.records import Topics
from stream.clients.connection import administration
from stream.clients.topics import differences, existing, wanted
from stream.commands.environment import CommandSettings
from stream.commands.failures import Failure
from stream.doctor.clock import clock
from stream.doctor.finding import Finding
from stream.doctor.limits import limits, origin_key

MIN_BROKER = (2, 4)  # the first version with all the admin requests used here
SHOWN = ("faust-streaming", "mode-streaming", "aiokafka", "kafka-python", "torch", "rocksdict")

CODEC_PACKAGES = {  # the package that each client needs for a codec; gzip is in Python itself
    "aiokafka": {"snappy": "cramjam", "lz4": "cramjam", "zstd": "cramjam"},
    "kafka-python": {"snappy": "python-snappy", "lz4": "lz4", "zstd": "zstandard"},
}


def examine(settings: CommandSettings) -> Iterator[Finding]:
    """Run all checks, each after those that it depends on."""
    yield from _packages()
    try:
        with administration(settings.kafka_bootstrap) as admin:
            yield _broker(admin, settings.kafka_bootstrap)
            topics = list(_topics(admin, settings))
            yield from topics
            yield _codecs(admin, settings)
            if all(topic.well for topic in topics):
                yield _group(admin, settings.topics)
                yield clock(admin, settings.topics, time.time())
                yield from limits(admin, settings)
                yield origin_key(settings)
    except Failure as failure:
        yield Finding("broker", False, failure.what, failure.remedy)
        return
    if not all(topic.well for topic in topics):
        return  # to be fixed first
    from stream.clients.published import model_topic, serving_version, verified

    try:
        with model_topic(settings) as models:
            served = verified(models, serving_version(models))
    except Failure as failure:
        yield Finding("model", False, failure.what, failure.remedy)
        return
    age_h = (time.time() - served.manifest.trained_at) / 3600
    items = len(served.catalogue.item_ids)
    yield Finding("model", True, f"{served.version} verifies: {items} items, trained {age_h:.1f} h ago")


def _packages() -> Iterator[Finding]:
    """Compare the installed packages with the pinned versions: some of their parts are replaced."""
    try:
        own = version("hrnn-stream")
        pins = dict(re.findall(r"([A-Za-z0-9._-]+)==([^\s;,]+)", "\n".join(requires("hrnn-stream") or ())))
    except PackageNotFoundError:
        yield Finding("packages", False, "hrnn-stream is not installed", "run `make install`")
        return
    installed = {name: version(name) for name in SHOWN}
    wrong = [
        f"{name} {installed[name]} instead of {pin}"
        for name, pin in pins.items()
        if name in installed and installed[name] != pin
    ]
    if wrong:
        remedy = "reinstall them: make install, or pip install hrnn-stream"
        yield Finding("packages", False, ", ".join(wrong), remedy)
    names = ", ".join(f"{name} {number}" for name, number in installed.items())
    yield Finding("versions", True, f"hrnn-stream {own}, Python {platform.python_version()}, {names}")


def _broker(admin: KafkaAdminClient, bootstrap: str) -> Finding:
    cluster = admin.describe_cluster()
    number = admin._manager.broker_version  # inferred from the requests that it answers
    shown = ".".join(str(part) for part in number)
    detail = f"{bootstrap} answers: Kafka {shown} or newer, {len(cluster['brokers'])} broker(s)"
    if number < MIN_BROKER:
        return Finding("broker", False, detail, f"Kafka {'.'.join(map(str, MIN_BROKER))} or newer is needed")
    return Finding("broker", True, detail)


def _topics(admin: KafkaAdminClient, settings: CommandSettings) -> Iterator[Finding]:
    specs = wanted(admin, settings)
    found = existing(admin, specs)
    if not found:
        prefix = f" with the prefix {settings.topic_prefix}" if settings.topic_prefix else ""
        yield Finding("topics", False, f"there are none{prefix}", "run `hrnn topics create`")
        return
    wrong = differences(specs, found)
    for difference in wrong:
        yield Finding("topics", False, f"{difference.topic} {difference.what}", difference.remedy)
    if not wrong:
        partitions = found[settings.topics.interactions].partitions
        yield Finding("topics", True, f"all {len(specs)} are right, {partitions} partitions")


def _codecs(admin: KafkaAdminClient, settings: CommandSettings) -> Finding:
    """Check that both clients read every codec: producers choose one, and a topic may set its own."""
    present = existing(admin, wanted(admin, settings))
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, {"compression.type": ""}) for name in present]
    configs = admin.describe_configs(resources, config_filter="all")["topic"] if resources else {}
    own = {name: str(values["compression.type"]["value"]) for name, values in configs.items()}
    settings_of = ", ".join(f"{name} is {codec}" for name, codec in sorted(own.items()) if codec != "producer")
    missing = missing_codecs()
    if missing:
        unread = ", ".join(f"{codec} by {client}" for client, codec in missing)
        packages = " ".join(sorted({CODEC_PACKAGES[client][codec] for client, codec in missing}))
        detail = f"codecs can't be read: {unread}" + (f"; {settings_of}" if settings_of else "")
        return Finding("codecs", False, detail, f"run `make install`, or pip install {packages}")
    return Finding("codecs", True, "gzip, snappy, lz4 and zstd are read" + (f"; {settings_of}" if settings_of else ""))


def missing_codecs() -> list[tuple[str, str]]:
    """Return the codecs that a client can't read because a package is missing, as client and codec."""
    return [
        (client, codec)
        for client, module in (("aiokafka", aiokafka.codec), ("kafka-python", kafka.codec))
        for codec in CODEC_PACKAGES[client]
        if not getattr(module, f"has_{codec}")()
    ]


def _group(admin: KafkaAdminClient, topics: Topics) -> Finding:
    wrong = beyond_the_end(admin, topics)
    if not wrong:
        return Finding("group", True, f"the committed offsets of {topics.app_id} are within the logs")
    detail = ", ".join(
        f"{tp.topic}/{tp.partition} was read up to {read} but ends at {end}"
        for tp, (read, end) in sorted(wrong.items())
    )
    remedy = (
        "the topic was re-created or the broker lost records; workers detect it at their start and continue: see "
        "TopicRecreated and LogShorter in k8s/alerts.md"
    )
    return Finding("group", False, detail, remedy)


def beyond_the_end(admin: KafkaAdminClient, topics: Topics) -> dict[TopicPartition, tuple[int, int]]:
    """Return partitions whose committed offset is beyond the end of their log: (committed, end)."""
    try:
        committed = admin.list_group_offsets({topics.app_id: None}).get(topics.app_id, {})
    except (GroupIdNotFoundError, CoordinatorNotAvailableError):
        return {}  # no worker has ever run, or a new broker has no offsets topic yet
    names = (topics.interactions, topics.requests, topics.transitions)
    read = {tp: given.offset for tp, given in committed.items() if tp.topic in names}
    ends = admin.list_partition_offsets(dict.fromkeys(read, OffsetSpec.LATEST)) if read else {}
    return {tp: (offset, ends[tp].offset) for tp, offset in read.items() if offset > ends[tp].offset}
