"""A trainer that kills itself (kill -9) at the step CRASH_STEP of publishing.

Steps are calls of the product's functions, wrapped by name: one that is renamed makes this trainer fail.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import kafka

import trainer.service.publishing
from models import weights
from stream.commands.main import main
from trainer.service.publishing import ModelTopic

CHUNK_BYTES = 4096  # so that a small model has several
STEPS = (
    "before-chunks",
    "amid-chunks",
    "after-chunks",
    "after-manifest",
    "after-pointer",
    "amid-removal",
)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def small_chunks() -> None:
    """Cut models into many chunks."""
    assert weights.split.__defaults__ == (weights.CHUNK_BYTES,)
    weights.split.__defaults__ = (CHUNK_BYTES,)


def crash_at(step: str) -> None:
    """Wrap what a step is known by."""
    write, wrote = ModelTopic._write, 0
    kinds: dict[str, Callable[[bytes, bytes | None], bool]] = {
        "after-chunks": lambda key, value: key.startswith(b"chunk/") and value is not None,
        "after-manifest": lambda key, value: key.startswith(b"manifest/") and value is not None,
        "after-pointer": lambda key, value: key == weights.POINTER_KEY,
        "amid-removal": lambda key, value: key.startswith(b"manifest/") and value is None,
    }

    def writing(self: ModelTopic, records: Any) -> None:
        nonlocal wrote
        wrote += 1
        if step == "before-chunks":
            _die()
        write(self, records)
        if step in kinds and any(kinds[step](key, value) for key, value in dict(records).items()):
            _die()

    ModelTopic._write = writing  # type: ignore[method-assign]
    if step == "amid-chunks":
        assert hasattr(trainer.service.publishing, "KafkaProducer")
        trainer.service.publishing.KafkaProducer = DyingProducer


class DyingProducer(kafka.KafkaProducer):
    """A producer that ends the process once its second record is written."""

    sends = 0

    def send(self, *arguments: Any, **more: Any) -> Any:
        """Send a record."""
        self.sends += 1
        if self.sends == 3:
            self.flush()  # type: ignore[no-untyped-call]
            _die()
        return super().send(*arguments, **more)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    small_chunks()
    if step := os.environ.get("CRASH_STEP"):
        crash_at(step)
    sys.argv[1:] = ["trainer"]
    main()
