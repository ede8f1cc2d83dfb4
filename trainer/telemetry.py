"""The trainer's metrics, named as operators expect: prefix, base units, bounded labels."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from models.weights import Manifest

DURATION_BUCKETS_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


class Telemetry:
    """One trainer's metrics in the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them, at zero."""
        self.registry = registry
        self.duration = Histogram(
            "rec_train_duration_seconds",
            "Duration of runs, from reading to publishing",
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.runs = Counter("rec_train_runs", "Runs by how they ended", ["result"], registry=registry)
        self.last_success = Gauge(
            "rec_train_last_success_timestamp_seconds",
            "When a run last came to a verdict, be it a model or a rejection",
            registry=registry,
        )
        self.loss = Gauge("rec_train_loss", "Training loss of the last run", registry=registry)
        self.rejections = Counter(
            "rec_gate_rejections", "Candidates worse than the model that served", registry=registry
        )
        self.published = Counter("rec_models_published", "Models published", registry=registry)
        self._figures = Gauge(
            "rec_valid",
            "Figures on the newest slice at the last run, of candidate, serving model and popularity",
            ["of", "figure"],
            registry=registry,
        )
        self.events = Gauge("rec_train_events", "Events in the local copy of the sessions", registry=registry)
        self.records = Counter("rec_session_records", "Records read from the sessions topic", registry=registry)
        self.bad_records = Gauge(
            "rec_bad_session_records", "Records on the sessions topic that hold no session", registry=registry
        )
        self._model_info = Gauge(
            "rec_model_info",
            "The version that serves, as this trainer last saw it",
            ["version", "sha"],
            registry=registry,
        )
        self._model_trained = Gauge(
            "rec_model_trained_timestamp_seconds", "When the serving model was fitted", registry=registry
        )
        self._model_data = Gauge(
            "rec_model_data_timestamp_seconds", "The newest event that it has learned from", registry=registry
        )

    def serving(self, manifest: Manifest) -> None:
        """Say which model serves."""
        self._model_info.clear()
        self._model_info.labels(manifest.version, manifest.sha256[:12]).set(1)
        self._model_trained.set(manifest.trained_at)
        self._model_data.set(manifest.data_watermark)

    def trained(self, loss: float, figures: Mapping[str, Mapping[str, float]]) -> None:
        """Take a run's figures over, by who they are of."""
        self.loss.set(loss)
        self._figures.clear()
        for of, named in figures.items():
            for name, figure in named.items():
                self._figures.labels(of, name).set(figure)
