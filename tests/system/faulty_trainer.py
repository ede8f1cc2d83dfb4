"""A trainer that kills itself at one step of publishing: CRASH_AT names one of STEPS; all else is `hrnn trainer`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping

from models.weights import parse_key
from stream.commands.main import main
from trainer.service.publishing import ModelTopic

STEPS = ("chunks", "manifest", "pointer", "removal")
"""Killed when half of the chunks are written, before the manifest, before the pointer, before old versions go."""


def crash_at(step: str) -> None:
    """Let the process end by SIGKILL at a step, what was written before being acknowledged."""
    write = ModelTopic._write

    def writing(self: ModelTopic, records: Mapping[bytes, bytes | None]) -> None:
        key = parse_key(next(iter(records)))
        kind = key.kind if key else ""
        if step == "chunks" and kind == "chunk":
            write(self, dict(list(records.items())[: len(records) // 2]))
            os.kill(os.getpid(), signal.SIGKILL)
        removes = None in records.values()
        if (kind == step and not removes) or (step == "removal" and removes):
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, records)

    ModelTopic._write = writing  # type: ignore[method-assign]


if __name__ == "__main__":
    crash_at(os.environ["CRASH_AT"])
    sys.argv[1:] = ["trainer", *sys.argv[1:]]
    main()
