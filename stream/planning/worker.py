"""Compute the partitions, pods, memory, disk and restore time of a load from measured figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.records import Topics
from stream.clients.topics import DAY_MS, topic_table
from stream.planning.trainer import SESSIONS_DAYS, TrainerPlan, Training, plan_trainer
from stream.settings import WorkerSettings

MIB = 2**20

# `make bench`: one worker on one core, events per second by items of the catalogue, all acked
MEASURED_RATE = {10_506: 6_065.0, 27_000: 4_924.0}
# Measured with the packaged events, sent by `hrnn produce` to two workers, the last 40,000 again at later times under a
# model: the newest value of each user on `hrnn-users-changelog`, `ps`, and `du` of the brokers' segments.
STATE_BYTES = 890  # 9,423 users of 17 events each
STATE_BYTES_FULL = 8_000  # a full history of 100 events and 500 evicted items: MovieLens' largest state
WORKER_RSS_BYTES = 850 * MIB  # four partitions, a model of 4 MB, torch's CUDA build
TABLES = 2  # users' states and items' signals, with one store each per partition
# measured with 300 items of 100 successors or more; a row in a worker's table includes the decoder's columns and sums
ITEM_STATE_BYTES, SIGNAL_BYTES, SIGNAL_ROW_BYTES = 2_400, 3_400, 1_700
TRANSITIONS = 4  # per event: itself, and one for each of the last three items
TRANSITION_BYTES = 60  # on `transitions`, kept for a week: 40 in a batch of 500 events, 100 for a single event
EVENT_BYTES = 120
LIST_BYTES = 1_000  # of 20 items
# after deleting a worker's folder: `restored=50700 duration_s=2.93` in its log, on two busy cores
RESTORE_RECORDS_PER_S = 17_000.0

UTILISATION = 0.5  # planned load of a worker at the peak: the other half is for catching up and noise
GROWTH = 4  # partitions per pod, as partitions can't be changed later
PARTITION_STEP = 12  # 12 partitions divide evenly among 1, 2, 3, 4, 6 and 12 workers
SPACE_AMPLIFICATION = 2.0  # of RocksDB between two compactions
FLOAT_BYTES = 4
PEAK_TO_MEAN = 2.0  # of a day: data that are kept for days grow by the mean


@dataclass(frozen=True)
class Plan:
    """A deployment. Kafka's bytes include all copies."""

    events_per_worker_s: float
    workers: int
    partitions: int
    memory_per_worker_bytes: int
    disk_per_worker_bytes: int
    changelog_bytes: int
    kafka_bytes: int
    models_bytes: int
    trainer: TrainerPlan
    restore_worker_s: float
    catch_up_after_60_s: float


def worker_rate(items: int) -> float:
    """Return the events per second of one worker on one core, for a catalogue of `items`.

    An event has a fixed cost and a cost per scored item: a line through the measured points.
    """
    (low, fast), (high, slow) = sorted(MEASURED_RATE.items())
    per_item_s = (1 / slow - 1 / fast) / (high - low)
    own_s = 1 / fast - per_item_s * low
    return 1 / (own_s + per_item_s * items)


def plan(
    *,
    events_per_s: float,
    users: int,
    items: int,
    training: Training,
    replication: int = 3,
    state_bytes: int = STATE_BYTES,
) -> Plan:
    """Compute the deployment for a peak load of `events_per_s` by `users` over `items`."""
    rate = worker_rate(items)
    workers = max(2, math.ceil(events_per_s / (rate * UTILISATION)))  # two, so that one can fail
    partitions = PARTITION_STEP * math.ceil(GROWTH * workers / PARTITION_STEP)
    # one worker may fail: the others then have its share
    share = 1 / (workers - 1)
    store = math.ceil(partitions * share)
    worker = WorkerSettings.model_fields
    per_partition = worker["block_cache_bytes"].default + 3 * worker["write_buffer_bytes"].default
    # the items' matrix, and in memory the decoder's, too
    model = 2 * items * training.hidden_dimension * FLOAT_BYTES
    # two models while one replaces the other
    memory = WORKER_RSS_BYTES + TABLES * store * per_partition + 2 * model + items * SIGNAL_ROW_BYTES
    states = users * state_bytes
    changelog = changelog_bytes(events_per_s, states, state_bytes)
    per_day = events_per_s / PEAK_TO_MEAN * 86_400
    retention_days = _retention_days()
    kafka = (
        changelog
        + per_day * retention_days * EVENT_BYTES
        + per_day * LIST_BYTES  # compacted after a day
        + users * LIST_BYTES
        + per_day * SESSIONS_DAYS * EVENT_BYTES / 4  # sessions: a year of events without their envelope
        + per_day * 7 * TRANSITIONS * TRANSITION_BYTES
        + items * (SIGNAL_BYTES + ITEM_STATE_BYTES) * SPACE_AMPLIFICATION
    )
    return Plan(
        events_per_worker_s=rate,
        workers=workers,
        partitions=partitions,
        memory_per_worker_bytes=int(memory),
        disk_per_worker_bytes=int((states + items * ITEM_STATE_BYTES) * share * SPACE_AMPLIFICATION),
        changelog_bytes=int(changelog * replication),
        kafka_bytes=int(kafka * replication),
        models_bytes=model,
        trainer=plan_trainer(per_day=per_day, items=items, training=training),
        restore_worker_s=changelog / state_bytes / workers / RESTORE_RECORDS_PER_S,
        catch_up_after_60_s=60 * events_per_s / max(1e-9, workers * rate - events_per_s),
    )


def changelog_bytes(events_per_s: float, states_bytes: float, state_bytes: float) -> float:
    """Return the size of one copy of the states' changelog between two compactions.

    It has the newest version of each state, the allowed dirty part, and the records within the compaction lag.
    """
    (spec,) = (spec for spec in topic_table(Topics("")) if spec.name == Topics("").user_states)
    dirty = float(spec.configs["min.cleanable.dirty.ratio"])
    untouched_s = int(spec.configs["min.compaction.lag.ms"]) / 1000
    return states_bytes / (1 - dirty) + events_per_s * untouched_s * state_bytes


def _retention_days() -> float:
    (spec,) = (spec for spec in topic_table(Topics("")) if spec.name == Topics("").interactions)
    return int(spec.configs["retention.ms"]) / DAY_MS
