"""The broker that demo and tests start: it serves, and it goes, however its owner ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stream.commands.failures import Failure
from stream.demo.broker import LocalKafka, answers

OWNER = """
import signal, sys, time
from stream.demo.broker import LocalKafka
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background ignores it
with LocalKafka(own=True) as kafka:
    print(kafka.bootstrap, kafka.pid, kafka.folder, flush=True)
    {then}
"""


def gone(pid: int, folder: Path, within_s: float = 15.0) -> bool:
    """Whether the process ends and its data are deleted within the time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            alive = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            alive = False
        if not alive and not folder.exists():
            return True
        time.sleep(0.1)
    return False


def start_owner(then: str) -> tuple[subprocess.Popen[str], str, int, Path]:
    """Start a process that owns a broker; gives it with the broker's address, process id and folder."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "HRNN_KAFKA_BOOTSTRAP"},
    )
    assert owner.stdout is not None
    bootstrap, pid, folder = owner.stdout.readline().split()
    return owner, bootstrap, int(pid), Path(folder)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_broker_outlives_its_owner(how: signal.Signals) -> None:
    owner, bootstrap, pid, folder = start_owner("time.sleep(600)")
    with owner:
        assert answers(bootstrap)
        assert folder.is_dir()
        owner.send_signal(how)
        owner.wait(timeout=30)
    assert gone(pid, folder)
    assert not answers(bootstrap)


def test_an_owner_that_fails_takes_its_broker_along() -> None:
    owner, _, pid, folder = start_owner("raise RuntimeError")
    with owner:
        assert owner.wait(timeout=30) == 1
    assert gone(pid, folder)


@pytest.fixture
def broker() -> Iterator[LocalKafka]:
    with LocalKafka(own=True, settings={"broker.session.timeout.ms": "3000"}) as broker:
        yield broker


def test_a_broker_comes_back_with_the_same_address_and_data(broker: LocalKafka) -> None:
    from stream.clients.connection import administration

    with administration(broker.bootstrap) as admin:
        admin.create_topics({"kept": {"num_partitions": 1, "replication_factor": 1}})
        admin.wait_for_topics(["kept"])
    address, first = broker.bootstrap, broker.pid
    broker.kill()
    assert broker.pid is None
    assert not answers(address)
    broker.restart()
    assert broker.bootstrap == address
    assert broker.pid != first
    with administration(address) as admin:
        assert "kept" in admin.list_topics()
    broker.pause()
    assert not answers(address, timeout_s=0.5)
    broker.resume()
    assert answers(address)
    folder, last = broker.folder, broker.pid
    assert folder is not None
    assert last is not None
    broker.pause()  # a frozen one has to end as well
    broker.stop()
    assert gone(last, folder, within_s=1.0)


def test_a_broker_that_can_not_start_says_what_it_said() -> None:
    with pytest.raises(Failure, match=r"log\.cleaner\.threads"):
        LocalKafka(own=True, settings={"log.cleaner.threads": "nonsense"}).start()


def test_with_a_bootstrap_named_none_is_started(kafka: str) -> None:
    with LocalKafka(environ={"HRNN_KAFKA_BOOTSTRAP": kafka}) as broker:
        assert broker.external
        assert broker.bootstrap == kafka
        assert broker.pid is None
        with pytest.raises(Failure, match="unset HRNN_KAFKA_BOOTSTRAP"):
            broker.kill()
    assert answers(kafka)
