"""The trainer's Prometheus metrics: prefix `rec_`, base units, a bounded number of labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from models.weights import Manifest

RESULTS = ("published", "rejected", "skipped", "overtaken", "stopped", "failed")
DURATION_BUCKETS_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


class Telemetry:
    """One trainer's metrics in a given registry."""

    def __init__(self, registry: CollectorRegistry, interval_s: float = 0.0) -> None:
        """Register the metrics at zero. `interval_s` is the setting, which alerts on old models use."""
        self.registry = registry
        self.duration = Histogram(
            "rec_train_duration_seconds",
            "Duration of runs, from reading to publishing",
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.runs = Counter("rec_train_runs", "Runs by result", ["result"], registry=registry)
        for result in RESULTS:
            self.runs.labels(result)
        self.interval = Gauge(
            "rec_train_interval_seconds",
            "Training interval (HRNN_TRAIN_INTERVAL_S)",
            registry=registry,
        )
        self.interval.set(interval_s)
        self.last_success = Gauge(
            "rec_train_last_success_timestamp_seconds",
            "Time of the last run that published or rejected a model",
            registry=registry,
        )
        self.loss = Gauge("rec_train_loss", "Training loss of the last run; NaN before the first", registry=registry)
        self.loss.set(math.nan)
        self.rejections = Counter(
            "rec_gate_rejections", "Candidates that were worse than the serving model", registry=registry
        )
        self.published = Counter("rec_models_published", "Models published", registry=registry)
        self._figures = Gauge(
            "rec_valid",
            "Figures of candidate, serving model and popularity on the newest slice, in the last run",
            ["of", "figure"],
            registry=registry,
        )
        self.events = Gauge("rec_train_events", "Events in the local copy of the sessions", registry=registry)
        self.used_events = Gauge(
            "rec_train_used_events",
            "Events in the window and the sample of the last run",
            registry=registry,
        )
        self.new_events = Gauge("rec_train_new_events", "Events in the copy since the last run", registry=registry)
        self._lag = Gauge(
            "rec_train_lag_records", "Records of the sessions topic that the copy has not read yet", registry=registry
        )
        self.copied_at = Gauge(
            "rec_train_copy_timestamp_seconds",
            "Time when the copy was last read to the end of the topic",
            registry=registry,
        )
        self.records = Counter("rec_session_records", "Records read from the sessions topic", registry=registry)
        self.bad_records = Gauge(
            "rec_bad_session_records", "Records on the sessions topic without a valid session", registry=registry
        )
        self._model_info = Gauge(
            "rec_model_info",
            "The serving version that this trainer last read",
            ["version", "sha"],
            registry=registry,
        )
        self._model_trained = Gauge(
            "rec_model_trained_timestamp_seconds", "Training time of the serving model", registry=registry
        )
        self._model_data = Gauge(
            "rec_model_data_timestamp_seconds", "Newest event in its training data", registry=registry
        )

        ProcessCollector(registry=registry)  # memory, processor, files, with the standard names

    def watch_lag(self, lag: Callable[[], float]) -> None:
        """Read the lag at each scrape: the first read of a long topic takes a while."""
        self._lag.set_function(lag)

    def serving(self, manifest: Manifest) -> None:
        """Set the serving model."""
        self._model_info.clear()
        self._model_info.labels(manifest.version, manifest.sha256[:12]).set(1)
        self._model_trained.set(manifest.trained_at)
        self._model_data.set(manifest.data_watermark)

    def trained(self, loss: float, figures: Mapping[str, Mapping[str, float]]) -> None:
        """Set a run's figures, by model."""
        self.loss.set(loss)
        self._figures.clear()
        for of, named in figures.items():
            for name, figure in named.items():
                self._figures.labels(of, name).set(figure)
