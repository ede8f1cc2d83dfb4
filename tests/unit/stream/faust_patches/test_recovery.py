"""Which stores a restore believes, from which offset on it reads, and when it is tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.tables.manager import TableManager

from stream.faust_patches import recovery
from stream.faust_patches.changelog import Changelog
from stream.faust_patches.delivery import BatchApp
from stream.faust_patches.recovery import BatchRecovery, held_up_to
from stream.faust_patches.stores import StoreIdentity, StoreNotWritable
from stream.source.topic_identity import TopicIdentities
from tests.unit.stream.made import TOPIC, made_changelog, records, value

CLUSTER = TopicIdentities("cluster", {TOPIC: "id-1"})
UNKNOWN = TopicIdentities("", {})
OURS = StoreIdentity("cluster", TOPIC, "id-1", 0)


@pytest.fixture
def changelog(tmp_path: Path) -> Iterator[Changelog]:
    made = made_changelog(tmp_path)
    yield made
    made.table.data.close()


def filled(changelog: Changelog, offset: int = 41) -> None:
    changelog.merge(0, records((b"ann", value(5))), {})
    changelog.advance(0, offset)


def test_a_new_store_is_given_its_identity(changelog: Changelog) -> None:
    assert held_up_to(changelog, 0, 100, CLUSTER) == -1
    assert changelog.stores.identity(0) == OURS


def test_a_store_of_an_earlier_release_is_adopted(changelog: Changelog) -> None:
    filled(changelog)
    assert held_up_to(changelog, 0, 100, CLUSTER) == 41
    assert changelog.stores.identity(0) == OURS
    assert changelog.read(0, [b"ann"]) == [value(5)]


@pytest.mark.parametrize(
    "identity",
    [
        StoreIdentity("another", TOPIC, "id-1", 0),
        StoreIdentity("cluster", TOPIC, "id-of-before", 0),
        StoreIdentity("cluster", TOPIC, "id-1", 3),
    ],
)
def test_a_store_of_another_changelog_is_deleted(
    changelog: Changelog, identity: StoreIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    filled(changelog)
    changelog.stores.set_identity(0, identity)
    with caplog.at_level(logging.ERROR):
        assert held_up_to(changelog, 0, 100, CLUSTER) == -1
    assert len(caplog.messages) == 1
    assert "store is of another changelog and will be restored" in caplog.text
    assert changelog.read(0, [b"ann"]) == [None]
    assert changelog.stores.identity(0) == OURS


def test_a_store_ahead_of_its_changelog_is_deleted(changelog: Changelog) -> None:
    filled(changelog, offset=100)
    assert held_up_to(changelog, 0, 100, CLUSTER) == -1
    assert changelog.read(0, [b"ann"]) == [None]


def test_ids_that_could_not_be_read_change_nothing(changelog: Changelog) -> None:
    filled(changelog)
    held_up_to(changelog, 0, 100, CLUSTER)
    assert held_up_to(changelog, 0, 100, UNKNOWN) == 41
    assert changelog.stores.identity(0) == OURS


def test_ids_that_are_learned_later_are_added(changelog: Changelog) -> None:
    filled(changelog)
    assert held_up_to(changelog, 0, 100, UNKNOWN) == 41
    assert held_up_to(changelog, 0, 100, CLUSTER) == 41
    assert changelog.stores.identity(0) == OURS


def test_a_store_whose_write_failed_is_opened_again(changelog: Changelog) -> None:
    filled(changelog)
    changelog.stores.failed[0] = StoreNotWritable(0, "no space")
    with pytest.raises(StoreNotWritable):
        changelog.read(0, [b"ann"])
    assert held_up_to(changelog, 0, 100, CLUSTER) == 41
    assert changelog.read(0, [b"ann"]) == [value(5)]


class Rounds(BatchRecovery):
    """A recovery whose rounds end as they are told to."""

    ends: list[Exception]

    async def _restore_and_resume(self, generation: int) -> None:
        if self.ends:
            raise self.ends.pop(0)
        self.completed.set()
        self.signal_recovery_start.clear()


async def test_a_round_that_a_full_disk_ends_is_tried_again_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "STORE_RETRY_S", 0.01)
    app = BatchApp("unused", broker="kafka://unused", web_enabled=False)
    rounds = Rounds(app, cast(TableManager, SimpleNamespace(store_failure="")))
    rounds.ends = [StoreNotWritable(0, "No space left on device"), StoreNotWritable(0, "No space left on device")]
    rounds.completed.clear()
    rounds.signal_recovery_start.set()
    task = asyncio.ensure_future(cast(Any, BatchRecovery._restart_recovery).fun(rounds))
    try:
        async with asyncio.timeout(10):
            await asyncio.wait(
                [task, waiting := asyncio.ensure_future(rounds.completed.wait())], return_when="FIRST_COMPLETED"
            )
            assert waiting.done(), "the service gave up"
            assert rounds.ends == []
    finally:
        task.cancel()
        waiting.cancel()
