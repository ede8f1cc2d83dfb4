"""The trainer's round without Kafka: what is drawn beside the copy. With Kafka: tests/integration."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.unit.trainer.made import circles, quick
from trainer.fitting import fit, newest_slice
from trainer.service import TrainerService
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
    assert "no picture of version=v2" in caplog.text
    service.close()
    in_memory = TrainerService(TrainerSettings())
    in_memory._draw("v3", fitted)
    in_memory.close()
