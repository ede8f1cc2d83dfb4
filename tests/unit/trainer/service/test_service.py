"""The trainer's round without Kafka: what is drawn beside the copy. With Kafka: tests/integration."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from tests.unit.trainer.made import circles, quick
from trainer.fitting.fit import fit, newest_slice
from trainer.service.service import MOST_DOUBLINGS_AWAY, TrainerService
from trainer.settings import TrainerSettings


def test_curves_lie_beside_the_copy_and_a_full_disk_costs_no_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    histories = circles()
    fitted = fit(histories, newest_slice(histories, 0.1), quick(epochs=2))
    service = TrainerService(TrainerSettings(trainer_dir=tmp_path))
    service._draw("v1", fitted)
    assert (tmp_path / "curves-v1.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "curves-v2.png").mkdir()  # what can't be written
    with caplog.at_level(logging.WARNING):
        service._draw("v2", fitted)
    assert "picture failed, skipped version=v2" in caplog.text
    service.close()
    in_memory = TrainerService(TrainerSettings())
    in_memory._draw("v3", fitted)
    in_memory.close()


def test_without_a_broker_it_waits_says_that_it_retries_and_stops_when_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainer.data.log_reader.ANSWER_MS", 600)
    service = TrainerService(TrainerSettings(kafka_bootstrap="127.0.0.1:1", train_poll_s=0.01))
    thread = threading.Thread(target=service.run)
    thread.start()

    def failed() -> float:
        return service.registry.get_sample_value("rec_train_runs_total", {"result": "failed"}) or 0.0

    deadline = time.monotonic() + 60
    while failed() < MOST_DOUBLINGS_AWAY + 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert thread.is_alive(), "it waits for its broker"
    assert "Unable to bootstrap" in service.ready()
    service.stopping.set()
    thread.join(20)
    assert not thread.is_alive()
    ours = [
        record
        for record in caplog.records
        if record.name == "trainer.service.service" and record.levelno >= logging.ERROR
    ]
    assert len(ours) == failed()
    assert all("training round failed, retry in" in record.getMessage() for record in ours)
    assert not any(record.exc_info for record in ours), "a broker that is away is no bug of ours"
    service.close()
