"""Events that the decision fails at: found one by one and refused, so that no record can end every worker in turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from models.recommending.recommender import Decision
from models.records import BadRecord
from models.users.walk import SourcedEvent

MOST_POISON = 8  # events of a batch: where more fail it is not the events, and dead letters would be the loss

log = logging.getLogger(__name__)

Decide = Callable[[Sequence[SourcedEvent]], Decision]


def decide_without_poison(
    decide: Decide, events: Sequence[SourcedEvent]
) -> tuple[Decision, list[int], list[tuple[int, BadRecord]]]:
    """Decide a batch without the events that make the decision fail.

    Returns the decision, for each of its events the number among `events`, and the refused ones with the reason.
    Raises the first error if more than MOST_POISON events fail, or memory is short.
    """
    try:
        return decide(events), list(range(len(events))), []
    except MemoryError:
        raise
    except Exception as error:
        size = len(events)
        log.exception("decision failed, looking for the event that it fails at batch_size=%d", size)
        failed = _failing(decide, events, error)
        left = [number for number in range(len(events)) if number not in failed]
        return decide([events[number] for number in left]), left, list(failed.items())


def _failing(decide: Decide, events: Sequence[SourcedEvent], first: Exception) -> dict[int, BadRecord]:
    """Find the events that fail with those of their user before them."""
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
                        "event refused, the decision failed at it topic=%s partition=%d offset=%d error=%s",
                        place.topic,
                        place.partition,
                        place.offset,
                        type(error).__name__,
                    )
    if not failed:
        raise first
    return failed
