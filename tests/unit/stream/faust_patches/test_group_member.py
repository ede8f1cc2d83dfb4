"""The membership in the group: what is retried, what ends it, and which member id is asked for again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState

from stream.app import _member_url
from stream.faust_patches.group_member import FENCED_INSTANCE_ID, Fenced, GroupMember, join_as_member


async def member_of(instance_id: str | None) -> GroupMember:
    """Make a member that has not joined, and asks nobody."""
    client = AIOKafkaClient(bootstrap_servers="127.0.0.1:1")
    coordinator = GroupCoordinator(
        client,
        SubscriptionState(),
        group_id="group",
        group_instance_id=instance_id,
        assignors=(),
        retry_backoff_ms=1,
    )
    return join_as_member(coordinator)


async def test_an_error_that_passes_is_retried_by_a_new_join() -> None:
    member = await member_of(None)
    member._heartbeat_task = asyncio.ensure_future(asyncio.sleep(0))
    await member._heartbeat_task
    await member._push_error_to_user(errors.KafkaError("Unexpected exception in heartbeat task"))
    assert (member.ended, member._heartbeat_task) == ("", None), "a new join starts the next one"
    assert member._rejoin_needed_fut.done()
    await member.close()


@pytest.mark.parametrize("fenced", [True, False])
async def test_an_error_that_lasts_ends_the_member(fenced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    member = await member_of("worker-0")
    error: Exception = errors.GroupAuthorizationFailedError("group")
    if fenced:

        async def answer(self: Any, request: object) -> object:
            return SimpleNamespace(error_code=FENCED_INSTANCE_ID)

        monkeypatch.setattr(GroupCoordinator, "_send_req", answer)
        await member._send_req(object())
        error = errors.KafkaError("UnknownError()")
    pushed = asyncio.ensure_future(member._push_error_to_user(error))
    await asyncio.sleep(0)
    assert ("instance id worker-0" if fenced else "GroupAuthorizationFailedError") in member.ended
    assert isinstance(member.fatal_error, Fenced) == fenced
    await member.close()
    await pushed


async def test_a_static_member_asks_for_its_old_id_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def join(self: GroupMember, subscription: object) -> bool:
        asked.append(self.member_id)
        self.reset_generation()  # the group does not know it
        return False

    monkeypatch.setattr(GroupCoordinator, "_do_rejoin_group", join)
    for instance_id, expected in (("worker-0", ["id-1", ""]), (None, ["", ""])):
        asked.clear()
        member = await member_of(instance_id)
        member.member_id = "id-1"
        member.reset_generation()
        member.reset_generation()  # as a commit hears it, too
        assert member.member_id == "", "the heartbeats of the old membership end"
        await member._do_rejoin_group(cast(Any, None))
        await member._do_rejoin_group(cast(Any, None))
        assert asked == expected
        await member.close()


def test_a_member_is_named_by_its_instance_id_alone() -> None:
    assert _member_url("worker-0") == _member_url("worker-0") == "http://worker/worker-0"
    assert _member_url("a/b?c") == "http://worker/a%2Fb%3Fc"
    assert _member_url(None) != _member_url(None)
