from __future__ import annotations

import math

from prometheus_client import CollectorRegistry

from trainer.telemetry import RESULTS, Telemetry


def test_every_way_that_a_run_can_end_has_a_series_from_the_start() -> None:
    registry = CollectorRegistry()
    Telemetry(registry)
    assert [registry.get_sample_value("rec_train_runs_total", {"result": result}) for result in RESULTS] == [0.0] * 6


def test_the_interval_is_said_and_there_is_no_loss_before_a_run() -> None:
    registry = CollectorRegistry()
    telemetry = Telemetry(registry, 3600.0)
    assert registry.get_sample_value("rec_train_interval_seconds") == 3600.0
    loss = registry.get_sample_value("rec_train_loss")
    assert loss is not None
    assert math.isnan(loss)
    telemetry.trained(2.5, {"candidate": {"mrr_at_20": 0.1}})
    assert registry.get_sample_value("rec_train_loss") == 2.5


def test_the_lag_is_asked_for_when_metrics_are_fetched() -> None:
    registry = CollectorRegistry()
    lags = iter([5.0, 3.0])
    Telemetry(registry).watch_lag(lambda: next(lags))
    assert [registry.get_sample_value("rec_train_lag_records") for _ in range(2)] == [5.0, 3.0]
