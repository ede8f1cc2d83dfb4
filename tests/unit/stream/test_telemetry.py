from __future__ import annotations

import re

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stream.telemetry import Telemetry

BOUNDED = {"result", "source", "stage", "topic", "partition", "reason", "k", "version", "sha", "state", "le"}
BASE_UNITS = re.compile(r"_(seconds|bytes|records|ratio|total|info|size|sum|state)$|^rec_[a-z_]+$")
OTHER_UNITS = re.compile(r"_(ms|millis|minutes|hours|kb|mb|percent)(_|$)")


def families() -> dict[str, str]:
    page = generate_latest(Telemetry().registry).decode()
    return {family.name: family.type for family in text_string_to_metric_families(page)}


def test_names_have_the_prefix_and_base_units() -> None:
    for name in families():
        assert name.startswith("rec_"), name
        assert not OTHER_UNITS.search(name), name
        assert BASE_UNITS.search(name), name


def test_the_names_that_dashboards_use_are_there() -> None:
    found = families()
    for name, kind in {
        "rec_events": "counter",
        "rec_consumer_lag_records": "gauge",
        "rec_consumer_lag_seconds": "gauge",
        "rec_end_to_end_latency_seconds": "histogram",
        "rec_stage_duration_seconds": "histogram",
        "rec_recommendations": "counter",
        "rec_batch_size": "histogram",
        "rec_sessions_closed": "counter",
        "rec_model_info": "gauge",
        "rec_model_trained_timestamp_seconds": "gauge",
        "rec_model_swaps": "counter",
        "rec_recovery_state": "gauge",
        "rec_restore_remaining_records": "gauge",
        "rec_dead_letters": "counter",
        "rec_online_hits": "counter",
        "rec_online_trials": "counter",
        "rec_unknown_item": "counter",
    }.items():
        assert found.get(name) == kind, name


def test_labels_are_bounded_and_name_no_user_and_no_item() -> None:
    for collector in Telemetry().registry._collector_to_names:
        assert set(getattr(collector, "_labelnames", ())) <= BOUNDED, collector


def test_one_recovery_state_holds_at_a_time() -> None:
    telemetry = Telemetry()
    for state in ("restoring", "running"):
        telemetry.set_recovery_state(state)
        value_of = telemetry.registry.get_sample_value
        assert value_of("rec_recovery_state", {"state": state}) == 1.0
        assert value_of("rec_recovery_state", {"state": "waiting"}) == 0.0
