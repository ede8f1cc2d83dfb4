"""`hrnn plan`: compute the resources that a load needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from stream.commands.options import Json, note, results
from stream.commands.tables import table


def plan(
    events_per_s: Annotated[float, typer.Option("--events-per-s", min=0.001, help="Events per second at the peak.")],
    users: Annotated[int, typer.Option(min=1, help="Users with a state: all who ever had an event.")],
    items: Annotated[int, typer.Option(min=1, help="Items of the catalogue: each list scores all of them.")],
    replication: Annotated[int, typer.Option(min=1, help="Copies of each partition in Kafka.")] = 3,
    state_bytes: Annotated[
        int | None, typer.Option(min=100, help="Mean of your rec_state_bytes. [a measured value]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute partitions, pods, memory, disk and the time of a restore, from figures measured on one machine.

    Workers are planned at half load, so that they can catch up, one worker may fail, and there are four times as many
    partitions as workers. Measure on your machine: `make bench`, and rec_state_bytes of a running worker.
    """
    from stream.commands.environment import load
    from stream.planning.trainer import Training
    from stream.planning.worker import STATE_BYTES, STATE_BYTES_FULL
    from stream.planning.worker import plan as compute
    from trainer.settings import FittingSettings, TrainerSettings

    fitting = load(FittingSettings)
    settings = load(TrainerSettings, fitting=fitting)
    planned = compute(
        events_per_s=events_per_s,
        users=users,
        items=items,
        training=Training(
            hidden_dimension=fitting.hidden_dimension,
            window_s=settings.train_window_s,
            max_events=settings.train_max_events,
            max_s=fitting.train_max_s,
            full_softmax_max_items=fitting.full_softmax_max_items,
        ),
        replication=replication,
        state_bytes=state_bytes or STATE_BYTES,
    )
    if as_json:
        results(json.dumps(asdict(planned)))
        return
    trainer = planned.trainer
    table(
        ("what", "how much", "setting or manifest"),
        [
            ("rate of one worker", f"{planned.events_per_worker_s:,.0f}/s", "one core"),
            ("workers", str(planned.workers), "replicas, at the peak"),
            ("partitions", str(planned.partitions), "HRNN_PARTITIONS, can't be changed"),
            ("memory of a worker", _size(planned.memory_per_worker_bytes), "limits.memory"),
            ("disk of a worker", _size(planned.disk_per_worker_bytes), "volumeClaimTemplates"),
            ("changelog of the states", _size(planned.changelog_bytes), f"in Kafka, {replication} copies"),
            ("all topics", _size(planned.kafka_bytes), f"in Kafka, {replication} copies, after a year"),
            ("a model", _size(planned.models_bytes), f"weights of HRNN_HIDDEN_DIMENSION={fitting.hidden_dimension}"),
            ("restore of a worker", _time(planned.restore_worker_s), "without its folder; seconds with it"),
            ("catch-up after a minute", _time(planned.catch_up_after_60_s), "at the peak, with all workers"),
            ("memory of the trainer", _size(trainer.memory_bytes), f"limits.memory, {trainer.events_used:,} events"),
            (
                "disk of the trainer",
                _size(trainer.disk_bytes),
                f"HRNN_TRAINER_DIR, {trainer.events:,} events of a year",
            ),
            ("a fit", _time(trainer.fit_s), "stopped by HRNN_TRAIN_MAX_S" if trainer.fit_ends_early else "two cores"),
        ],
    )
    if trainer.events_used < trainer.events:
        note(
            f"the trainer fits {trainer.events_used:,} of {trainer.events:,} events:"
            f" HRNN_TRAIN_WINDOW_S={settings.train_window_s:g}, HRNN_TRAIN_MAX_EVENTS={settings.train_max_events}"
        )
    if not state_bytes:
        most = f"up to {STATE_BYTES_FULL:,} for thousands of events"
        note(f"assumed states of {STATE_BYTES:,} bytes, for 17 events per user; {most}; set --state-bytes")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
