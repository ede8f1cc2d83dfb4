"""Live item signals: how often an item occurs of late, and what follows it, as a state per item.

A count at half-life T is the sum of 2^(-age / T) over an item's occurrences: it is decayed when it is read, so
nothing is written because time passes. After an event, each of the user's last items gets the new one as a
successor, the nearer the heavier. State in, state out; `models.items.signal_table` is what lists are scored with.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Annotated, TypeVar

import msgspec

HOUR_S, DAY_S = 3600.0, 86400.0
SIGNALS_VERSION = 1
TRANSITIONS_VERSION = 4  # of their records; 2 and 3 began records of a single one
TRANSITIONS_BYTES = 128 * 1024  # a record of them at most: a broker takes 1 MiB, a reader holds many
LAST_ITEMS = (1.0, 0.5, 0.25)
"""What a user's newest item, the one before and the one before that weigh, as predecessors of the next."""

SLACK = 1.5  # successors are cut back to the bound when there are half as many more: sorting once in 50 times
SPAN = 64  # half-lives: weights are kept relative to a multiple of this many, so rescaling is by 2^-64, exactly

Key = TypeVar("Key", str, int)  # an item by its id, or by its row

_weight = itemgetter(1)  # equal ones stay in the order in which they first came

_HEADER = struct.Struct("<Bq")
_TRANSITIONS_HEAD = bytes([TRANSITIONS_VERSION])

_ItemId = Annotated[str, msgspec.Meta(min_length=1)]
_Finite = Annotated[float, msgspec.Meta(ge=0.0, le=sys.float_info.max)]  # neither infinity, nor what is no number
_Partition = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_Offset = Annotated[int, msgspec.Meta(ge=0, lt=2**63 - 1)]


class BadSignals(ValueError):
    """Bytes that hold no signals and no transitions, or such of a version that this code does not know."""


@dataclass(frozen=True)
class SignalRules:
    """What is counted; raises ValueError for half-lives that nothing can decay by."""

    # news live for hours, films for weeks
    half_lives_s: tuple[float, ...] = (0.5 * HOUR_S, 3 * HOUR_S, DAY_S, 7 * DAY_S, 60 * DAY_S)
    # a week's was half as good on ratings of years, and no better on news
    successor_half_life_s: float = 3 * 365 * DAY_S
    max_successors: int = 100  # an item: beyond, counts are of one or two users

    def __post_init__(self) -> None:
        """Refuse half-lives that are not positive, and bounds below one successor."""
        if not all(math.isfinite(s) and s > 0 for s in (*self.half_lives_s, self.successor_half_life_s)):
            raise ValueError(f"half-lives {self.half_lives_s}, {self.successor_half_life_s} are not positive seconds")
        if self.max_successors < 1:
            raise ValueError(f"max_successors is {self.max_successors}")

    @cached_property
    def counted_half_lives_s(self) -> tuple[float, ...]:
        """Name what occurrences decay by: the trends' half-lives, and the successors', which are held against them."""
        return (*self.half_lives_s, self.successor_half_life_s)

    def nearest_half_life_s(self, wanted_s: float) -> float:
        """Choose from the counted half-lives the one nearest to a duration, by their ratio."""
        return min(self.counted_half_lives_s, key=lambda counted_s: abs(math.log(counted_s / wanted_s)))

    @cached_property
    def all_half_lives_s(self) -> list[float]:
        """List the counts' half-lives, then the successors', as states and records carry them; nobody changes it."""
        return [*self.counted_half_lives_s, self.successor_half_life_s]


class Transition(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an event says of one item: that it occurred (no successor), or that `successor` came soon after it."""

    timestamp: _Finite
    partition: _Partition  # of the event on `interactions`
    offset: _Offset  # its position there, over all epochs of the log (see `contracts.position`)
    successor: _ItemId | None = None
    weight: _Finite = 1.0


class ItemSignals(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One item's signals, up to the transition at `applied_offset` of the item's own partition, a position."""

    applied_offset: int
    occurrences: dict[int, int]
    """Partition of `interactions` -> the highest offset whose occurrence is counted."""
    follows: dict[int, int]
    """The same, of what follows: an event can be both, of one item, when that is consumed twice."""
    at: float
    """When the item last occurred; the counts are decayed to this time."""
    counts: list[float]
    """By half-life: the trends', then the successors'."""
    landmark: float
    """A multiple of SPAN half-lives; successors' weights are of that time: 2^((t - landmark) / half-life) at t."""
    successors: dict[str, float]
    half_lives_s: list[float]
    """What `counts` decay by, so that a state outlives other rules; the successors' is the last."""


class SignalRecord(msgspec.Struct, frozen=True, gc=False):
    """One item's signals as they go out on `signals`, decayed to `at`; successors are [item_id, count], best first."""

    item_id: str
    at: float
    counts: list[float]
    successors: list[tuple[str, float]]
    half_lives_s: list[float]
    """Of the counts, and after them that of the successors."""


NOTHING = ItemSignals(-1, {}, {}, 0.0, [], 0.0, {}, [])
"""An item that has never occurred."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ItemSignals)
_transitions_decoder = msgspec.msgpack.Decoder(list[tuple[_ItemId, Transition]])
_record_encoder = msgspec.json.Encoder()
_record_decoder = msgspec.json.Decoder(SignalRecord)


def transitions(
    last_items: Sequence[str], item_id: str, timestamp: float, partition: int, offset: int
) -> list[tuple[str, Transition]]:
    """Say what an event means to items: its own occurrence, and itself as a successor of the user's last items.

    `last_items` come oldest first. Each item gets at most one transition of each kind, or a redelivered one could
    not be told from another of the same event.
    """
    weights: dict[str, float] = {}
    for weight, before in zip(LAST_ITEMS, reversed(last_items), strict=False):
        weights[before] = weights.get(before, 0.0) + weight
    made = [(item_id, Transition(timestamp, partition, offset))]
    for before, weight in weights.items():
        made.append((before, Transition(timestamp, partition, offset, item_id, weight)))
    return made


def apply(
    rules: SignalRules, state: ItemSignals, given: Iterable[Transition], applied_offset: int | None = None
) -> ItemSignals:
    """Count transitions of one item, each once however often it is delivered.

    From one partition of `interactions` they must come in the order of its offsets, as they do. `applied_offset` is
    the offset of the last one in the item's own partition (by default it stays). The result depends on the order of
    the transitions alone, not on how they were cut into calls; that of different partitions matters in the last bits
    only, unless more successors than `max_successors` are tied for a place.
    """
    state = under(rules, state)
    occurrences, follows = dict(state.occurrences), dict(state.follows)
    at, counts = state.at, state.counts
    landmark, successors = state.landmark, dict(state.successors)
    for one in given:
        applied = occurrences if one.successor is None else follows
        if one.offset <= applied.get(one.partition, -1):
            continue
        applied[one.partition] = one.offset
        if one.successor is None:
            at, counts = occurred(rules, at, counts, one.timestamp)
        else:
            landmark = followed(rules, landmark, successors, one.timestamp, one.successor, one.weight)
    newest = state.applied_offset if applied_offset is None else max(state.applied_offset, applied_offset)
    return ItemSignals(newest, occurrences, follows, at, counts, landmark, successors, state.half_lives_s)


def under(rules: SignalRules, state: ItemSignals) -> ItemSignals:
    """Go on under other rules: a half-life that was not counted by begins with the count of the one nearest to it."""
    wanted = rules.all_half_lives_s
    if state.half_lives_s == wanted:
        return state
    *known, successor_half_life_s = state.half_lives_s or wanted
    counts = state.counts
    if counts:
        counts = [
            counts[min(range(len(known)), key=lambda n: abs(math.log(known[n] / s)))]
            for s in rules.counted_half_lives_s
        ]
    landmark, successors = state.landmark, state.successors
    if successors and successor_half_life_s != rules.successor_half_life_s:
        span = SPAN * rules.successor_half_life_s
        at = max(state.at, landmark)
        landmark = at // span * span
        grown = 2.0 ** ((at - landmark) / rules.successor_half_life_s)
        scale = grown * 0.5 ** ((at - state.landmark) / successor_half_life_s)
        successors = {other: weight * scale for other, weight in successors.items()}
    return msgspec.structs.replace(state, counts=counts, landmark=landmark, successors=successors, half_lives_s=wanted)


def occurred(rules: SignalRules, at: float, counts: Sequence[float], timestamp: float) -> tuple[float, list[float]]:
    """Count one more occurrence -> (at, counts); one older than the newest counts what it is worth by then."""
    half_lives_s = rules.counted_half_lives_s
    if not counts:
        return timestamp, [1.0] * len(half_lives_s)
    if timestamp >= at:
        passed = timestamp - at
        return timestamp, [c * 0.5 ** (passed / s) + 1.0 for c, s in zip(counts, half_lives_s, strict=True)]
    late = at - timestamp
    return at, [c + 0.5 ** (late / s) for c, s in zip(counts, half_lives_s, strict=True)]


def followed(
    rules: SignalRules, landmark: float, successors: dict[Key, float], timestamp: float, successor: Key, weight: float
) -> float:
    """Count a successor, in place -> the landmark that the weights are relative to now."""
    span = SPAN * rules.successor_half_life_s
    if not successors:
        landmark = timestamp // span * span
    elif timestamp - landmark >= span:
        spans = (timestamp - landmark) // span
        scale = 0.5 ** (SPAN * spans)
        for key, kept in list(successors.items()):
            successors[key] = kept * scale
        landmark += spans * span
    worth = weight * 2.0 ** ((timestamp - landmark) / rules.successor_half_life_s)
    successors[successor] = successors.get(successor, 0.0) + worth
    if len(successors) > SLACK * rules.max_successors:
        best = sorted(successors.items(), key=_weight, reverse=True)[: rules.max_successors]
        successors.clear()
        successors.update(best)
    return landmark


def record(rules: SignalRules, item_id: str, state: ItemSignals) -> SignalRecord:
    """Write an item's signals for all workers; successors that have faded are left out."""
    state = under(rules, state)
    at = max(state.at, state.landmark) if state.successors else state.at
    scale = 0.5 ** ((at - state.landmark) / rules.successor_half_life_s)
    best = sorted(state.successors.items(), key=_weight, reverse=True)[: rules.max_successors]
    counts = counts_at(rules, state, at) or [0.0] * len(rules.counted_half_lives_s)
    successors = [(other, w * scale) for other, w in best if w * scale > 0.0]
    return SignalRecord(item_id, at, counts, successors, rules.all_half_lives_s)


def encode_record(record: SignalRecord) -> bytes:
    """Write a record of `signals` as JSON."""
    return _record_encoder.encode(record)


def decode_record(value: bytes) -> SignalRecord:
    """Read a record of `signals`; raises BadSignals for anything else."""
    try:
        record = _record_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSignals(f"{len(value)} bytes are no signals: {error}") from None
    # JSON has no numbers that are not finite
    least = min(record.at, min(map(_weight, record.successors), default=0.0), *record.counts)
    if len(record.half_lives_s) != len(record.counts) + 1 or least < 0:
        raise BadSignals(f"the signals of item {record.item_id!r} are not finite counts, one for each half-life")
    return record


def encode(state: ItemSignals) -> bytes:
    """Write a state: its version, its applied offset (both to be read alone, as a user's), itself."""
    buffer = bytearray(_HEADER.pack(SIGNALS_VERSION, state.applied_offset))
    _encoder.encode_into(state, buffer, _HEADER.size)
    return bytes(buffer)


def decode(value: bytes) -> ItemSignals:
    """Read a state back; raises BadSignals for anything else."""
    offset = applied_offset(value)
    try:
        state = _decoder.decode(memoryview(value)[_HEADER.size :])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSignals(f"signals of {len(value)} bytes can't be read: {error}") from None
    if state.applied_offset != offset:
        raise BadSignals(f"the header says offset {offset}, the signals {state.applied_offset}")
    return state


def applied_offset(value: bytes) -> int:
    """Read a state's applied offset without decoding it; raises BadSignals for other versions."""
    if len(value) < _HEADER.size:
        raise BadSignals(f"{len(value)} bytes are no signals")
    version, offset = _HEADER.unpack_from(value)
    if version != SIGNALS_VERSION:
        raise BadSignals(f"signals of version {version}; this code reads version {SIGNALS_VERSION}")
    return int(offset)


def encode_transitions(made: Sequence[tuple[str, Transition]]) -> list[bytes]:
    """Write transitions of items, in their order, as values of few records on `transitions`."""
    value = _TRANSITIONS_HEAD + _encoder.encode(made)
    if len(value) <= TRANSITIONS_BYTES or len(made) <= 1:
        return [value]
    middle = len(made) // 2
    return [*encode_transitions(made[:middle]), *encode_transitions(made[middle:])]


def decode_transitions(value: bytes) -> list[tuple[str, Transition]]:
    """Read a record's transitions of items back; raises BadSignals for anything else."""
    if not value:
        raise BadSignals("no bytes are no transitions")
    if value[0] != TRANSITIONS_VERSION:
        raise BadSignals(f"transitions of version {value[0]}; this code reads version {TRANSITIONS_VERSION}")
    try:
        return _transitions_decoder.decode(memoryview(value)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSignals(f"transitions of {len(value)} bytes can't be read: {error}") from None


def counts_at(rules: SignalRules, state: ItemSignals, t: float) -> list[float]:
    """Read the counts at a time, which may lie before the newest occurrence (then that counts in full)."""
    passed = max(t - state.at, 0.0)
    return [c * 0.5 ** (passed / s) for c, s in zip(state.counts, rules.counted_half_lives_s, strict=False)]


def successors_at(rules: SignalRules, state: ItemSignals, t: float) -> Mapping[str, float]:
    """Read the weights of what follows the item at a time, at the earliest at the landmark; unbounded, as kept."""
    scale = 0.5 ** (max(t - state.landmark, 0.0) / rules.successor_half_life_s)
    return {other: weight * scale for other, weight in state.successors.items()}
