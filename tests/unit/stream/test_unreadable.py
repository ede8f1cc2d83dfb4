"""What becomes of records that can't be read: each stage refuses them by name, and no reader outside dies of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from faust.types import TP

from stream.faust_patches.delivery import Batch
from stream.feeds.signals import _newest
from stream.source.record_batches import Unreadable, UnreadableBatch
from stream.stages import intake
from stream.stages import items as item_stage
from stream.stages.dead_letters import headers_of, kept
from stream.stages.requests import RequestStage

GONE = UnreadableBatch(
    topic="interactions",
    partition=2,
    offset=9,
    timestamp=1_700_000_000_000,
    timestamp_type=1,
    key=None,
    value=None,
    checksum=None,
    serialized_key_size=-1,
    serialized_value_size=-1,
    headers=(),
    first_offset=5,
    why="its checksum is wrong",
)


def reasons(rejects: Any) -> list[str]:
    return [error.reason for _, error in rejects]


def test_every_stage_refuses_them() -> None:
    taken = intake.take_in(Batch("interactions", 1, 0.0, {TP("interactions", 2): 5}, {TP("interactions", 2): [GONE]}))
    assert reasons(taken.rejects) == ["unreadable"]
    assert reasons(item_stage.take_in([[GONE]]).rejects) == ["unreadable"]
    stage: Any = SimpleNamespace(_partitions=8, _app=SimpleNamespace(epoch_of=lambda topic, partition: 0))
    assert reasons(RequestStage._take_in(stage, [[GONE]]).rejects) == ["unreadable"]


def test_the_dead_letter_names_all_of_them() -> None:
    headers = {name: (value or b"").decode() for name, value in headers_of(GONE, kept(GONE), Unreadable(GONE))}
    assert headers["reason"] == "unreadable"
    assert headers["detail"] == "offsets 5 to 9 (5 records): its checksum is wrong"
    assert (headers["source-first-offset"], headers["source-offset"]) == ("5", "9")


def test_a_feed_passes_them() -> None:
    assert _newest([GONE]) == {}
