"""What a worker logs off a terminal: one JSON line for each thing that an operator asks for, and nobody's name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stream.demo.processes import Process
from tests.running import Deployment, made_events, wait_until


@pytest.fixture
def deployment(kafka: str, topic_prefix: str, tmp_path: Path) -> Deployment:
    return Deployment(kafka, topic_prefix, tmp_path, partitions=2)


def said(worker: Process) -> list[str]:
    """Give the events of its log; every line is JSON with level, logger and time."""
    lines = [json.loads(line) for line in worker.log_path.read_text().splitlines()]
    assert all({"event", "level", "logger", "timestamp"} <= set(line) for line in lines)
    return [line["event"] for line in lines]


def counted(worker: Process, begin: str) -> int:
    return sum(line.startswith(begin) for line in said(worker))


async def test_each_thing_is_one_line_and_no_user_is_named(deployment: Deployment) -> None:
    with deployment:
        worker = deployment.ready_worker()
        await deployment.play(made_events(50))
        deployment.publish("20260101T000000Z-aaaaaaaa")
        wait_until(lambda: worker.metric("rec_model_swaps_total", 'result="swapped"') == 1)
        deployment.publish("20260101T000001Z-bbbbbbbb", tear=0)
        wait_until(lambda: worker.metric("rec_model_swaps_total", 'result="refused"') == 1)
        deployment.produce(b'{"user_id":"user-of-junk"', key=b"user-of-junk")
        wait_until(lambda: worker.metric("rec_dead_letters_total") == 1)
        assert worker.stop() == 0
        for line, times in {
            "worker starting": 1,
            "assigned ": 1,
            "ready ": 1,
            "model swapped": 1,
            "model refused": 1,
            "events refused": 1,
            "worker stopped status=0": 1,
        }.items():
            assert counted(worker, line) == times, (line, said(worker))
        assert counted(worker, "[^") == 0, "Faust's services start and stop by the dozen"

        shutil.rmtree(deployment.data_dir())
        worker.start()
        worker.wait_ready(60.0)
        worker.stop()
        restored = [line for line in said(worker) if line.startswith("ready ")][-1]
        assert int(restored.split("restored=")[1].split()[0]) > 0
        assert "user-" not in worker.log_path.read_text()
