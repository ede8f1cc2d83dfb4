from __future__ import annotations

import re
import shutil
from pathlib import Path

from faust.types import TP
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from models import decoding, records
from models.recommending.recommender import Moved, Trial
from models.sessions import Placement
from stream.source.record_batches import Unreadable, UnreadableBatch
from stream.stages import poison
from stream.telemetry import REASONS, Telemetry
from tests.unit.models.made import serving

BOUNDED = {
    "result", "source", "stage", "topic", "partition", "reason", "k", "version", "sha", "state", "le", "in_session",
    "baseline", "kind",
}  # fmt: skip
BASE_UNITS = re.compile(r"_(seconds|bytes|records|ratio|total|info|size|sum|state)$|^rec_[a-z_]+$")
OTHER_UNITS = re.compile(r"_(ms|millis|minutes|hours|kb|mb|percent)(_|$)")


def families() -> dict[str, str]:
    page = generate_latest(Telemetry().registry).decode()
    families = text_string_to_metric_families(page)
    # process_…: what every client library calls them, and everyone's dashboards
    return {family.name: family.type for family in families if not family.name.startswith("process_")}


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
        "rec_online_baseline_hits": "counter",
        "rec_online_reciprocal_rank_sum": "counter",
        "rec_sessions_active": "gauge",
        "rec_item_distribution_psi": "gauge",
        "rec_catalog_coverage_ratio": "gauge",
        "rec_state_bytes": "histogram",
        "rec_producer_errors": "counter",
        "rec_restore_duration_seconds": "histogram",
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


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(name, labels)


def test_trials_are_counted_by_version_beside_popularity() -> None:
    telemetry = Telemetry()
    telemetry.swapped(serving(version="v1"))
    telemetry.judge([
        Trial("v1", True, 1, 0, 2),
        Trial("v1", False, 4, 1, 0),
        Trial("v1", False, 0, 0, 0),
        Trial("v1", False, 0, 0, 0),
        Trial("long gone", False, 2, 0, 0),
    ])  # fmt: skip
    later = {"version": "v1", "in_session": "later"}
    assert value(telemetry, "rec_online_trials_total", k="10", **later) == 3
    assert value(telemetry, "rec_online_hits_total", k="10", **later) == 1
    assert value(telemetry, "rec_online_hits_total", k="1", **later) == 0
    assert value(telemetry, "rec_online_reciprocal_rank_sum_total", **later) == 0.25
    assert value(telemetry, "rec_online_hits_total", k="1", version="v1", in_session="first") == 1
    assert value(telemetry, "rec_online_hits_total", k="10", version="older", in_session="later") == 1
    hits = "rec_online_baseline_hits_total"
    assert value(telemetry, hits, baseline="all_time", in_session="later", k="1") == 1
    assert value(telemetry, hits, baseline="24h", in_session="first", k="1") == 0
    assert value(telemetry, hits, baseline="24h", in_session="first", k="10") == 1
    sums = "rec_online_baseline_reciprocal_rank_sum_total"
    assert value(telemetry, sums, baseline="24h", in_session="first") == 0.5


def test_the_versions_that_have_series_are_bounded() -> None:
    telemetry = Telemetry()
    for n in range(20):
        telemetry.swapped(serving(version=f"v{n}"))
        telemetry.judge([Trial(f"v{m}", False, 1, 0, 0) for m in range(n + 1)])
    page = generate_latest(telemetry.registry).decode()
    assert set(re.findall(r'version="([^"]*)"', page)) == {"v19", "v18", "older"}
    assert page.count("rec_model_info{") == 1
    assert value(telemetry, "rec_online_trials_total", version="v18", in_session="later", k="1") == 2
    assert value(telemetry, "rec_model_swaps_total", result="swapped") == 20


def test_a_rollback_brings_a_version_back() -> None:
    telemetry = Telemetry()
    for version in ("v1", "v2", "v1"):
        telemetry.swapped(serving(version=version))
        telemetry.judge([Trial(version, False, 1, 0, 0)])
    assert value(telemetry, "rec_online_trials_total", version="v1", in_session="later", k="1") == 2
    assert value(telemetry, "rec_online_trials_total", version="v2", in_session="later", k="1") == 1


def test_a_partition_that_moved_on_is_not_reported() -> None:
    telemetry = Telemetry()
    telemetry.set_lag({TP("t", 0): (5, 1.0), TP("t", 1): (6, 2.0)})
    telemetry.set_lag({TP("t", 1): (7, 3.0)})
    assert value(telemetry, "rec_consumer_lag_records", topic="t", partition="0") is None
    assert value(telemetry, "rec_consumer_lag_records", topic="t", partition="1") == 7
    assert value(telemetry, "rec_consumer_lag_seconds", topic="t", partition="1") == 3.0


def test_series_of_known_labels_begin_at_zero() -> None:
    telemetry = Telemetry()
    assert value(telemetry, "rec_model_swaps_total", result="refused") == 0
    assert value(telemetry, "rec_dead_letters_total", reason="not_json") == 0
    assert value(telemetry, "rec_events_total", result="late") == 0


def test_every_reason_to_refuse_a_record_is_known_here() -> None:
    source = "".join(Path(module.__file__).read_text() for module in (decoding, records, poison))
    reasons = set(re.findall(r'BadRecord\("(\w+)"|reason = "(\w+)".*else "(\w+)"', source))
    named = {reason for found in reasons for reason in found if reason}
    named |= {Placement.LATE.value, Placement.FUTURE.value, "unreadable"}
    assert named == set(REASONS)


def test_an_unreadable_batch_is_counted_by_its_records() -> None:
    telemetry = Telemetry()
    batch = UnreadableBatch("interactions", 0, 9, 0, 1, None, None, None, -1, -1, (), 5, "its checksum is wrong")
    telemetry.refused([Unreadable(batch)])
    assert value(telemetry, "rec_dead_letters_total", reason="unreadable") == 1
    assert value(telemetry, "rec_unreadable_records_total") == 5


def test_the_newest_time_counts() -> None:
    telemetry = Telemetry()
    telemetry.stored([Moved(0, 0.0, 50.0), Moved(1, 0.0, 40.0)], 60.0)
    telemetry.stored([Moved(1, 40.0, 45.0)], 59.0)
    assert value(telemetry, "rec_event_timestamp_seconds") == 50.0
    assert value(telemetry, "rec_state_timestamp_seconds") == 60.0


def test_the_volume_is_that_of_the_folder(tmp_path: Path) -> None:
    telemetry = Telemetry()
    telemetry.set_volume(tmp_path)
    size, available = (value(telemetry, f"rec_data_volume_{of}_bytes") or 0 for of in ("size", "available"))
    assert 0 < available < size
    assert size == shutil.disk_usage(tmp_path).total
