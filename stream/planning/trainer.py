"""Compute the trainer's memory, disk and fitting time from measured figures."""

from __future__ import annotations

from dataclasses import dataclass

SESSIONS_DAYS = 365  # of events on `sessions`, which keeps them until they are erased: the plan is for a year

# ru_maxrss of a fit of 20,000 events with the default settings: 561 MiB before loading (torch for CUDA), 803 MiB at the
# end. With 87 events per item, each event adds 490 bytes of successors and 375 of neighbours, both twice while they are
# merged, and 170 of everything else. Loading a million events from the copy took 107 MiB.
TRAINER_RSS_BYTES = 803 * 2**20
FIT_EVENT_BYTES = 1_900
FIT_ITEM_BYTES = 6 * 4  # floats per dimension: weights, gradient, AdamW's two moments, the average and the best weights
SNAPSHOTS_BYTES = 2 * 256 * 2**20  # of the trends, at most, twice while they are arranged for a catalogue
COPY_EVENT_BYTES = 90  # measured: 86 per event, of a million events in sessions of ten
# 609,000 events of 11,500 items took 917 s on two busy cores, all epochs (HRNN_TRAIN_MAX_S). Half of the time is per
# event, the other half for the scores of the items, up to the size from which on a sample is scored
FIT_EVENT_S = 917 / 609_000
FIT_ITEMS = 11_500


@dataclass(frozen=True)
class Training:
    """The trainer's settings that the plan depends on."""

    hidden_dimension: int
    window_s: float
    max_events: int
    max_s: float
    full_softmax_max_items: int


@dataclass(frozen=True)
class TrainerPlan:
    """The trainer's needs after SESSIONS_DAYS days."""

    events: int  # in the copy
    events_used: int  # within the window and the sample
    memory_bytes: int
    disk_bytes: int
    fit_s: float
    fit_ends_early: bool  # HRNN_TRAIN_MAX_S is shorter than the fit


def plan_trainer(*, per_day: float, items: int, training: Training) -> TrainerPlan:
    """Compute the needs of training on `per_day` events a day over `items`."""
    events = per_day * SESSIONS_DAYS
    used = min(events, per_day * training.window_s / 86_400) if training.window_s else events
    used = min(used, training.max_events) if training.max_events else used
    memory = (
        TRAINER_RSS_BYTES
        + used * FIT_EVENT_BYTES
        + items * training.hidden_dimension * FIT_ITEM_BYTES
        + SNAPSHOTS_BYTES
    )
    fit_s = used * FIT_EVENT_S * (1 + min(items, training.full_softmax_max_items) / FIT_ITEMS) / 2
    return TrainerPlan(
        events=int(events),
        events_used=int(used),
        memory_bytes=int(memory),
        disk_bytes=int(events * COPY_EVENT_BYTES),
        fit_s=min(fit_s, training.max_s),
        fit_ends_early=fit_s > training.max_s,
    )
