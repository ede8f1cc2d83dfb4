"""Find and refuse poison events, at which the decision fails, so that no record can crash every worker in turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from models.recommending.recommender import Decision
from models.records import BadRecord
from models.users.walk import SourcedEvent

MOST_POISON = 8  # events of a batch: if more fail, the events are not the cause and must not become dead letters

log = logging.getLogger(__name__)

Decide = Callable[[Sequence[SourcedEvent]], Decision]


def decide_without_poison(
    decide: Decide, events: Sequence[SourcedEvent]
) -> tuple[Decision, list[int], list[tuple[int, BadRecord]]]:
    """Decide a batch without its poison events.

    Returns the decision, the indices in `events` of its events, and the refused indices with their reasons. Raises the
    first error if more than MOST_POISON events fail, and MemoryError.
    """
    try:
        return decide(events), list(range(len(events))), []
    except MemoryError:
        raise
    except Exception as error:
        size = len(events)
        log.exception("decision failed, retrying to find the poison event batch_size=%d", size)
        failed = _failing(decide, events, error)
        left = [number for number in range(len(events)) if number not in failed]
        return decide([events[number] for number in left]), left, list(failed.items())


def _failing(decide: Decide, events: Sequence[SourcedEvent], first: Exception) -> dict[int, BadRecord]:
    """Find the events that fail after their user's earlier events."""
    of_users: dict[tuple[int, str], list[int]] = {}
    for number, sourced in enumerate(events):
        of_users.setdefault((sourced.partition, sourced.event.user_id), []).append(number)
    failed: dict[int, BadRecord] = {}
    for numbers in of_users.values():
        try:
            decide([events[number] for number in numbers])
            continue
        except MemoryError:
            raise
        except Exception:
            good: list[SourcedEvent] = []
            for number in numbers:
                try:
                    decide([*good, events[number]])
                    good.append(events[number])
                except Exception as error:
                    if len(failed) >= MOST_POISON:
                        raise first from error
                    failed[number] = BadRecord("failed", f"{type(error).__name__}: {error}")
                    place = events[number].origin
                    log.error(
                        "event refused, its decision failed topic=%s partition=%d offset=%d error=%s",
                        place.topic,
                        place.partition,
                        place.offset,
                        type(error).__name__,
                    )
    if not failed:
        raise first
    return failed
