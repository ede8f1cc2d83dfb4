"""What watching costs: a batch decided and counted with and without the live quality metrics, in one run.

python -m tests.benchmarks.observation
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence

import msgspec
import numpy as np
import torch

from models import weights
from models.items.live_items import LiveItems
from models.oracle import fell_out
from models.recommending.popularity import Popularity
from models.recommending.recommender import Decision, Recommender, UserKey
from models.records import Source
from models.sessions import SessionRules
from models.users.state import HISTORY_EVENTS, HistoryEvent, UserState
from models.users.walk import SourcedEvent
from models.weights import ServingModel
from stream.demo.live_quality import PopularityBaselines
from stream.demo.movietweetings import load_events
from stream.stages.open_sessions import OpenSessions
from stream.telemetry import Telemetry
from tests.made import made_model

WARM, MEASURED, BATCH = 60_000, 20_480, 512
EVENTS_PER_S = 500.0


class Worker:
    """The decisions of one worker over a log."""

    def __init__(self, model: ServingModel, live: LiveItems | None) -> None:
        self._model, self._live = model, live
        self._recommender = Recommender(SessionRules(grace_s=1e12))
        self._states: dict[UserKey, UserState] = {}
        self._popularity = Popularity()
        self._telemetry, self._open_sessions = Telemetry(), OpenSessions(1800.0)

    def play(self, batch: Sequence[SourcedEvent]) -> tuple[float, float]:
        """Return the seconds for deciding, and for counting what came of it."""
        begun = time.thread_time()
        decision = self._recommender.decide(
            self._model, self._popularity, self._states, batch, 5.0, live=self._live
        )  # fmt: skip
        decided = time.thread_time()
        if self._live is not None:
            self._count(decision, self._live, batch)
        counted = time.thread_time()
        self._states.update(decision.states)
        return decided - begun, counted - decided

    def _count(self, decision: Decision, live: LiveItems, batch: Sequence[SourcedEvent]) -> None:
        outcomes, now = decision.outcomes, batch[-1].now
        self._telemetry.judge(outcomes.trials)
        self._telemetry.watch_items(live)
        self._open_sessions.move(outcomes.moved, (0,))
        self._open_sessions.forget(now)
        self._telemetry.stored(outcomes.moved, max((event.now for event in batch), default=0.0))


def exactness() -> dict[str, float]:
    """Give the hit-rates at 10 of popularity on the demo's live events, by its ranks here and by exact counts."""
    live, exact, hits = LiveItems(), PopularityBaselines(), np.zeros(4)
    histories: dict[str, list[HistoryEvent]] = {}
    events, trials = load_events(), 0
    for offset, event in enumerate(events):
        history = histories.setdefault(event.user_id, [])
        if history and offset >= 0.8 * len(events):
            earlier = dict.fromkeys(fell_out(history, HISTORY_EVENTS), 1)
            places = live.places(event.item_id, history[-HISTORY_EVENTS:], earlier)
            hits += [places[0] > 0, places[1] > 0, *exact.hits(event)]
            trials += 1
        exact.learn(event)
        live.take(event.item_id, event.timestamp)
        history.append(HistoryEvent(event.item_id, event.timestamp, None, None, offset))
    names = ("all_time_hit_rate", "24h_hit_rate", "exact_all_time_hit_rate", "exact_24h_hit_rate")
    return dict(zip(names, (hits / trials).tolist(), strict=True))


def main() -> None:
    """Play the same log to both, batch about, and say what each event costs in µs: medians over batches."""
    torch.set_num_threads(1)
    events = []
    for offset, past in enumerate(load_events()[: WARM + MEASURED]):
        # at a busy worker's pace: as they came, an hour has 20 events, and its end is what ranks are made anew at
        event = msgspec.structs.replace(past, timestamp=offset / EVENTS_PER_S)
        events.append(SourcedEvent(event, 0, offset, event.timestamp, Source("interactions", 0, offset)))
    items = sorted({sourced.event.item_id for sourced in events})
    manifest, blob = made_model(len(items), names=items)
    model = weights.unpack(manifest, blob)
    plain, watched = Worker(model, None), Worker(model, LiveItems())
    spent: dict[Worker, list[tuple[float, float]]] = {plain: [], watched: []}
    for begin in range(0, len(events), BATCH):
        for worker in (plain, watched) if begin // BATCH % 2 else (watched, plain):
            spent[worker].append(worker.play(events[begin : begin + BATCH]))
    pairs = list(zip(spent[plain], spent[watched], strict=True))[WARM // BATCH :]
    us = 1e6 / BATCH
    figures = {
        "plain_us_per_event": statistics.median(without[0] for without, _ in pairs) * us,
        "added_to_decisions_us_per_event": statistics.median(having[0] - without[0] for without, having in pairs) * us,
        "added_counting_us_per_event": statistics.median(having[1] for _, having in pairs) * us,
    }
    figures |= exactness()
    sys.stdout.write(json.dumps({name: round(figure, 4) for name, figure in figures.items()}) + "\n")


if __name__ == "__main__":
    main()
