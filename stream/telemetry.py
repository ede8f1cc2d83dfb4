"""The worker's metrics, named as operators expect: prefix, base units, bounded labels (no user, no item)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
ONLINE_K = 10


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
        self.holes = Counter("rec_log_holes", "Times that the log had no record at an offset", registry=registry)
        self.foreign = Counter(
            "rec_foreign_changelog_records",
            "Records that another worker wrote to our changelog",
            registry=registry,
        )
        self.given_back = Counter(
            "rec_batches_given_back",
            "Batches read again: the worker had paused, or acks did not come in time",
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
        self.hits = Counter("rec_online_hits", "Events whose item the list before held", ["k"], registry=registry)
        self.trials = Counter("rec_online_trials", "Events that a list came before", ["k"], registry=registry)
        self.reciprocal_rank = Counter(
            "rec_online_reciprocal_rank_sum",
            "Sum of 1 / place of the item in the list before",
            registry=registry,
        )
        self.unknown_items = Counter(
            "rec_unknown_item", "Events on items that the model was not trained on", registry=registry
        )
        self.rebuilt = Counter(
            "rec_states_rebuilt",
            "States made anew under new weights from retained history",
            registry=registry,
        )
        self.model_info = Gauge("rec_model_info", "The model in use", ["version", "sha"], registry=registry)
        self.model_trained = Gauge(
            "rec_model_trained_timestamp_seconds", "When the model in use was trained", registry=registry
        )
        self.model_data = Gauge(
            "rec_model_data_timestamp_seconds",
            "Newest event that the model in use was trained on",
            registry=registry,
        )
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
            "Transitions that the item stage took in, by what became of them",
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

    def set_recovery_state(self, state: str) -> None:
        """Say which of the states the worker is in."""
        for name in ("waiting", "restoring", "running"):
            self.recovery_state.labels(name).set(name == state)
