"""The checks find what they are for: a worker with one fault put in does not pass the audit."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from models.items.signals import SignalRules
from stream.audit import AuditReport
from tests.running import Deployment, assert_passes, made_events, wait_until

EVENTS = 300


async def audited_with(fault: str, kafka: str, topic_prefix: str, folder: Path, users: int = 40) -> AuditReport:
    """Play events past a worker with a fault, a swap amidst them, and audit what came of it."""
    with Deployment(kafka, topic_prefix, folder) as deployment:
        deployment.publish("v1", seed=1)
        faulty = {"module": "tests.system.faulty_worker", "FAULT": fault}
        worker = await asyncio.to_thread(lambda: deployment.ready_worker(**faulty))

        def at_rest() -> bool:
            done = worker.metric("rec_events_total") + (fault == "drop")
            return done >= client.sent and worker.metric("rec_consumer_lag_records") == 0

        async with deployment.client() as client:
            await client.send(made_events(EVENTS, users=users))
            await asyncio.to_thread(wait_until, at_rest)
            await asyncio.to_thread(deployment.publish, "v2", seed=2)
            await asyncio.to_thread(wait_until, lambda: worker.metric("rec_model_info", 'version="v2"'))
            await client.send(made_events(EVENTS, users=users, seed=1, start=time.time()))
            await asyncio.to_thread(wait_until, at_rest)
        assert await asyncio.to_thread(worker.stop) == 0
        return await deployment.audited()


async def test_without_a_fault_the_audit_passes(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    assert_passes(report := await audited_with("none", kafka, topic_prefix, tmp_path))
    assert report.events == report.lists_checked == 2 * EVENTS


async def test_a_dropped_event_is_found(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    report = await audited_with("drop", kafka, topic_prefix, tmp_path)
    assert report.lost == 1, report
    assert report.wrong_states == 1, report
    assert not report.passed


async def test_an_event_applied_twice_is_found(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    report = await audited_with("twice", kafka, topic_prefix, tmp_path)
    assert report.wrong_states == 1, report
    assert not report.passed


async def test_torn_weights_are_found(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    report = await audited_with("torn", kafka, topic_prefix, tmp_path)
    assert report.wrong_lists > EVENTS / 2, report
    assert report.wrong_lists <= EVENTS, report  # those before the swap are right
    assert report.wrong_states > 0, report
    assert not report.passed


async def test_a_list_that_was_not_sent_is_found(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    report = await audited_with("silent", kafka, topic_prefix, tmp_path)
    assert (report.lost, report.wrong_states, report.wrong_lists) == (1, 0, 0), report
    assert not report.passed


async def test_what_the_item_stage_was_not_told_is_found(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    report = await audited_with("uncounted", kafka, topic_prefix, tmp_path)
    assert (report.lost, report.wrong_states, report.wrong_lists) == (0, 0, 0), report
    assert report.wrong_signals == 1, report
    assert not report.passed


async def with_signals(fault: str, kafka: str, topic_prefix: str, folder: Path) -> list[AuditReport]:
    """Play events and a request past a worker whose lists hang on signals -> audits of it at rest, and stopped."""
    with Deployment(kafka, topic_prefix, folder) as deployment:
        deployment.publish("v1", rules=SignalRules())
        faulty = {"module": "tests.system.faulty_worker", "FAULT": fault, "HRNN_SIGNAL_INTERVAL_S": "0.2"}
        worker = await asyncio.to_thread(lambda: deployment.ready_worker(**faulty))
        for step in range(4):
            await deployment.play(made_events(100, seed=step, start=time.time() - 3600.0 * (9 - step)))
            await asyncio.to_thread(wait_until, lambda: worker.metric("rec_items_tracked") >= 70)
        await asyncio.to_thread(deployment.request, "r1", "user-3")
        await asyncio.to_thread(
            wait_until, lambda: any(given.request_id == "r1" for given in deployment.lists()), every_s=0.2
        )
        at_rest = await deployment.audited()
        assert await asyncio.to_thread(worker.stop) == 0
        return [at_rest, await deployment.audited(data_dirs=[deployment.data_dir()])]


async def test_lists_with_signals_and_stores_are_checked(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    at_rest, stopped = await with_signals("none", kafka, topic_prefix, tmp_path)
    for report in (at_rest, stopped):
        assert_passes(report)
        assert report.not_checked == []
        assert report.lists_with_signals == report.lists_with_signals_checked == 401, report
    assert stopped.stores == 8, stopped


async def test_faults_in_sessions_signals_and_answers_are_found(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    _, report = await with_signals("several", kafka, topic_prefix, tmp_path)
    assert report.wrong_sessions > 0, report
    assert report.wrong_lists > 100, report
    assert (report.lost, report.wrong_states, report.wrong_signals, report.wrong_stores) == (0, 0, 0, 0), report
    assert report.exit_status == 1


async def test_what_fell_out_of_histories_is_held_against_the_log(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.mkdir()
    wrong.mkdir()
    assert_passes(await audited_with("none", kafka, f"{topic_prefix}right-", right, users=2))
    report = await audited_with("forgetful", kafka, f"{topic_prefix}wrong-", wrong, users=2)
    assert (report.lost, report.wrong_states) == (0, 2), report
    assert report.wrong_lists > 0, report
