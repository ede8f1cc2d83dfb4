"""The audit finds what it is there to find: a worker with a fault put in does not pass it, one without does."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.cli.audit import AuditReport
from tests.running import Deployment, made_events

FAULTY = "tests.system.faulty_worker"


async def report_under(fault: str, kafka: str, topic_prefix: str, folder: Path) -> AuditReport:
    """Let a faulty worker serve two models in turn, and audit what it leaves behind."""
    with Deployment(kafka, topic_prefix, folder) as deployment:
        deployment.publish("v1", seed=1)
        worker = deployment.ready_worker(module=FAULTY, HRNN_FAULT=fault)
        events = made_events(1200)
        async with deployment.client(window=10**6) as client:
            await client.send(events[:600])
            await client.drained(10.0)  # a dropped event never gets its list
            deployment.publish("v2", seed=2)
            while 'version="v2"' not in worker.get("/metrics")[1]:
                assert worker.running, worker.log_tail(40)
            await client.send(events[600:])
            await client.drained(10.0)
        assert worker.stop() == 0, worker.log_tail(40)
        return await deployment.audited()


async def test_a_worker_without_a_fault_passes(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    report = await report_under("", kafka, topic_prefix, tmp_path)
    assert report.passed, report.examples
    assert report.lists_checked == report.applied == report.events


@pytest.mark.parametrize(
    ("fault", "found"),
    [("drop", ("lost", "wrong_states")), ("twice", ("wrong_states",)), ("torn", ("wrong_lists", "wrong_states"))],
)
async def test_a_faulty_worker_is_found_out(
    fault: str, found: tuple[str, ...], kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    report = await report_under(fault, kafka, topic_prefix, tmp_path)
    assert not report.passed
    for name in found:
        assert getattr(report, name) > 0, (name, report)
