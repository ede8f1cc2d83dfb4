"""The worker without a model: decode, state read and written, changelog, output, acks; the decision is a count."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from models.items.live_items import LiveItems
from models.recommending.popularity import Popularity
from models.recommending.recommender import Decision, Recommender, SourcedEvent, UserKey
from models.recommending.scoring import Moment
from models.records import Recommendation, rec_id
from models.users.state import UserState
from models.weights import ServingModel
from stream.app import StreamWorker
from stream.process.serving import MetricsServer
from stream.settings import WorkerSettings


class Counting(Recommender):
    """Counts a user's events and answers each with an empty list."""

    def decide(
        self,
        model: ServingModel | None,
        popularity: Popularity,
        states: Mapping[UserKey, UserState],
        events: Sequence[SourcedEvent],
        generated_at: float,
        moment: Moment | None = None,
        live: LiveItems | None = None,
    ) -> Decision:
        """Do as little as a stateful answer can."""
        decision = Decision()
        current: dict[UserKey, Any] = dict(states)
        for number, (event, partition, offset, now, origin) in enumerate(events):
            key = partition, event.user_id
            before = current.get(key)
            count = 1 if before is None else before.events + 1
            current[key] = decision.states[key] = UserState(offset, {}, [], 0.0, 0, 0, bytes(172), 0, "", [], count)
            decision.recommendations.append(
                (
                    number,
                    Recommendation(
                        rec_id(origin.topic, origin.partition, origin.offset),
                        event.user_id,
                        [],
                        "none",
                        "",
                        event.timestamp,
                        now,
                        origin,
                    ),
                )
            )
        decision.outcomes.applied = len(events)
        return decision


def main() -> int:
    """Run it like `hrnn worker`."""
    logging.basicConfig(level="INFO")
    settings = WorkerSettings()
    worker = StreamWorker(settings, Counting(settings.session_rules))
    with MetricsServer(worker.registry, port=settings.metrics_port, healthy=worker.healthy, ready=worker.ready):
        return worker.run()


if __name__ == "__main__":
    sys.exit(main())
