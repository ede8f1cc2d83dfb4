"""Is everything as it has to be? Each finding says what, and what to do about it."""

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

MIN_BROKER = (2, 4)  # the first whose admin requests are all that is used here
SHOWN = ("faust-streaming", "mode-streaming", "aiokafka", "kafka-python", "torch", "rocksdict")

CODEC_PACKAGES = {  # what the two clients read each codec by; gzip is Python's own
    "aiokafka": {"snappy": "cramjam", "lz4": "cramjam", "zstd": "cramjam"},
    "kafka-python": {"snappy": "python-snappy", "lz4": "lz4", "zstd": "zstandard"},
}


def examine(settings: CommandSettings) -> Iterator[Finding]:
    """Look at everything, in the order in which one thing needs another."""
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
        return  # what a person has to mend first
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
    """Compare the packages that parts are replaced in with the versions that those parts were written for."""
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
        remedy = "install them again: make install, or pip install hrnn-stream"
        yield Finding("packages", False, ", ".join(wrong), remedy)
    names = ", ".join(f"{name} {number}" for name, number in installed.items())
    yield Finding("versions", True, f"hrnn-stream {own}, Python {platform.python_version()}, {names}")


def _broker(admin: KafkaAdminClient, bootstrap: str) -> Finding:
    cluster = admin.describe_cluster()
    number = admin._manager.broker_version  # by the requests that it answers; a broker tells no version
    said = ".".join(str(part) for part in number)
    detail = f"{bootstrap} answers: Kafka {said} or newer, {len(cluster['brokers'])} broker(s)"
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
        yield Finding("topics", True, f"all {len(specs)} are as they have to be, {partitions} partitions")


def _codecs(admin: KafkaAdminClient, settings: CommandSettings) -> Finding:
    """Look whether both clients read every codec: producers choose one, and a topic may have all in its own."""
    present = existing(admin, wanted(admin, settings))
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, {"compression.type": ""}) for name in present]
    configs = admin.describe_configs(resources, config_filter="all")["topic"] if resources else {}
    own = {name: str(values["compression.type"]["value"]) for name, values in configs.items()}
    said = ", ".join(f"{name} is {codec}" for name, codec in sorted(own.items()) if codec != "producer")
    missing = missing_codecs()
    if missing:
        unread = ", ".join(f"{codec} by {client}" for client, codec in missing)
        packages = " ".join(sorted({CODEC_PACKAGES[client][codec] for client, codec in missing}))
        detail = f"what is compressed so can't be read here: {unread}" + (f"; {said}" if said else "")
        return Finding("codecs", False, detail, f"run `make install`, or pip install {packages}")
    return Finding("codecs", True, "gzip, snappy, lz4 and zstd are read" + (f"; {said}" if said else ""))


def missing_codecs() -> list[tuple[str, str]]:
    """List the codecs that a client can't read for want of a package, each as client and codec."""
    return [
        (client, codec)
        for client, module in (("aiokafka", aiokafka.codec), ("kafka-python", kafka.codec))
        for codec in CODEC_PACKAGES[client]
        if not getattr(module, f"has_{codec}")()
    ]


def _group(admin: KafkaAdminClient, topics: Topics) -> Finding:
    wrong = beyond_the_end(admin, topics)
    if not wrong:
        return Finding("group", True, f"what {topics.app_id} has read is on the logs")
    detail = ", ".join(
        f"{tp.topic}/{tp.partition} was read up to {read} and ends at {end}"
        for tp, (read, end) in sorted(wrong.items())
    )
    remedy = (
        "the topic was made again or the broker lost records; workers notice it at their start and go on: see "
        "TopicRecreated and LogShorter in k8s/alerts.md"
    )
    return Finding("group", False, detail, remedy)


def beyond_the_end(admin: KafkaAdminClient, topics: Topics) -> dict[TopicPartition, tuple[int, int]]:
    """Find partitions that the workers' group has read beyond the end of their log: (read up to, end)."""
    try:
        committed = admin.list_group_offsets({topics.app_id: None}).get(topics.app_id, {})
    except (GroupIdNotFoundError, CoordinatorNotAvailableError):
        return {}  # no worker has ever run, or a broker is new and has no topic of offsets yet
    names = (topics.interactions, topics.requests, topics.transitions)
    read = {tp: given.offset for tp, given in committed.items() if tp.topic in names}
    ends = admin.list_partition_offsets(dict.fromkeys(read, OffsetSpec.LATEST)) if read else {}
    return {tp: (offset, ends[tp].offset) for tp, offset in read.items() if offset > ends[tp].offset}
