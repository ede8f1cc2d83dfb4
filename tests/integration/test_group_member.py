"""A worker in its group: the same after a move to another host, fenced by its double, ended when it is out for good."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.clients.connection import administration
from stream.demo.processes import Process
from tests.running import Deployment, assert_passes, log_of, made_events, wait_until

MOVED = "tests.integration.moved_worker"
BEGAN = time.time() - 3600


@pytest.fixture
def deployment(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(kafka, topic_prefix, tmp_path, partitions=2) as made:
        yield made


def members(deployment: Deployment) -> int:
    """Count who is in the workers' group, by the broker's account."""
    group = deployment.topics.app_id
    with administration(deployment.bootstrap) as admin:
        return len(admin.describe_groups([group])[group]["members"])


def ended(worker: Process) -> str:
    """Wait until a worker has ended by itself; gives its errors."""
    wait_until(lambda: not worker.running, 60.0)
    assert worker.exit_code == 1
    lines = [json.loads(line) for line in log_of(worker).splitlines()]
    return "\n".join(line["event"] for line in lines if line["level"] == "error")


@pytest.mark.parametrize("session_timeout_s", [30.0, 3.0], ids=["within", "after"])
async def test_a_static_member_serves_under_another_host_name(deployment: Deployment, session_timeout_s: float) -> None:
    settings = {"HRNN_INSTANCE_ID": "worker-0", "HRNN_SESSION_TIMEOUT_S": str(session_timeout_s)}
    before = deployment.ready_worker(module=MOVED, TEST_HOST="host-one", **settings)
    await deployment.play(made_events(30, start=BEGAN))
    before.kill()
    if session_timeout_s < 10.0:
        wait_until(lambda: members(deployment) == 0)
    deployment.ready_worker(module=MOVED, TEST_HOST="host-two", **settings)
    await deployment.play(made_events(30, seed=1, start=BEGAN + 60))
    assert_passes(await deployment.audited())


async def test_of_two_with_one_instance_id_the_older_ends(deployment: Deployment) -> None:
    older = deployment.ready_worker("older", HRNN_INSTANCE_ID="worker-0")
    await deployment.play(made_events(30, start=BEGAN))
    newer = deployment.ready_worker("newer", HRNN_INSTANCE_ID="worker-0")
    assert "another process runs under the instance id worker-0" in ended(older)
    await deployment.play(made_events(30, seed=1, start=BEGAN + 60))
    assert newer.running
    assert log_of(newer).count('"event": "ready ') == 1, "its partitions were never in question"
    assert_passes(await deployment.audited())


async def test_a_member_that_can_not_join_says_so_and_ends(deployment: Deployment) -> None:
    worker = deployment.worker(module=MOVED, TEST_FAULT="assignment", HRNN_STOP_TIMEOUT_S="5")
    errors = ended(worker)
    assert "worker failed, ending" in errors
    assert "an assignment that does not fit" in errors
