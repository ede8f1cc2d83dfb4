"""How often a partition's log began again, as workers keep it beside the states (see stream/source/log_epochs.py)."""

from __future__ import annotations

import struct
from contextlib import suppress

from stream.audit.reading import Log
from stream.source.log_epochs import LOG_KEY, REQUESTS_KEY, decode_mark


def epochs_of(changelog: Log, key: bytes) -> dict[int, int]:
    """Give the epoch of each partition whose log was re-created or got shorter; 0 is left out."""
    epochs: dict[int, int] = {}
    for kept_in, records in changelog.records.items():
        for record in records:
            name, _, added = (record.key or b"").partition(b"/")
            if name != key or not record.value:
                continue
            with suppress(ValueError, struct.error):  # a mark of a release that this code does not know
                partition = int(added) if added else kept_in
                epochs[partition] = max(epochs.get(partition, 0), decode_mark(record.value).epoch)
    return {partition: epoch for partition, epoch in epochs.items() if epoch}


def mark_epochs(user_states: Log, item_states: Log, interactions: Log, requests: Log, transitions: Log) -> None:
    """Note in the workers' inputs which partitions began again: what they held before can't be replayed."""
    interactions.epochs = epochs_of(user_states, LOG_KEY)
    requests.epochs = epochs_of(user_states, REQUESTS_KEY)
    transitions.epochs = epochs_of(item_states, LOG_KEY)
