"""The pages that a process serves."""

import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from stream.commands.failures import Failure
from stream.process.serving import MetricsServer


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_those_of_the_registry() -> None:
    registry = CollectorRegistry()
    Counter("rec_things", "Things", registry=registry).inc(3)
    with MetricsServer(registry, port=0) as server:
        status, page = get(server.address, "/metrics")
    assert status == 200
    assert "rec_things_total 3.0" in page


def test_a_probe_is_told_what_is_not_well() -> None:
    wrong = ""
    with MetricsServer(CollectorRegistry(), port=0, ready=lambda: wrong) as server:
        assert server.address.startswith("127.0.0.1:")
        assert get(server.address, "/healthz") == (200, "ok\n")
        assert get(server.address, "/readyz") == (200, "ok\n")
        wrong = "restoring"
        assert get(server.address, "/readyz?verbose") == (503, "restoring\n")
        assert get(server.address, "/secrets")[0] == 404


def test_a_taken_port_fails_the_start_with_a_remedy() -> None:
    with MetricsServer(CollectorRegistry(), port=0) as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(Failure, match=f"127.0.0.1:{port}.*HRNN_METRICS_PORT"):
            MetricsServer(CollectorRegistry(), port=port)
