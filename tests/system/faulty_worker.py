"""A worker with one fault put in, named by HRNN_FAULT: what the audit must not let pass."""

from __future__ import annotations

import copy
import logging
import os
import sys
from typing import Any

import torch

import models.walk
import stream.model_feed
import stream.user_stage
from models import weights
from models.weights import Manifest, ServingModel
from stream.app import StreamWorker
from stream.cli.serving import MetricsServer
from stream.delivery import Batch
from stream.intake import Intake, take_in
from stream.settings import WorkerSettings


def drop_one_event() -> None:
    """Lose the first event of every batch of ten or more: its offset is committed all the same."""

    def take_in_but_one(batch: Batch) -> Intake:
        intake = take_in(batch)
        if len(intake.events) >= 10:
            del intake.events[0]
        return intake

    stream.user_stage.take_in = take_in_but_one


def apply_one_twice() -> None:
    """Apply the last event of every batch of ten or more a second time."""

    def take_in_one_twice(batch: Batch) -> Intake:
        intake = take_in(batch)
        if len(intake.events) >= 10:
            intake.events.append(intake.events[-1])
        return intake

    stream.user_stage.take_in = take_in_one_twice
    models.walk.Walk.has_applied = lambda self, sourced: False  # type: ignore[method-assign]


def swap_torn_weights() -> None:
    """Swap half of a new model's tensors in, over those of the model before, under the new model's name."""
    before: list[ServingModel] = []

    def unpack_torn(manifest: Manifest, blob: bytes) -> ServingModel:
        model = weights.unpack(manifest, blob)
        if before:
            torn: dict[str, Any] = copy.deepcopy(before[-1].model.state_dict())
            new = model.model.state_dict()
            for name in list(new)[: len(new) // 2]:
                torn[name] = new[name]
            with torch.inference_mode(False):
                model.model.load_state_dict(torn)
        before.append(model)
        return model

    stream.model_feed.weights = type("TornWeights", (), {**vars(weights), "unpack": staticmethod(unpack_torn)})  # type: ignore[assignment]


FAULTS = {"": lambda: None, "drop": drop_one_event, "twice": apply_one_twice, "torn": swap_torn_weights}


def main() -> int:
    """Run it like `hrnn worker`."""
    logging.basicConfig(level="INFO")
    FAULTS[os.environ.get("HRNN_FAULT", "")]()
    settings = WorkerSettings()
    worker = StreamWorker(settings)
    with MetricsServer(worker.registry, port=settings.metrics_port, healthy=worker.healthy, ready=worker.ready):
        return worker.run()


if __name__ == "__main__":
    sys.exit(main())
