from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from models.items.signals import NOTHING, SignalRules, Transition, apply, encode_transitions
from stream.stages.items import counted_before, take_in


def record(offset: int, value: bytes | None, partition: int = 0) -> Any:
    return SimpleNamespace(partition=partition, offset=offset, key=None, value=value)


def written(*made: tuple[str, Transition]) -> bytes:
    [value] = encode_transitions(made)
    return value


def test_transitions_are_sorted_by_item_in_the_order_of_the_log() -> None:
    ones = [Transition(float(n), 1, n, "b" if n % 2 else None) for n in range(4)]
    records = [record(10, written(("a", ones[0]), ("c", ones[1]), ("a", ones[2]))), record(11, written(("a", ones[3])))]
    fold = take_in([records, [record(5, written(("a", ones[0])), partition=3)]])
    assert fold.of_items == {0: {"a": [ones[0], ones[2], ones[3]], "c": [ones[1]]}, 3: {"a": [ones[0]]}}
    assert fold.offsets == {(0, "a"): 11, (0, "c"): 10, (3, "a"): 5}
    assert not fold.rejects


def test_what_is_no_transition_is_refused_with_a_reason() -> None:
    good = written(("a", Transition(1.0, 0, 0)))
    junk = [b"?", None, b"", written(("", Transition(1.0, 0, 0))), good[:-1], good + b"\0", b"\xff" * 40]
    fold = take_in([[record(n, value) for n, value in enumerate([*junk, good])]])
    assert fold.of_items == {0: {"a": [Transition(1.0, 0, 0)]}}
    assert [given.offset for given, _ in fold.rejects] == list(range(len(junk)))
    assert {error.reason for _, error in fold.rejects} == {"bad_transition"}


def test_a_transition_is_counted_by_kind_and_source_partition() -> None:
    state = apply(SignalRules(), NOTHING, [Transition(1.0, 0, 7), Transition(1.0, 1, 3, "b", 0.5)])
    assert counted_before(state, [Transition(1.0, 0, 7)]) == 1
    assert counted_before(state, [Transition(1.0, 0, 6)]) == 1
    assert counted_before(state, [Transition(1.0, 0, 8)]) == 0
    assert counted_before(state, [Transition(1.0, 0, 7, "b")]) == 0
    assert counted_before(state, [Transition(1.0, 1, 3, "b", 0.5)]) == 1
    assert counted_before(state, [Transition(1.0, 1, 3)]) == 0
