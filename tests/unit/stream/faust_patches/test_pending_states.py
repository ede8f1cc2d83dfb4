from __future__ import annotations

from models.users.state import UserState
from stream.faust_patches.delivery import Batch
from stream.faust_patches.pending_states import PendingStates

USER = (0, "u")


def batch() -> Batch:
    return Batch("interactions", 1, 0.0, {}, {})


def state(offset: int) -> UserState:
    return UserState(offset, {}, [], 0.0, 0, 0, b"", 0, "", [], 1)


def test_the_newest_state_counts_until_its_batch_is_removed() -> None:
    pending = PendingStates(lambda batch: True)
    first, second = batch(), batch()
    pending.add(first, {USER: state(1)})
    pending.add(second, {USER: state(2)})
    assert pending.newest(USER) == state(2)
    pending.remove(first, [USER])
    assert pending.newest(USER) == state(2)
    pending.remove(second, [USER])
    assert pending.newest(USER) is None
    assert len(pending) == 0


def test_the_state_of_a_batch_that_is_read_again_counts_for_nothing() -> None:
    void: list[Batch] = []
    pending = PendingStates(lambda batch: not any(batch is other for other in void))
    first, second = batch(), batch()
    pending.add(first, {USER: state(1)})
    pending.add(second, {USER: state(2)})
    void.append(second)
    assert pending.newest(USER) == state(1), "the batch before it goes on"
    void.append(first)
    assert pending.newest(USER) is None
