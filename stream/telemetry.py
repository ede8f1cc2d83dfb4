"""The worker's Prometheus metrics: prefix `rec_`, base units, a bounded number of labels (no user, no item)."""

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
OLDER = "older"  # label for lists of versions before the previous one, of users who return late
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
    """The number of trials of one kind, and how often each place was hit, in the list and both popularity baselines."""

    def __init__(self) -> None:
        self.trials = 0
        self.places = [[0] * (EMITTED_ITEMS + 1) for _ in range(1 + len(BASELINES))]


def _reciprocal_rank(places: Sequence[int]) -> float:
    return sum(count / place for place, count in enumerate(places) if place)


class Telemetry:
    """One worker's metrics in their own registry. Faust's sensor breaks the naming rules and is not exposed."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.events = Counter("rec_events", "Events by result", ["result"], registry=registry)
        self.recommendations = Counter("rec_recommendations", "Lists sent, by source", ["source"], registry=registry)
        self.batch_size = Histogram("rec_batch_size", "Events in a batch", buckets=BATCH_BUCKETS, registry=registry)
        self.end_to_end = Histogram(
            "rec_end_to_end_latency_seconds",
            "Time from the broker's timestamp of an event to the ack of its list",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.stage = Histogram(
            "rec_stage_duration_seconds",
            "Duration of each stage of a batch",
            ["stage"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.lag_records = Gauge(
            "rec_consumer_lag_records", "Unfinished records", ["topic", "partition"], registry=registry
        )
        self.lag_seconds = Gauge(
            "rec_consumer_lag_seconds",
            "Age of the last finished record while there is lag",
            ["topic", "partition"],
            registry=registry,
        )
        self.dead_letters = Counter("rec_dead_letters", "Records refused", ["reason"], registry=registry)
        self.forwarded = Counter(
            "rec_forwarded_events", "Misrouted events forwarded to their user's own partition", registry=registry
        )
        self.unreadable = Counter(
            "rec_unreadable_records", "Records skipped because their batch could not be read", registry=registry
        )
        self.holes = Counter("rec_log_holes", "Holes in the log: expected offsets without a record", registry=registry)
        self.topic_recreated = Counter("rec_topic_recreated", "Source topics that were re-created", registry=registry)
        self.log_shorter = Counter(
            "rec_log_shorter", "Partitions whose log ends before an offset that was read", registry=registry
        )
        self.topics_missing = Gauge("rec_source_topics_missing", "Source topics that do not exist", registry=registry)
        self.added_partitions = Gauge(
            "rec_added_partitions",
            "Partitions of interactions and requests beyond those of the users' changelog",
            registry=registry,
        )
        self.foreign = Counter(
            "rec_foreign_changelog_records",
            "Changelog records that another worker wrote to this worker's partitions",
            registry=registry,
        )
        self.store_failures = Counter(
            "rec_store_failures",
            "Store failures by kind: damaged (restored), not_writable (opened again), as on a full disk",
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
            "Sessions closed by a later event",
            ["reason"],
            registry=registry,
        )
        self.state_bytes = Histogram(
            "rec_state_bytes",
            "Size of a stored user state",
            buckets=(128, 256, 512, 1024, 2048, 4096, 8192, 16384),
            registry=registry,
        )
        self._place_trials(registry)
        self.unknown_items = Counter("rec_unknown_item", "Events on items unknown to the model", registry=registry)
        self.rebuilt = Counter(
            "rec_states_rebuilt",
            "States rebuilt from the history under new weights",
            registry=registry,
        )
        self._place_freshness(registry)
        self.swaps = Counter("rec_model_swaps", "Published models by result", ["result"], registry=registry)
        self.recovery_state = Gauge("rec_recovery_state", "1 for the worker's state", ["state"], registry=registry)
        self.restore_remaining = Gauge(
            "rec_restore_remaining_records", "Changelog records that a restore has not read yet", registry=registry
        )
        self.restore_duration = Histogram(
            "rec_restore_duration_seconds",
            "Time from a rebalance to ready",
            buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600),
            registry=registry,
        )
        self.transitions = Counter(
            "rec_transitions",
            "Transitions by result in the item stage; invalid counts records",
            ["result"],
            registry=registry,
        )
        self.signals_emitted = Counter("rec_signals_emitted", "Item signals sent to all workers", registry=registry)
        self.items_tracked = Gauge("rec_items_tracked", "Items with signals in this worker", registry=registry)
        self.items_known = Gauge("rec_items_known", "Items with a record on the items topic", registry=registry)
        self.items_unavailable = Gauge(
            "rec_items_unavailable", "Items that lists leave out: withdrawn or not available", registry=registry
        )
        self.signals_age = Gauge(
            "rec_signals_age_seconds",
            "Time since lists last had all signals of the signals topic",
            registry=registry,
        )
        self.requests = Counter("rec_requests", "Requests for a list, by result", ["result"], registry=registry)
        self.request_latency = Histogram(
            "rec_request_latency_seconds",
            "Time from the broker's timestamp of a request to the ack of its list",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.producer_errors = Counter("rec_producer_errors", "Sends that failed", registry=registry)

        ProcessCollector(registry=registry)  # memory, processor, files, with the standard names
        self._begin_at_zero()
        self._versions = [POPULARITY]  # in use, and the one before
        self._lagging: set[TP] = set()
        self._event_time = self._state_time = 0.0

    def _place_trials(self, registry: CollectorRegistry) -> None:
        """Register the quality metrics: each list is tested by its user's next event, which is then learned.

        Prequential evaluation: Vinagre, Jorge & Gama, arXiv:1504.08175.
        """
        of = ["version", "in_session"]
        self._trials = Counter(
            "rec_online_trials", "Trials: events of users with an earlier list", [*of, "k"], registry=registry
        )
        self._hits = Counter(
            "rec_online_hits", "Trials whose item is in the first k places of that list", [*of, "k"], registry=registry
        )
        self._reciprocal_rank = Counter(
            "rec_online_reciprocal_rank_sum",
            "Sum of 1 / place of the trials' items in the first ten places of that list",
            of,
            registry=registry,
        )
        self._baseline_hits = Counter(
            "rec_online_baseline_hits",
            "Trials whose item is in the popularity baseline's list at the same time, without the user's history",
            ["baseline", "in_session", "k"],
            registry=registry,
        )
        self._baseline_reciprocal_rank = Counter(
            "rec_online_baseline_reciprocal_rank_sum",
            "Sum of 1 / place of the trials' items in the first ten places of the popularity baseline's list",
            ["baseline", "in_session"],
            registry=registry,
        )
        self._psi = Gauge(
            "rec_item_distribution_psi",
            "Population stability index of the last 24 hours' events against the training events, in ten bins of "
            "training popularity; NaN until there are enough events",
            registry=registry,
        )
        self._coverage = Gauge(
            "rec_catalog_coverage_ratio",
            "Share of the model's items in the first ten places of the last 10,000 lists",
            registry=registry,
        )

    def _place_freshness(self, registry: CollectorRegistry) -> None:
        """Register the freshness metrics: timestamps, whose age is time() minus the value."""
        self._newest_event = Gauge(
            "rec_event_timestamp_seconds", "The newest applied event's own time", registry=registry
        )
        self._newest_state = Gauge(
            "rec_state_timestamp_seconds",
            "The broker's time of the newest event whose state is stored and acked",
            registry=registry,
        )
        self.sessions_active = Gauge(
            "rec_sessions_active", "Users of this worker with an open session", registry=registry
        )
        self._model_info = Gauge("rec_model_info", "The model in use", ["version", "sha"], registry=registry)
        self._model_trained = Gauge(
            "rec_model_trained_timestamp_seconds", "Training time of the model in use", registry=registry
        )
        self._model_data = Gauge(
            "rec_model_data_timestamp_seconds",
            "Newest event in the training data of the model in use",
            registry=registry,
        )
        self._catalogue_items = Gauge("rec_catalogue_items", "Items in the catalogue in use", registry=registry)
        self._volume_size = Gauge("rec_data_volume_size_bytes", "Size of the volume of the stores", registry=registry)
        self._volume_available = Gauge(
            "rec_data_volume_available_bytes", "Free bytes of that volume for this process", registry=registry
        )

    def _begin_at_zero(self) -> None:
        """Create the series of known labels: Prometheus sees no increase in the first value of a new series."""
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
        """Set the model in use. Trials of versions before the previous one are dropped."""
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
        """Count trials: hits and ranks of lists and popularity baselines."""
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
        """Set the popularity drift and the catalogue coverage."""
        self._psi.set(live.psi)
        self._coverage.set(live.coverage)

    def stored(self, moved: Iterable[Moved], broker_time: float) -> None:
        """Record a batch's stored states. The newest time counts: partitions may differ."""
        self._event_time = max(self._event_time, max((user.after for user in moved), default=0.0))
        self._state_time = max(self._state_time, broker_time)
        self._newest_event.set(self._event_time)
        self._newest_state.set(self._state_time)

    def set_lag(self, lags: Mapping[TP, tuple[int, float]]) -> None:
        """Set each assigned partition's lag, and remove the series of other partitions."""
        for gone in self._lagging - lags.keys():
            self.lag_records.remove(gone.topic, gone.partition)
            self.lag_seconds.remove(gone.topic, gone.partition)
        for tp, (records, seconds) in lags.items():
            self.lag_records.labels(tp.topic, tp.partition).set(records)
            self.lag_seconds.labels(tp.topic, tp.partition).set(seconds)
        self._lagging = set(lags)

    def set_volume(self, folder: Path) -> None:
        """Set the size and free bytes of a folder's volume."""
        with contextlib.suppress(OSError):
            found = os.statvfs(folder)
            self._volume_size.set(found.f_blocks * found.f_frsize)
            self._volume_available.set(found.f_bavail * found.f_frsize)

    def refused(self, errors: Iterable[BadRecord]) -> None:
        """Count dead letters by reason."""
        for error in errors:
            self.dead_letters.labels(error.reason).inc()
            if isinstance(error, Unreadable):
                self.unreadable.inc(error.records)

    def set_recovery_state(self, state: str) -> None:
        """Set the worker's state."""
        for name in STATES:
            self.recovery_state.labels(name).set(name == state)
