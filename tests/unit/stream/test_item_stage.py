from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from models.signals import NOTHING, SignalRules, Transition, apply, encode_transition
from stream.item_stage import is_counted, take_in


def record(offset: int, key: bytes | None, value: bytes | None, partition: int = 0) -> Any:
    return SimpleNamespace(partition=partition, offset=offset, key=key, value=value)


def test_transitions_are_sorted_by_item_in_the_order_of_the_log() -> None:
    ones = [Transition(float(n), 1, n, "b" if n % 2 else None) for n in range(4)]
    keys = [b"a", b"c", b"a", b"a"]
    records = [record(10 + n, key, encode_transition(one)) for n, (key, one) in enumerate(zip(keys, ones, strict=True))]
    fold = take_in([records, [record(5, b"a", encode_transition(ones[0]), partition=3)]])
    assert fold.of_items == {0: {b"a": [ones[0], ones[2], ones[3]], b"c": [ones[1]]}, 3: {b"a": [ones[0]]}}
    assert fold.offsets == {(0, b"a"): 13, (0, b"c"): 11, (3, b"a"): 5}
    assert not fold.rejects


def test_what_is_no_transition_is_refused_with_a_reason() -> None:
    good = encode_transition(Transition(1.0, 0, 0))
    junk = [(b"a", b"?"), (b"a", None), (None, good), (b"", good), (b"\xff", good), (b"a", b"\xff" * 40)]
    fold = take_in([[record(n, key, value) for n, (key, value) in enumerate(junk)]])
    assert not fold.of_items
    assert [given.offset for given, _ in fold.rejects] == list(range(len(junk)))
    assert {error.reason for _, error in fold.rejects} == {"bad_transition"}


def test_a_transition_is_counted_by_kind_and_source_partition() -> None:
    state = apply(SignalRules(), NOTHING, [Transition(1.0, 0, 7), Transition(1.0, 1, 3, "b", 0.5)])
    assert is_counted(state, Transition(1.0, 0, 7))
    assert is_counted(state, Transition(1.0, 0, 6))
    assert not is_counted(state, Transition(1.0, 0, 8))
    assert not is_counted(state, Transition(1.0, 0, 7, "b"))
    assert is_counted(state, Transition(1.0, 1, 3, "b", 0.5))
    assert not is_counted(state, Transition(1.0, 1, 3))
