"""The worker's metrics, named as operators expect: prefix, base units, bounded labels (no user, no item)."""

from __future__ import annotations

import collections
import contextlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from faust.types import TP
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from models.items.live_items import LiveItems
from models.recommending.recommender import Moved, Trial
from models.records import POPULARITY, BadRecord
from models.users.state import EMITTED_ITEMS
from models.weights import ServingModel
from stream.source.record_batches import Unreadable

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
ONLINE_K = (1, 10)  # a state keeps ten places of the last list
OLDER = "older"  # than the version before the one in use: users who come back find lists of many versions
IN_SESSION = ("first", "later")
BASELINES = ("all_time", "24h")
RESULTS = ("applied", "late", "duplicate", "invalid")
STAGES = ("decide", "send", "ack", "store")
STATES = ("waiting", "restoring", "running")
REASONS = (
    "null_value", "too_large", "missing_field", "wrong_type", "not_json", "bad_id", "bad_timestamp", "bad_value",
    "late", "future", "failed", "unreadable",
)  # fmt: skip


class Tally:
    """Trials of one kind: how many, and how often each place was the item's, in the list and in popularity's two."""

    def __init__(self) -> None:
        self.trials = 0
        self.places = [[0] * (EMITTED_ITEMS + 1) for _ in range(1 + len(BASELINES))]


def _reciprocal_rank(places: Sequence[int]) -> float:
    return sum(count / place for place, count in enumerate(places) if place)


class Telemetry:
    """One worker's metrics in a registry of its own; Faust's sensor breaks the naming rules and is not exposed."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.events = Counter("rec_events", "Events by what became of them", ["result"], registry=registry)
        self.recommendations = Counter(
            "rec_recommendations", "Lists emitted, by what made them", ["source"], registry=registry
        )
        self.batch_size = Histogram("rec_batch_size", "Events in a batch", buckets=BATCH_BUCKETS, registry=registry)
        self.end_to_end = Histogram(
            "rec_end_to_end_latency_seconds",
            "From the broker's timestamp of an event to the broker's ack of its list",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.stage = Histogram(
            "rec_stage_duration_seconds",
            "Time of a batch in each stage",
            ["stage"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.lag_records = Gauge(
            "rec_consumer_lag_records", "Records not finished yet", ["topic", "partition"], registry=registry
        )
        self.lag_seconds = Gauge(
            "rec_consumer_lag_seconds",
            "Age of the last finished record while there is lag",
            ["topic", "partition"],
            registry=registry,
        )
        self.dead_letters = Counter("rec_dead_letters", "Records refused", ["reason"], registry=registry)
        self.forwarded = Counter(
            "rec_forwarded_events", "Events sent on to their user's own partition", registry=registry
        )
        self.unreadable = Counter(
            "rec_unreadable_records", "Records skipped because their batch could not be read", registry=registry
        )
        self.holes = Counter("rec_log_holes", "Times that the log had no record at an offset", registry=registry)
        self.topic_recreated = Counter(
            "rec_topic_recreated", "Source topics found deleted and made again", registry=registry
        )
        self.log_shorter = Counter(
            "rec_log_shorter", "Partitions whose log ends before what was read of it", registry=registry
        )
        self.topics_missing = Gauge("rec_source_topics_missing", "Source topics that do not exist", registry=registry)
        self.added_partitions = Gauge(
            "rec_added_partitions",
            "Partitions of interactions and requests that no states are kept by",
            registry=registry,
        )
        self.foreign = Counter(
            "rec_foreign_changelog_records",
            "Records that another worker wrote to our changelog",
            registry=registry,
        )
        self.store_failures = Counter(
            "rec_store_failures",
            "Times that a store failed and was restored, or opened again: damaged, or not writable as on a full disk",
            ["kind"],
            registry=registry,
        )
        self.requeued = Counter(
            "rec_batches_given_back",
            "Batches requeued: the worker paused, or acks did not come in time",
            registry=registry,
        )
        self.sessions_closed = Counter(
            "rec_sessions_closed",
            "Sessions that a later event showed to be over",
            ["reason"],
            registry=registry,
        )
        self.state_bytes = Histogram(
            "rec_state_bytes",
            "Size of a user's state as stored",
            buckets=(128, 256, 512, 1024, 2048, 4096, 8192, 16384),
            registry=registry,
        )
        self._place_trials(registry)
        self.unknown_items = Counter(
            "rec_unknown_item", "Events on items that the model was not trained on", registry=registry
        )
        self.rebuilt = Counter(
            "rec_states_rebuilt",
            "States made anew under new weights from retained history",
            registry=registry,
        )
        self._place_freshness(registry)
        self.swaps = Counter(
            "rec_model_swaps", "Published models by what became of them", ["result"], registry=registry
        )
        self.recovery_state = Gauge(
            "rec_recovery_state", "1 for the state that the worker is in", ["state"], registry=registry
        )
        self.restore_remaining = Gauge(
            "rec_restore_remaining_records", "Changelog records yet to be restored", registry=registry
        )
        self.restore_duration = Histogram(
            "rec_restore_duration_seconds",
            "From a rebalance to ready",
            buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600),
            registry=registry,
        )
        self.transitions = Counter(
            "rec_transitions",
            "Transitions that the item stage took in, by what became of them; invalid are records, of any number",
            ["result"],
            registry=registry,
        )
        self.signals_emitted = Counter("rec_signals_emitted", "Items' signals sent to all workers", registry=registry)
        self.items_tracked = Gauge("rec_items_tracked", "Items whose live signals this worker holds", registry=registry)
        self.signals_age = Gauge(
            "rec_signals_age_seconds",
            "How long ago all of the signals topic was in the lists",
            registry=registry,
        )
        self.requests = Counter(
            "rec_requests", "Requests for a list, by what became of them", ["result"], registry=registry
        )
        self.request_latency = Histogram(
            "rec_request_latency_seconds",
            "From the broker's timestamp of a request to the broker's ack of its list",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.producer_errors = Counter("rec_producer_errors", "Sends that failed", registry=registry)

        ProcessCollector(registry=registry)  # memory, processor, files: by the names that every client library has
        self._begin_at_zero()
        self._versions = [POPULARITY]  # in use, and the one before
        self._lagging: set[TP] = set()
        self._event_time = self._state_time = 0.0

    def _place_trials(self, registry: CollectorRegistry) -> None:
        """Register what says how good the lists are: each tested by the event after it, then learned from.

        Prequential evaluation: Vinagre, Jorge & Gama, arXiv:1504.08175.
        """
        of = ["version", "in_session"]
        self._trials = Counter(
            "rec_online_trials", "Events of users who had been given a list before", [*of, "k"], registry=registry
        )
        self._hits = Counter(
            "rec_online_hits", "Trials whose item is in the first k places of that list", [*of, "k"], registry=registry
        )
        self._reciprocal_rank = Counter(
            "rec_online_reciprocal_rank_sum",
            "Sum of 1 / place of the trials' items in the ten first places of that list",
            of,
            registry=registry,
        )
        self._baseline_hits = Counter(
            "rec_online_baseline_hits",
            "Trials whose item popularity would have listed at the same moment, without what the user had had",
            ["baseline", "in_session", "k"],
            registry=registry,
        )
        self._baseline_reciprocal_rank = Counter(
            "rec_online_baseline_reciprocal_rank_sum",
            "Sum of 1 / place of the trials' items in the ten first places of popularity's lists",
            ["baseline", "in_session"],
            registry=registry,
        )
        self._psi = Gauge(
            "rec_item_distribution_psi",
            "Population stability index: the last 24 hours' events beside the training events, in ten parts by "
            "training popularity; NaN before there are enough",
            registry=registry,
        )
        self._coverage = Gauge(
            "rec_catalog_coverage_ratio",
            "Share of the model's items in the first ten places of the last 10,000 lists",
            registry=registry,
        )

    def _place_freshness(self, registry: CollectorRegistry) -> None:
        """Register what says how old is what is served: the age of each is time() less it."""
        self._newest_event = Gauge(
            "rec_event_timestamp_seconds", "The newest applied event's own time", registry=registry
        )
        self._newest_state = Gauge(
            "rec_state_timestamp_seconds",
            "When the broker took the newest event whose state is stored and acked",
            registry=registry,
        )
        self.sessions_active = Gauge(
            "rec_sessions_active", "Users of this worker whose session may go on", registry=registry
        )
        self._model_info = Gauge("rec_model_info", "The model in use", ["version", "sha"], registry=registry)
        self._model_trained = Gauge(
            "rec_model_trained_timestamp_seconds", "When the model in use was trained", registry=registry
        )
        self._model_data = Gauge(
            "rec_model_data_timestamp_seconds",
            "Newest event that the model in use, and so its catalogue, was made from",
            registry=registry,
        )
        self._catalogue_items = Gauge("rec_catalogue_items", "Items that the model in use knows", registry=registry)
        self._volume_size = Gauge(
            "rec_data_volume_size_bytes", "Size of the volume that the stores are on", registry=registry
        )
        self._volume_available = Gauge(
            "rec_data_volume_available_bytes", "What is free of it for this process", registry=registry
        )

    def _begin_at_zero(self) -> None:
        """Make the series of known labels: the first increment of a series that was not there is no increase."""
        for counter, values in (
            (self.events, RESULTS),
            (self.recommendations, ("model", "fallback")),
            (self.dead_letters, REASONS),
            (self.sessions_closed, ("gap",)),
            (self.swaps, ("swapped", "refused")),
            (self.store_failures, ("damaged", "not_writable")),
        ):
            for value in values:
                counter.labels(value)
        for stage in STAGES:
            self.stage.labels(stage)
        self._begin_version(POPULARITY)
        self._begin_version(OLDER)
        for baseline in BASELINES:
            for place in IN_SESSION:
                self._baseline_reciprocal_rank.labels(baseline, place)
                for k in ONLINE_K:
                    self._baseline_hits.labels(baseline, place, k)
        self._psi.set(math.nan)
        self._coverage.set(math.nan)

    def _begin_version(self, version: str) -> None:
        for place in IN_SESSION:
            self._reciprocal_rank.labels(version, place)
            for k in ONLINE_K:
                self._trials.labels(version, place, k)
                self._hits.labels(version, place, k)

    def swapped(self, model: ServingModel) -> None:
        """Return which model is in use from now on; only its trials and those of the one before keep their names."""
        manifest = model.manifest
        self.swaps.labels("swapped").inc()
        self._model_info.clear()
        self._model_info.labels(model.version, manifest.sha256[:12]).set(1)
        self._model_trained.set(manifest.trained_at)
        self._model_data.set(manifest.data_watermark)
        self._catalogue_items.set(len(model.catalogue.item_ids))
        for version in self._versions[1:]:
            if version != model.version:
                for counter in (self._trials, self._hits, self._reciprocal_rank):
                    counter.remove_by_labels({"version": version})
        self._versions = [model.version, self._versions[0]]
        self._begin_version(model.version)

    def judge(self, trials: Iterable[Trial]) -> None:
        """Count how lists stood the test of the event after them, beside popularity's at the same moments."""
        tallies: dict[tuple[str, bool], Tally] = {}
        for trial, count in collections.Counter(trials).items():
            version = trial.version if trial.version in self._versions else OLDER
            tally = tallies.setdefault((version, trial.opens_session), Tally())
            tally.trials += count
            for places, place in zip(tally.places, trial[2:], strict=True):
                places[place] += count
        for (version, opens_session), tally in tallies.items():
            in_session = IN_SESSION[0] if opens_session else IN_SESSION[1]
            listed, *popular = tally.places
            self._reciprocal_rank.labels(version, in_session).inc(_reciprocal_rank(listed))
            for k in ONLINE_K:
                self._trials.labels(version, in_session, k).inc(tally.trials)
                self._hits.labels(version, in_session, k).inc(sum(listed[1 : k + 1]))
            for baseline, places in zip(BASELINES, popular, strict=True):
                self._baseline_reciprocal_rank.labels(baseline, in_session).inc(_reciprocal_rank(places))
                for k in ONLINE_K:
                    self._baseline_hits.labels(baseline, in_session, k).inc(sum(places[1 : k + 1]))

    def watch_items(self, live: LiveItems) -> None:
        """Return how far popularity has drifted, and how much of the catalogue is shown."""
        self._psi.set(live.psi)
        self._coverage.set(live.coverage)

    def stored(self, moved: Iterable[Moved], broker_time: float) -> None:
        """Say that a batch's states are stored; the newest counts, for partitions need not be equally far."""
        self._event_time = max(self._event_time, max((user.after for user in moved), default=0.0))
        self._state_time = max(self._state_time, broker_time)
        self._newest_event.set(self._event_time)
        self._newest_state.set(self._state_time)

    def set_lag(self, lags: Mapping[TP, tuple[int, float]]) -> None:
        """Say each assigned partition's lag; a partition that has moved on is another worker's to report."""
        for gone in self._lagging - lags.keys():
            self.lag_records.remove(gone.topic, gone.partition)
            self.lag_seconds.remove(gone.topic, gone.partition)
        for tp, (records, seconds) in lags.items():
            self.lag_records.labels(tp.topic, tp.partition).set(records)
            self.lag_seconds.labels(tp.topic, tp.partition).set(seconds)
        self._lagging = set(lags)

    def set_volume(self, folder: Path) -> None:
        """Return how full the volume of a folder is, as long as it is there to ask."""
        with contextlib.suppress(OSError):
            found = os.statvfs(folder)
            self._volume_size.set(found.f_blocks * found.f_frsize)
            self._volume_available.set(found.f_bavail * found.f_frsize)

    def refused(self, errors: Iterable[BadRecord]) -> None:
        """Count dead letters by their reason."""
        for error in errors:
            self.dead_letters.labels(error.reason).inc()
            if isinstance(error, Unreadable):
                self.unreadable.inc(error.records)

    def set_recovery_state(self, state: str) -> None:
        """Return which of the states the worker is in."""
        for name in STATES:
            self.recovery_state.labels(name).set(name == state)
